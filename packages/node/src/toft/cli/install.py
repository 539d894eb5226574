"""`toft plugin add|refresh|remove|size|regenerate`: changes what is installed, and shows each step."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated, Any

import typer

from toft.cli import session as sessions
from toft.cli.live import Live
from toft.cli.session import JsonOption, PluginArgument, Session, YesOption, argument, option
from toft.kernel.errors import IntegrityError, NodeError
from toft.kernel.quantities import counted, size

SourceArgument = Annotated[
    str | None,
    argument(
        "SOURCE",
        "A directory, a .py file, a wheel, a requirement, a plugins.yaml (./plugins.yaml by default).",
    ),
]
NameOption = Annotated[str | None, option("--name", metavar="NAME", help="Call the plugin this.")]
PythonOption = Annotated[
    str | None, option("--python", metavar="VERSION|PATH", help="Which Python, such as 3.11 or a path.")
]
WithOption = Annotated[
    list[str] | None, option("--with", metavar="REQUIREMENT", help="Install this beside it; repeatable.")
]
LockOption = Annotated[
    str | None,
    option("--lock", metavar="FILE", help="Install exactly what this file of hashed requirements says."),
]
EnvFileOption = Annotated[
    str | None, option("--env-file", metavar="FILE|URL", help="Build from this environment.yml.")
]
OfflineOption = Annotated[bool, option("--offline", help="Never use the network.")]


def add(
    context: typer.Context,
    source: SourceArgument = None,
    name: NameOption = None,
    python: PythonOption = None,
    requirements: WithOption = None,
    lock: LockOption = None,
    env_file: EnvFileOption = None,
    force: Annotated[bool, option("--force", help="Replace a plugin of that name from elsewhere.")] = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Install a plugin, or all of a plugins.yaml.

    Each gets an environment of its own; equal ones are shared.
    """
    session = sessions.of(context)
    wanted = source or str(session.settings().plugins_file)
    with session.node() as node, _steps(session, f"adding {wanted}") as live:
        try:
            added = node.installed.add(
                wanted,
                name=name,
                python=python,
                requirements=tuple(requirements or ()) or None,
                lock=lock,
                env_file=env_file,
                force=force,
                offline=True if offline else None,
                on_step=live.step,
            )
        except NodeError as error:
            # Of a list, what could be added is installed; say so before what could not.
            some = error.details.get("added")
            if some:
                _tell(session, _entries(node, some), "added", as_json=as_json)
            raise
        rows = _entries(node, [each.name for each in added])
    _tell(session, rows, "added", as_json=as_json)


def refresh(context: typer.Context, name: PluginArgument, as_json: JsonOption = False) -> None:
    """Build a plugin's environment anew, and swap.

    The newest versions that fit are resolved again. The plugin stays as it is when anything fails.
    """
    session = sessions.of(context)
    with session.node() as node, _steps(session, f"refreshing {name}") as live:
        node.refresh(name, on_step=live.step)
        rows = _entries(node, [name])
    _tell(session, rows, "refreshed", as_json=as_json)


def regenerate(context: typer.Context, name: PluginArgument, as_json: JsonOption = False) -> None:
    """Ask the installed code again what it is.

    Only that part of the manifest is rewritten.
    """
    session = sessions.of(context)
    with session.node() as node, _steps(session, f"asking {name}") as live:
        live.step(f"asking {name} what it is")
        node.installed.regenerate(name)
        rows = _entries(node, [name])
    _tell(session, rows, "regenerated", as_json=as_json)


def remove(
    context: typer.Context,
    name: PluginArgument,
    yes: YesOption = False,
    keep_env: Annotated[bool, option("--keep-env", help="Keep its environment.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a plugin and what only it uses.

    Asks first when a person sits at the terminal.
    """
    session = sessions.of(context)
    with session.node() as node:
        with contextlib.suppress(IntegrityError):  # one that cannot be read can be removed all the same
            node.installed.get(name)
        if not yes and not as_json and sys.stdin.isatty() and session.terminal.shows_progress:
            typer.confirm(f"Remove plugin {name}?", abort=True, err=True)
        node.remove(name, keep_environment=keep_env)
    if as_json:
        session.terminal.json({"removed": name})
    else:
        session.terminal.note(f"removed {name}")


def estimate(
    context: typer.Context,
    source: Annotated[str, argument("SOURCE", "What would be given to add, or an installed plugin's name.")],
    python: PythonOption = None,
    requirements: WithOption = None,
    env_file: EnvFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what installing would download."""
    session = sessions.of(context)
    with session.node() as node, _steps(session, f"resolving {source}") as live:
        found = node.installed.size(
            source,
            python=python,
            requirements=tuple(requirements or ()),
            env_file=env_file,
            on_step=live.step,
        ).to_dict()
    if as_json:
        session.terminal.json(found)
        return
    rows = sorted(found["packages"].items(), key=lambda row: -(row[1] or 0))
    session.terminal.table(["package", "download"], [[each, _known(amount)] for each, amount in rows])
    total = f"{size(found['download_bytes'])} in {counted(len(rows), 'package')}"
    if found["unknown"]:
        total += f", and {len(found['unknown'])} whose size nobody says"
    session.terminal.note(f"{total}{'; the environment is built already' if found['exists'] else ''}")


def register(app: typer.Typer) -> None:
    """Put the commands on `toft plugin`."""
    app.command("add")(add)
    app.command("refresh")(refresh)
    app.command("remove")(remove)
    app.command("size")(estimate)
    app.command("regenerate")(regenerate)


def _steps(session: Session, label: str) -> Live:
    return Live(session.terminal, label)


def _entries(node: Any, names: list[str]) -> list[dict[str, Any]]:
    return [entry for entry in map(sessions.entry, node.plugins()) if entry["name"] in names]


def _tell(session: Session, rows: list[dict[str, Any]], done: str, *, as_json: bool) -> None:
    if as_json:
        session.terminal.json(rows)
        return
    for row in rows:
        where = f"Python {row['python']}" + (
            f", environment {row['environment'][:12]}" if row["environment"] else ""
        )
        session.terminal.line(f"{done} {row['name']} {row['version']} ({where})")
    if done == "added" and len(rows) == 1:
        session.terminal.note(f"next: toft plugin show {rows[0]['name']}")


def _known(amount: int | None) -> str:
    return "unknown" if amount is None else size(amount)
