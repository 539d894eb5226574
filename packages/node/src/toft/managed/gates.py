"""Gates: what must be green before a document counts as proven, and what of it this node may look at.

A gate that was red before the document came says nothing about it, and does not count. What a document may
have looked at outside of this node is on a list in the node's own settings, never in the document.
"""

from __future__ import annotations

import enum
import shlex
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from toft.kernel import errors, schemas
from toft.managed.document import Document

_LOOK_S = 10.0


class Light(enum.StrEnum):
    """What a look found.

    GREEN: as it must be. RED: not so. PENDING: not yet to be said; nothing is proven meanwhile. IDLE: there
    is nothing to judge by, and nothing waits for it.
    """

    GREEN = "green"
    RED = "red"
    PENDING = "pending"
    IDLE = "idle"


@dataclass(frozen=True)
class Reading:
    """What one look found, and why."""

    light: Light
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One gate of a document.

    Attributes:
        name: Its name there.
        kind: What is looked at.
        spec: What the document says of it.
        is_required: False only reports.
    """

    name: str
    kind: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    is_required: bool = True

    @property
    def timeout_s(self) -> float:
        """Return how long one look may take."""
        return float(self.spec.get("timeout_s", _LOOK_S))

    @property
    def address(self) -> tuple[str, int]:
        """Return the host and the port that one of kind `http` or `tcp` asks."""
        if self.kind == "tcp":
            host, _, text = self.spec.get("address", ":0").rpartition(":")
            return host.strip("[]").lower(), int(text)
        parsed = urllib.parse.urlsplit(self.spec.get("url", ""))
        try:
            port = parsed.port
        except ValueError:
            port = 0
        usual = 443 if parsed.scheme == "https" else 80
        return (parsed.hostname or "").lower(), port if port is not None else usual


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a document may have looked at outside of this node.

    Attributes:
        hosts: `HOST` or `HOST:PORT` for `http` and `tcp`.
        commands: Programs with their arguments, by name, for `exec`.
        directory: Where they are run.
    """

    hosts: tuple[str, ...] = ()
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    directory: Path = Path("/")

    @classmethod
    def of(cls, hosts: Sequence[str], listed: Sequence[str], directory: Path) -> Allowed:
        """Return what the settings `gate_hosts` and `gate_commands` allow.

        Raises:
            UsageError: A line is no `NAME=PROGRAM ARGUMENT...`.
        """
        found: dict[str, tuple[str, ...]] = {}
        for line in listed:
            name, _, text = line.partition("=")
            try:
                argv = tuple(shlex.split(text))
            except ValueError:
                argv = ()
            if not (name.strip() and argv and argv[0].startswith("/")):
                raise errors.UsageError(
                    f"gate_commands: {line!r:.200} is not NAME=/PATH/OF/PROGRAM ARGUMENT...",
                    code="settings.gate_commands",
                )
            found[name.strip()] = argv
        return cls(hosts=tuple(each.lower() for each in hosts), commands=found, directory=directory)

    def problems(self, offered: Document) -> list[schemas.Problem]:
        """Return which gates of a document this node does not allow, and how it would."""
        found = []
        for gate in declared(offered):
            why = self.refusal(gate)
            if why:
                found.append(schemas.Problem(("health", "gates", gate.name), why, "not_allowed"))
        return found

    def refusal(self, gate: Gate) -> str:
        """Return why a gate is not looked at here; empty when it may be."""
        if gate.kind == "exec" and gate.spec.get("command") not in self.commands:
            return "is a command that is not on this node's list: the setting gate_commands has it"
        if gate.kind in ("http", "tcp"):
            host, port = gate.address
            if host not in self.hosts and f"{host}:{port}" not in self.hosts:
                return f"asks {host}:{port}, which this node does not allow: the setting gate_hosts does"
        return ""


class Gated(Protocol):
    """Looks at the gates of a document before it is committed."""

    @property
    def allowed(self) -> Allowed:
        """Return what they may look at outside of this node."""
        ...

    async def baseline(self, offered: Document) -> Mapping[str, str]:
        """Return what each of them shows now."""
        ...


def declared(document: Document, *, is_enrolled: bool = False) -> tuple[Gate, ...]:
    """Return the gates of a document; a node that is enrolled always has one of kind `poll`."""
    found = [
        Gate(name=name, kind=spec["kind"], spec=spec, is_required=spec.get("required", True))
        for name, spec in document.section("health").get("gates", {}).items()
    ]
    if is_enrolled and not any(each.kind == "poll" and each.is_required for each in found):
        name = next(each for each in ("poll", "poll-required") if each not in {gate.name for gate in found})
        found.insert(0, Gate(name=name, kind="poll"))
    return tuple(found)


def told(
    gate: Gate, reading: Reading, baseline: Mapping[str, str], *, since: str | None = None
) -> dict[str, Any]:
    """Return a gate and what was found, as JSON."""
    return {
        "name": gate.name,
        "kind": gate.kind,
        "required": gate.is_required,
        "counts": counts(gate, baseline),
        "state": str(reading.light),
        "since": since,
        "message": reading.message,
    }


def counts(gate: Gate, baseline: Mapping[str, str]) -> bool:
    """Say whether a gate decides: one that was not green before says nothing about what came then."""
    if not gate.is_required:
        return False
    # What a document brings itself was not there to be red; poll and process are about this process alone.
    own = gate.kind in ("poll", "process")
    return own or baseline.get(gate.name) not in (Light.RED, Light.IDLE)
