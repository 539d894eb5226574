"""What `toft plugin pin` prints: what a document says of a wheel and of everything that it needs.

Imported when it runs, and not before: it brings along what looks into wheels.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from toft.cli.session import Session
from toft.kernel import ids
from toft.kernel.errors import NotFoundError
from toft.plugins.environments import interpreters, projects, wheelhouses


def pins(
    session: Session, wheels: list[Path], houses: list[Path] | None, *, python: str | None, url: str
) -> dict[str, Any]:
    """Return the plugins section of a document for some wheels; blocks.

    Raises:
        NodeError: A wheel is none, or what it needs does not lie in those directories.
    """
    for each in (*wheels, *(houses or ())):
        if not each.exists():
            raise NotFoundError(f"there is no {each}", code="source.not_found")
    return asyncio.run(_pins(session, wheels, houses, python, url))


async def _pins(
    session: Session, wheels: list[Path], houses: list[Path] | None, python: str | None, url: str
) -> dict[str, Any]:
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


def toml(plugins: dict[str, Any]) -> str:
    """Return a plugins section as a person writes it."""
    lines = []
    for name, pin in plugins.items():
        lines += ["", f"[plugins.{name}]", *_values(pin)]
        for package in pin.get("packages", ()):
            lines += ["", f"[[plugins.{name}.packages]]", *_values(package)]
    return "\n".join(lines[1:]) + "\n"


def _values(told: dict[str, Any]) -> list[str]:
    # A JSON string of what may stand in a name, a version or an address is a TOML string, too.
    return [f"{name} = {json.dumps(value)}" for name, value in told.items() if not isinstance(value, list)]
