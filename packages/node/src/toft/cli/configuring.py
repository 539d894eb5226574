"""What `toft config` does it with: the documents of a home here, or of a node elsewhere; the same verbs.

Imported when one of the commands runs, and not before: it brings the whole room of documents along.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from toft import wiring
from toft.cli.session import Session
from toft.client import probe
from toft.client.place import Place
from toft.daemon import control
from toft.kernel.errors import NotFoundError, UnavailableError
from toft.managed import console, document, gates, layering, looks

_LOOK_S = 0.1
_APPLY_S = 900.0
"""A document may bring plugins that are fetched and built first."""


class Documents(Protocol):
    """The documents of one node."""

    def describe(self) -> dict[str, Any]:
        """Return how the node stands."""
        ...

    def text(self, which: str) -> Any:
        """Return a document: `running`, `lkg` or `served`."""
        ...

    def effective(self) -> dict[str, Any]:
        """Return all layers together."""
        ...

    def explain(self, key: str) -> dict[str, Any]:
        """Return which layer wins."""
        ...

    def drift(self) -> list[dict[str, str]]:
        """Return how the machine differs from its document."""
        ...

    def apply(self, data: bytes, *, signatures: str, source: str) -> dict[str, Any]:
        """Commit a document; says too whether a daemon starts again with it."""
        ...

    def roll_back(self, reason: str) -> dict[str, Any]:
        """Go back to the document before; says too whether a daemon starts again with it."""
        ...

    def pin(self, reason: str) -> None:
        """Take nothing new; an empty reason takes it again."""
        ...

    def acknowledge(self) -> None:
        """Take note of the last way back."""
        ...


def of(session: Session) -> Documents:
    """Return those that a command line is about."""
    return Here(session) if session.target() is None else There(session)


class Here:
    """The documents of a home of this machine: a daemon is asked where there is one, else the files.

    Args:
        session: Of the command.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._chosen = session.settings()
        self._place = Place(self._chosen.home)
        self._console = console.Console(self._chosen.home, layering.Local.of(session.environ, self._chosen))

    def describe(self) -> dict[str, Any]:
        """Return how the node stands; the files alone are enough."""
        found: dict[str, Any] = self._told("", self._console.describe)
        return found

    def text(self, which: str) -> Any:
        """Return a document."""
        if which == "served":
            return self._ask("GET", "/document?which=served")
        return json.loads(self._console.document(which))

    def effective(self) -> dict[str, Any]:
        """Return all layers together."""
        found: dict[str, Any] = self._told("/effective", self._console.effective)
        return found

    def explain(self, key: str) -> dict[str, Any]:
        """Return which layer wins: for the daemon where one runs, else for whoever would start it so."""
        if self._is_up():
            try:
                found: dict[str, Any] = self._ask("GET", f"/explain?key={urllib.parse.quote(key, safe='')}")
            except UnavailableError:
                pass
            else:
                return found
        return self._console.explain(key)

    def drift(self) -> list[dict[str, str]]:
        """Return how the machine differs from its document."""
        found: list[dict[str, str]] = self._told("/drift", self._console.drift)
        return found

    def apply(self, data: bytes, *, signatures: str, source: str) -> dict[str, Any]:
        """Commit a document: in the daemon, which knows how its gates are now; without one, here."""
        if self._is_up():
            body = {"document": data.decode(), "signatures": signatures or None, "source": source}
            try:
                done: dict[str, Any] = self._ask("POST", "/apply", body, timeout_s=_APPLY_S)
            except UnavailableError as error:
                if error.code != "daemon.no_answer":
                    raise
            else:
                return {**done, "daemon": "restarts" if done["action"] == "applied" else None}
        chosen = self._chosen
        staged = asyncio.run(
            self._console.apply(
                data,
                nonce=f"cli-{secrets.token_hex(8)}",
                source=source,
                signatures=signatures,
                installer=wiring.open_installer(chosen, self._session.environ),
                gated=looks.Bystander(gates.Allowed.of(chosen.gate_hosts, chosen.gate_commands, chosen.home)),
            )
        )
        is_told = staged.action == "applied" and self._tell()
        return {
            "action": staged.action,
            "etag": staged.etag,
            "slot": staged.slot or None,
            "daemon": "restarts" if is_told else None,
        }

    def roll_back(self, reason: str) -> dict[str, Any]:
        """Go back to the document before; the files alone are enough."""
        found = self._console.roll_back(reason)
        return {**found, "daemon": "restarts" if self._tell() else None}

    def pin(self, reason: str) -> None:
        """Take nothing new; an empty reason takes it again."""
        self._console.pin(reason)

    def acknowledge(self) -> None:
        """Take note of the last way back."""
        self._console.acknowledge()

    def _is_up(self) -> bool:
        return self._place.find() is not None and self._place.socket.exists()

    def _told(self, what: str, otherwise: Callable[[], Any]) -> Any:
        """Ask the daemon; without one, or one that does not answer, look at the files."""
        if self._is_up():
            try:
                return self._ask("GET", what)
            except UnavailableError:
                pass
        return otherwise()

    def _ask(self, method: str, what: str, body: Any = None, *, timeout_s: float = 30.0) -> Any:
        if not self._is_up():
            raise UnavailableError(
                "no daemon runs that could be asked", code="daemon.no_answer", hint="toft up --detach"
            )
        return probe.ask(self._place.socket, method, f"/v1/configuration{what}", body, timeout_s=timeout_s)

    def _tell(self) -> bool:
        return control.tell_generation(self._place)


class There:
    """The documents of a node elsewhere.

    Args:
        session: Of the command.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def describe(self) -> dict[str, Any]:
        """Return how the node stands."""
        found: dict[str, Any] = self._with(lambda documents: documents.describe())
        return found

    def text(self, which: str) -> Any:
        """Return a document."""
        return self._with(lambda documents: documents.text(which))

    def effective(self) -> dict[str, Any]:
        """Return all layers together."""
        found: dict[str, Any] = self._with(lambda documents: documents.effective())
        return found

    def explain(self, key: str) -> dict[str, Any]:
        """Return which layer wins."""
        found: dict[str, Any] = self._with(lambda documents: documents.explain(key))
        return found

    def drift(self) -> list[dict[str, str]]:
        """Return how the machine differs from its document."""
        found: list[dict[str, str]] = self._with(lambda documents: documents.drift())
        return found

    def apply(self, data: bytes, *, signatures: str, source: str) -> dict[str, Any]:
        """Commit a document."""
        done = self._with(
            lambda documents: documents.apply(data.decode(), signatures=signatures, source=source)
        )
        return {**done, "daemon": "restarts" if done["action"] == "applied" else None}

    def roll_back(self, reason: str) -> dict[str, Any]:
        """Go back to the document before."""
        return {**self._with(lambda documents: documents.roll_back(reason)), "daemon": "restarts"}

    def pin(self, reason: str) -> None:
        """Take nothing new; an empty reason takes it again."""
        self._with(lambda documents: documents.pin(reason) if reason else documents.unpin())

    def acknowledge(self) -> None:
        """Take note of the last way back."""
        self._with(lambda documents: documents.acknowledge())

    def _with(self, do: Callable[[Any], Any]) -> Any:
        with self._session.node() as node:
            return do(node.documents)


def author(text: bytes, name: str) -> bytes:
    """Return what somebody wrote as the bytes of a document.

    Raises:
        UsageError: It is not in its language, or no document.
    """
    return document.author(text, name).data


def exact(text: bytes, name: str) -> bytes:
    """Return the bytes of a document that somebody has signed, exactly as they are.

    Raises:
        DocumentError: They are none.
    """
    return document.parse(text, name).data


def check(text: bytes, name: str) -> dict[str, Any]:
    """Return everything that is wrong with what somebody wrote.

    Raises:
        UsageError: It is not in its language.
    """
    try:
        return console.check(json.loads(document.author(text, name).data))
    except document.DocumentError as error:
        if "problems" not in error.details:
            raise
        return {"ok": False, "etag": None, "problems": error.details["problems"], "not_served": []}


def difference(older: Any, newer: Any, names: tuple[str, str]) -> Sequence[str]:
    """Return how two documents differ, line by line."""
    return console.difference(json.dumps(older).encode(), json.dumps(newer).encode(), names)


def is_held_back(documents: Documents, older: Any) -> bool:
    """Say whether a document is one that this node went back from."""
    etag = document.etag_of(document.encode(older))
    return etag in {each["etag"] for each in documents.describe()["bad"]}


def other(documents: Documents, against: str) -> Any:
    """Return a document of this node to compare with; an empty one where there is none."""
    try:
        return documents.text(against)
    except NotFoundError:
        return {}


def outcome(documents: Documents, etag: str, wait_s: float) -> str:
    """Wait until a trial is over, and say how it ended."""
    until = time.monotonic() + wait_s
    while True:
        try:
            found = documents.describe()
        except UnavailableError:
            found = None  # it starts again
        trial = (found or {}).get("trial")
        if found is not None and (trial is None or trial["etag"] != etag):
            last = next((each for each in reversed(found["history"]) if each["etag"] == etag), None)
            if found["confirmed"] == etag:
                return "confirmed"
            return f"{last['event']}: {last['reason']}" if last else "gone"
        if time.monotonic() >= until:
            return "still on trial" if found is not None else "the node does not answer any more"
        time.sleep(_LOOK_S)
