"""`toft plugin new|test|pin`: for people who write plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toft.cli import session as sessions
from toft.cli.live import Live
from toft.cli.session import JsonOption, argument, option


def new(
    context: typer.Context,
    name: Annotated[str, argument("NAME", "What the plugin is called: a-z, 0-9, - and _.")],
    directory: Annotated[
        Path, option("--directory", "-d", metavar="DIR", help="Where to make the folder; here by default.")
    ] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make a folder with a working plugin in it."""
    from toft.plugins import scaffold  # noqa: PLC0415 - a command that makes no folder does not pay for it

    session = sessions.of(context)
    files = scaffold.write(name, directory.absolute())
    folder = directory / name
    if as_json:
        session.terminal.json(
            {"name": name, "path": str(folder.absolute()), "files": [str(each) for each in files]}
        )
        return
    for each in files:
        session.terminal.line(str(folder / each))
    session.terminal.note(f"next: toft plugin test {_typed(folder)}; toft plugin add {_typed(folder)}")


def conform(
    context: typer.Context,
    target: Annotated[str, argument("PATH|NAME", "A plugin's folder, or an installed plugin.")],
    python: Annotated[
        str | None, option("--python", metavar="VERSION|PATH", help="Which Python, such as 3.8 or a path.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a plugin to what callers rely on.

    Runs it in a process of its own, without installing it.
    """
    session = sessions.of(context)
    with session.node() as node, Live(session.terminal, f"testing {target}") as live:
        found = [each.to_dict() for each in node.installed.test(target, python=python, on_step=live.step)]
    sessions.show_checks(session, found, as_json=as_json)


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
    from toft.cli import pinning  # noqa: PLC0415 - 70 ms that `toft --help` does not pay

    session = sessions.of(context)
    found = pinning.pins(session, wheels, houses, python=python, url=url)
    if as_json:
        session.terminal.json({"plugins": found})
    else:
        session.terminal.write(pinning.toml(found))


def register(app: typer.Typer) -> None:
    """Put the commands on `toft plugin`."""
    app.command("new")(new)
    app.command("test")(conform)
    app.command("pin")(pin)


def _typed(folder: Path) -> str:
    """A bare word would be read as a requirement."""
    text = str(folder)
    return text if text.startswith(("/", ".")) else f"./{text}"
