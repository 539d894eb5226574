"""`toft plugin pin`: what a document says of a wheel and of everything that it needs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from toft.cli import session as sessions
from toft.cli.session import JsonOption, argument, option
from toft.kernel import ids
from toft.kernel.errors import NotFoundError


def pin(
    context: typer.Context,
    wheels: Annotated[list[Path], argument("WHEEL...", "Wheels of plugins.")],
    houses: Annotated[
        list[Path] | None,
        option("--from", metavar="DIR", help="Where what they need lies; beside each wheel by default."),
    ] = None,
    python: Annotated[
        str | None, option("--python", metavar="VERSION", help="For which Python, such as 3.12.")
    ] = None,
    url: Annotated[
        str, option("--url", metavar="URL", help="Where nodes find the files; each name is put behind it.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Print the plugins section of a document for some wheels.

    Everything a wheel needs is taken from directories of wheels, the newest that fits, and pinned with it.
    Nothing is installed, and no index is asked.
    """
    session = sessions.of(context)
    for each in (*wheels, *(houses or ())):
        if not each.exists():
            raise NotFoundError(f"there is no {each}", code="source.not_found")
    found = asyncio.run(_pins(session, wheels, houses, python, url))
    if as_json:
        session.terminal.json({"plugins": found})
    else:
        session.terminal.write(_toml(found))


async def _pins(
    session: sessions.Session, wheels: list[Path], houses: list[Path] | None, python: str | None, url: str
) -> dict[str, Any]:
    from toft.plugins.environments import interpreters, projects, wheelhouses  # noqa: PLC0415 - as in config

    known = interpreters.Interpreters(session.settings().interpreters, environ=session.environ)
    found: dict[str, Any] = {}
    for wheel in wheels:
        requires = await asyncio.to_thread(projects.requires_python, wheel)
        interpreter = await known.find(python, requires)
        house = wheelhouses.Wheelhouses(houses or [wheel.parent], interpreter)
        own, *others = await asyncio.to_thread(house.close, wheel)
        told = _told(own, url)
        told.pop("name")
        if python:
            told["python"] = python
        if others:
            told["packages"] = [_told(each, url) for each in others]
        for name in await asyncio.to_thread(wheelhouses.plugin_names, wheel):
            found[ids.check_name(name, "plugin name")] = told
    return found


def _told(wheel: Any, url: str) -> dict[str, Any]:
    told = {
        "name": wheel.name,
        "version": wheel.version,
        "filename": wheel.filename,
        "sha256": wheel.sha256,
        "size_bytes": wheel.path.stat().st_size,
    }
    return {**told, "url": f"{url.rstrip('/')}/{quote(wheel.filename)}"} if url else told


def _toml(plugins: dict[str, Any]) -> str:
    lines = []
    for name, pin in plugins.items():
        lines += ["", f"[plugins.{name}]", *_values(pin)]
        for package in pin.get("packages", ()):
            lines += ["", f"[[plugins.{name}.packages]]", *_values(package)]
    return "\n".join(lines[1:]) + "\n"


def _values(told: dict[str, Any]) -> list[str]:
    # A JSON string of what may stand in a name, a version or an address is a TOML string, too.
    return [f"{name} = {json.dumps(value)}" for name, value in told.items() if not isinstance(value, list)]


def register(app: typer.Typer) -> None:
    """Put the command on `toft plugin`."""
    app.command("pin")(pin)
