"""`toft secret`: values that a plugin is given and nobody is shown."""

from __future__ import annotations

import contextlib
import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toft.cli import session as sessions
from toft.cli.session import JsonOption, PluginArgument, Session, argument, option
from toft.kernel.errors import NodeError, RefusedError, UsageError
from toft.secrets.redaction import SHORTEST_IN_TEXT
from toft.secrets.store import DEFAULT_SCOPE, LONGEST_VALUE_BYTES

if TYPE_CHECKING:
    from toft.plugins.manifests.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Keep secrets for plugins: set, list, rm.")

KeyArgument = Annotated[str, argument("KEY", "The variable the plugin declares, such as API_KEY.")]
ScopeOption = Annotated[str, option("--scope", metavar="SCOPE", help="Which set of secrets.")]


@app.command("set")
def set_secret(
    context: typer.Context,
    plugin: PluginArgument,
    key: KeyArgument,
    value: Annotated[
        str | None,
        option("--value", metavar="VALUE", help="The value itself; other users of the machine can see it."),
    ] = None,
    from_stdin: Annotated[bool, option("--from-stdin", help="Read the value from standard input.")] = False,
    from_file: Annotated[
        Path | None, option("--from-file", metavar="FILE", help="Read the value from a file.")
    ] = None,
    scope: ScopeOption = DEFAULT_SCOPE,
    as_json: JsonOption = False,
) -> None:
    """Store a secret, asking for it unseen.

    Unless it is told where the value comes from.

    One newline at the end of what is read is not part of the value.
    """
    session = sessions.of(context)
    if sum((value is not None, from_stdin, from_file is not None)) > 1:
        raise UsageError("Give the value in one way: --value, --from-stdin or --from-file")
    if value is not None:
        session.terminal.warn("--value shows the secret to every user of this machine while toft runs (ps)")
    elif from_file is not None:
        value = _without_last_newline(_read_file(from_file))
    elif from_stdin:
        value = _without_last_newline(sys.stdin.read(LONGEST_VALUE_BYTES + 2))
    else:
        value = _ask(plugin, key)
    _store(session, plugin, key, value, scope)
    if len(value) < SHORTEST_IN_TEXT:
        session.terminal.warn(
            f"{key} is so short that it can be hidden in logs only where its name stands beside it"
        )
    if as_json:
        session.terminal.json({"plugin": plugin, "key": key, "scope": scope})
    else:
        session.terminal.note(f"stored {key} for {plugin}; instances get it when they are next loaded")


def _store(session: Session, plugin: str, key: str, value: str, scope: str) -> None:
    """Store a secret where it is asked for, and say so when nobody will ask for it there."""
    if session.target() is None:
        session.secrets().set(plugin, key, value, scope=scope)
        with contextlib.suppress(NodeError):  # a manifest that cannot be read is told by what reads it
            _remark(session, plugin, key, _declared(session, plugin))
        return
    _default_only(scope)
    with session.node() as node:
        node.set_secret(plugin, key, value)
        # Whoever may store a secret need not be allowed to look which there are.
        with contextlib.suppress(RefusedError):
            rows = node.secrets.list(plugin)
            declared = [each["key"] for each in rows if each["declared"] and each["secret"]]
            is_there = any(each.name == plugin for each in node.plugins())
            _remark(session, plugin, key, declared if is_there else None)


@app.command("list")
def list_secrets(
    context: typer.Context,
    plugin: Annotated[str | None, argument("NAME", "Of one plugin only.")] = None,
    scope: ScopeOption = DEFAULT_SCOPE,
    as_json: JsonOption = False,
) -> None:
    """List the names of stored secrets."""
    session = sessions.of(context)
    if session.target() is not None:
        _default_only(scope)
        with session.node() as node:
            found = [(each["plugin"], each["key"]) for each in node.secrets.list(plugin) if each["stored"]]
    else:
        store = session.secrets()
        plugins = [plugin] if plugin is not None else store.list_plugins(scope=scope)
        found = [(each, key) for each in plugins for key in store.list_keys(each, scope=scope)]
        if plugin is not None and not found:
            # A slip of the keyboard is told, as a node elsewhere tells it.
            _registry(session).get(plugin)
    if as_json:
        session.terminal.json([{"plugin": each, "key": key, "scope": scope} for each, key in found])
    elif found:
        session.terminal.table(["plugin", "secret"], found)
    else:
        session.terminal.note("no secrets are stored; toft secret set NAME KEY stores one")


@app.command("rm")
def remove_secret(
    context: typer.Context,
    plugin: PluginArgument,
    key: KeyArgument,
    scope: ScopeOption = DEFAULT_SCOPE,
    as_json: JsonOption = False,
) -> None:
    """Remove a secret for good."""
    session = sessions.of(context)
    if session.target() is not None:
        _default_only(scope)
        with session.node() as node:
            node.secrets.remove(plugin, key)
    else:
        session.secrets().delete(plugin, key, scope=scope)
    if as_json:
        session.terminal.json({"plugin": plugin, "key": key, "scope": scope})
    else:
        session.terminal.note(f"removed {key} of {plugin}")


def _default_only(scope: str) -> None:
    if scope != DEFAULT_SCOPE:
        raise UsageError(
            f"a node elsewhere is asked for the secrets that it uses, those of {DEFAULT_SCOPE}",
            code="remote.local_only",
            hint=f"toft secret --scope {scope} works on that machine",
        )


def _declared(session: Session, plugin: str) -> list[str] | None:
    """Return the secrets that a plugin of this machine asks for; None when it is not installed."""
    from toft.plugins.manifests.registry import Registry  # noqa: PLC0415 - manifests, which `toft --help` does not pay

    found = Registry(session.settings().home).find_name(plugin)
    if found is None:
        return None
    return [str(each["name"]) for each in found.manifest.code.worker_env if each.get("secret")]


def _registry(session: Session) -> Registry:
    from toft.plugins.manifests import registry  # noqa: PLC0415 - manifests, which `toft --help` does not pay

    return registry.Registry(
        session.settings().home,
        search_paths=registry.project_paths(Path.cwd()),
        fallback_paths=registry.reference_paths(Path.cwd(), session.environ.get("HOME")),
    )


def _remark(session: Session, plugin: str, key: str, declared: list[str] | None) -> None:
    """Say so when nobody will ask for what was stored: a slip of the keyboard would show only much later."""
    if declared is None:
        session.terminal.warn(f"no plugin called {plugin} is installed; the secret is kept for when it is")
    elif key not in declared:
        names = ", ".join(declared) or "none"
        session.terminal.warn(f"{plugin} asks for no secret {key}; it asks for {names}")


def _read_file(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read(LONGEST_VALUE_BYTES + 2)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", code="secret.bad_value") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text; encode binary data as base64 first", code="secret.bad_value"
        ) from error


def _without_last_newline(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _ask(plugin: str, key: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            "There is no terminal to ask for the value",
            code="secret.no_terminal",
            hint=f'printf %s "$VALUE" | toft secret set {plugin} {key} --from-stdin',
        )
    return getpass.getpass(f"{key} of {plugin} (not shown): ")
