"""`toft env`: the environments plugins run in."""

from __future__ import annotations

from typing import Annotated

import typer

from toft.cli import session as sessions
from toft.cli.live import Live
from toft.cli.session import JsonOption, option
from toft.kernel.quantities import counted, size

app = typer.Typer(no_args_is_help=True, help="List and collect the environments plugins run in.")


@app.command("list")
def list_environments(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the environments and who uses them."""
    session = sessions.of(context)
    with session.node() as node:
        found = [each.to_dict() for each in node.installed.environments()]
        if session.target() is None:  # a node elsewhere says it itself
            users: dict[str, list[str]] = {}
            for each in node.plugins():
                users.setdefault(each.environment, []).append(each.name)
            found = [{**each, "plugins": users.get(each["hash"], [])} for each in found]
    if as_json:
        session.terminal.json(found)
    elif not found:
        session.terminal.note("there are no environments")
    else:
        rows = [
            [
                each["hash"],
                each["kind"],
                each["python_version"],
                size(each["size_bytes"]),
                _names(each["plugins"]),
            ]
            for each in found
        ]
        session.terminal.table(["environment", "kind", "python", "size", "plugins"], rows)


@app.command("gc")
def collect(context: typer.Context, as_json: JsonOption = False) -> None:
    """Remove the environments that no plugin needs.

    And what interrupted work left behind.
    """
    session = sessions.of(context)
    with session.node() as node:
        removed = [each.to_dict() for each in node.installed.collect_environments()]
    freed = sum(each["size_bytes"] for each in removed)
    if as_json:
        session.terminal.json({"removed": [each["hash"] for each in removed], "freed_bytes": freed})
    else:
        session.terminal.line(f"removed {counted(len(removed), 'environment')}, {size(freed)}")


@app.command("setup-runtime")
def setup_runtime(
    context: typer.Context,
    force: Annotated[bool, option("--force", help="Fetch it again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch micromamba for this node.

    For plugins that come with an environment.yml, where py-rattler is not installed.
    """
    session = sessions.of(context)
    with session.node() as node, Live(session.terminal, "setting up micromamba") as live:
        path = node.installed.setup_conda(force=force, on_step=live.step)
    if as_json:
        session.terminal.json({"path": str(path)})
    else:
        session.terminal.line(str(path))


def _names(names: list[str]) -> str:
    return ", ".join(names) or "-"
