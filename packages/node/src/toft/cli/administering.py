"""How the commands of `toft central` ask one, and the words that several of them take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toft.cli import hints
from toft.cli import session as sessions
from toft.cli.answers import Answer
from toft.cli.session import argument, option
from toft.kernel.errors import NodeError, UnavailableError, UsageError

if TYPE_CHECKING:
    from toft.client.target import Target

TenantOption = Annotated[
    str | None, option("--tenant", metavar="NAME", help="Whose; main where you say nothing.")
]


NodeArgument = Annotated[str, argument("NODE", "Its id, or its name where only one has it.")]
LOOK_S = 1.0
"""Between two looks of a command that watches."""
_MOST_MISSED = 60


class Central:
    """The central that a command line names.

    Args:
        context: Of the command.
        as_json: A script reads what it answers.
        tenant: Whose fleet the command is about; None leaves that to the central.
    """

    def __init__(self, context: typer.Context, as_json: bool, tenant: str | None = None) -> None:
        self._session = sessions.of(context)
        self._as_json = as_json
        self._tenant = tenant

    def ask(
        self,
        method: str,
        *route: str,
        body: Mapping[str, Any] | None = None,
        root: str = "/v1/admin",
        **query: Any,
    ) -> Answer:
        """Ask something.

        Args:
            method: Of the request.
            *route: Its parts, whatever stands in them.
            body: As JSON.
            root: Below which route.
            **query: What stands behind it, beside the tenant.

        Raises:
            UsageError: The command line names no central.
            NodeError: Nobody answers there, or as the central raised it.
        """
        room = _room()
        query = {"tenant": self._tenant, **query}
        with _at_central():
            value = room.ask(self._target(), method, room.path(root, *route), body, query=query)
        return self.answer(value)

    def look(self, *route: str, **query: Any) -> Answer:
        """Ask again something that this central has answered before, also when it is just starting again.

        Raises:
            UnavailableError: For a minute nobody has answered.
            NodeError: As `ask`.
        """
        for _ in range(_MOST_MISSED):
            with contextlib.suppress(UnavailableError):
                return self.ask("GET", *route, **query)
            time.sleep(LOOK_S)
        return self.ask("GET", *route, **query)

    def upload(self, files: Sequence[Path], *route: str) -> Answer:
        """Send files as they are, each below a route under its sha256.

        Raises:
            UsageError: The command line names no central.
            NodeError: Nobody answers there, or as the central raised it.
            OSError: A file cannot be read.
        """
        room = _room()
        made = []
        with _at_central():
            for file in files:
                path = room.path("/v1/admin", *route, room.digest(file))
                query = {"tenant": self._tenant, "filename": file.name}
                made.append(room.upload(self._target(), path, file, query=query))
        return self.answer(made)

    def answer(self, value: Any) -> Answer:
        """Return a value as an answer to this command."""
        return Answer(self._session.terminal, value, self._as_json)

    def _target(self) -> Target:
        found = self._session.target()
        if found is None:
            raise UsageError(
                "which central is to be asked is not said",
                code="central.no_url",
                hint="toft --url https://central.example --token-file FILE central ..., or set TOFT_URL and "
                "TOFT_TOKEN_FILE",
            )
        return found


@contextlib.contextmanager
def _at_central() -> Iterator[None]:
    """Say what to do next in the words of a central: much of what can be wrong is said for nodes as well."""
    try:
        yield
    except NodeError as error:
        error.hint = hints.at_central(error)
        raise


def _room() -> ModuleType:
    from toft.client import administration  # noqa: PLC0415 - 80 ms that `toft --help` does not pay

    return administration


def labels_of(texts: Sequence[str] | None, *, takes_away: bool = False) -> dict[str, Any]:
    """Return labels that were written as NAME=VALUE; where that is allowed, `NAME-` takes one away.

    Raises:
        UsageError: One is written in another way.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if takes_away and not equals and text.endswith("-"):
            found[text[:-1]] = None
        elif not equals or not name:
            raise UsageError(
                f"{text[:80]!r} is no NAME=VALUE",
                code="central.labels",
                hint="such as --label role=gpu",
            )
        else:
            found[name] = value
    return found
