"""What one command works with: its streams, its settings, and a node that is opened when it is needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toft.cli import failures, reach
from toft.cli.terminal import Terminal
from toft.kernel import settings as node_settings
from toft.kernel import traces
from toft.kernel.errors import NodeError
from toft.secrets.redaction import Redactor
from toft.secrets.store import SecretStore

if TYPE_CHECKING:
    from toft.client.target import Target


def argument(metavar: str, help: str) -> Any:
    """Describe a positional argument; the usage line shows `metavar` as it is."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


def option(*names: str, help: str, metavar: str | None = None, **more: Any) -> Any:
    """Describe an option; what it is without being given is said in `help` where that matters."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False, **more)


JsonOption = Annotated[bool, option("--json", help="Print one JSON value on stdout, for scripts.")]
PluginArgument = Annotated[str, argument("NAME", "The plugin's name.")]
YesOption = Annotated[bool, option("--yes", "-y", help="Do not ask.")]

_NAMES = ("target", "plugin", "name", "id")

_REMOTE = {"url": "TOFT_URL", "token_file": "TOFT_TOKEN_FILE", "ca_file": "TOFT_CA_FILE"}

Connect = Callable[..., AbstractContextManager[Any]]


class Session:
    """One run of the command line.

    Args:
        terminal: Where text goes.
        connect: Opens a node; None is the embedded one.
        environ: The environment variables that settings are read from.
    """

    def __init__(
        self,
        terminal: Terminal | None = None,
        connect: Connect | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.terminal = terminal or Terminal()
        self.environ = environ
        self.home: Path | None = None
        self.remote: Mapping[str, Any] = {}
        self.offline: bool | None = None
        self.is_verbose = False
        self.command = "toft"
        self.subject: str | None = None
        self._connect = connect
        self._target: Target | None = None

    def settings(self, **given: Any) -> node_settings.Settings:
        """Read the settings once more; they are small, and a command needs them once."""
        return node_settings.read(self.environ, home=self.home, offline=self.offline, **given)

    def target(self) -> Target | None:
        """Return the node elsewhere that this command line is for; None for the one of a home here."""
        from toft.client import target as targets  # noqa: PLC0415 - 3 ms that `toft --help` does not pay

        if self._target is None and (wanted := self.wanted()):
            self._target = targets.read(**wanted, on_warning=self.terminal.warn)
        return self._target

    def wanted(self) -> Mapping[str, Any]:
        """Return what was said of a node elsewhere, unread: by options, else by the environment."""
        if self.remote.get("url") is None and self.home is not None:
            return {}
        found = {
            name: self.environ[variable] for name, variable in _REMOTE.items() if self.environ.get(variable)
        }
        found |= {name: value for name, value in self.remote.items() if value}
        return found if found.get("url") else {}

    @contextlib.contextmanager
    def node(self, **options: Any) -> Iterator[Any]:
        """Open the node for the length of a `with` block.

        What is asked of it belongs to the trace that `TRACEPARENT` names, if it names one.
        """
        with traces.within(self.environ.get("TRACEPARENT")), self._opened(**options) as node:
            yield node

    @contextlib.contextmanager
    def _opened(self, **options: Any) -> Iterator[Any]:
        target = self.target()
        if target is not None:
            from toft.blocking import connecting  # noqa: PLC0415 - a fifth of a second that `toft --help` does not pay

            with connecting.open_target(target) as node:
                yield node
            return
        connect = self._connect
        if connect is None:
            from toft import blocking  # noqa: PLC0415 - a third of a second that `toft --help` does not pay

            connect = blocking.connect
        with connect(settings=self.settings(), **options) as node:
            yield node

    def secrets(self) -> SecretStore:
        """Open the secret store alone; setting a secret needs no node."""
        from toft.secrets.file_store import FileSecretStore  # noqa: PLC0415 - 10 ms that `toft --help` does not pay

        return FileSecretStore(self.settings().home / "secrets", on_warning=self.terminal.warn)

    def redactor(self) -> Redactor:
        """Return what takes the stored secrets out of text; of nothing when they cannot be read."""
        if self.wanted():
            return Redactor()  # a node has taken out its own, and those of this machine never went there
        try:
            return Redactor(self.secrets().list_values())
        except (NodeError, OSError):
            return Redactor()


def of(context: typer.Context) -> Session:
    """Return the session of a command."""
    session = context.find_object(Session)
    if session is None:
        raise TypeError("this command was started without a session")
    session.command = context.command_path
    # What goes wrong later is then told with the plugin's name in the next command.
    named = next((context.params[each] for each in _NAMES if context.params.get(each)), None)
    if wanted := session.wanted():
        reach.check(context.command_path, str(wanted["url"]), is_typed=bool(session.remote.get("url")))
    session.subject = named.partition(".")[0] if isinstance(named, str) else None
    return session


def entry(plugin: Any) -> dict[str, Any]:
    """Return the row of a plugin that scripts rely on."""
    return {
        "name": plugin.name,
        "version": plugin.version,
        "state": str(plugin.state),
        "environment": plugin.environment,
        "python": plugin.python,
        "drift": plugin.drift,
        "instances": list(plugin.instances),
    }


def show_checks(session: Session, found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print checks with evidence and next step; ends with status 1 when one failed."""
    if as_json:
        session.terminal.json([dict(each) for each in found])
    width = max((len(each["check"]) for each in found), default=0)
    for each in found if not as_json else ():
        session.terminal.line(
            f"{'ok  ' if each['ok'] else 'FAIL'}  {each['check']:<{width}}  {each['evidence']}"
        )
        if each["next"]:
            session.terminal.line(f"      {'':<{width}}  next: {each['next']}")
    if not all(each["ok"] for each in found):
        raise typer.Exit(failures.FAILED)
