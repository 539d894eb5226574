"""What one command works with: its streams, its settings, and a node that is opened when it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from toft.cli.terminal import Terminal
from toft.kernel import settings as node_settings
from toft.secrets.file_store import FileSecretStore

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout, for scripts.")]
PluginArgument = Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name.", show_default=False)]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

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
        self.offline: bool | None = None
        self._connect = connect

    def settings(self) -> node_settings.Settings:
        """Read the settings once more; they are small, and a command needs them once."""
        return node_settings.read(self.environ, home=self.home, offline=self.offline)

    def secrets(self) -> FileSecretStore:
        """Open the secret store alone; setting a secret needs no node."""
        return FileSecretStore(self.settings().home / "secrets", on_warning=self.terminal.warn)


def of(context: typer.Context) -> Session:
    """Return the session of a command."""
    session = context.find_object(Session)
    if session is None:
        raise TypeError("this command was started without a session")
    return session
