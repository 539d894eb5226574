"""Gates: what must be green before a document counts as proven; and what a look at each of them found.

A gate that was red before the document came says nothing about it, and does not count. What a document may
have looked at outside of this node is on a list in the node's own settings, never in the document.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import shlex
import ssl
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from toft.host import commands
from toft.kernel import errors, schemas
from toft.managed import phases
from toft.managed.document import Document

LIVED_S = 60.0
"""How long the process must have lived for a gate of kind `process`."""
LOOK_S = 10.0
LEAST_RED_S = 5.0
"""What is red for a shorter time condemns nothing, however short the document wants to settle."""
_WINDOW_S = 300.0
_SUCCESS = 0.9
_MESSAGE = 300
_EXEC_ENVIRON = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


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
        return float(self.spec.get("timeout_s", LOOK_S))


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
            host, port = _address(gate)
            if host not in self.hosts and f"{host}:{port}" not in self.hosts:
                return f"asks {host}:{port}, which this node does not allow: the setting gate_hosts does"
        return ""


class Subject(Protocol):
    """What gates look at in this process."""

    def lived_s(self) -> float:
        """Return for how long the process has lived."""
        ...

    def polled(self) -> Reading:
        """Return whether who tells this node what to be has answered this process."""
        ...

    def instances(self) -> Mapping[str, Reading]:
        """Return the loaded instances by name, and what is to be said of each."""
        ...

    async def ended(self, instance: str | None, window_s: float) -> tuple[int, int]:
        """Return how many jobs ended well, and how many not, since the process began."""
        ...

    async def health(self, instance: str) -> Reading:
        """Ask a plugin itself."""
        ...


class Gated(Protocol):
    """Looks at the gates of a document before it is committed."""

    @property
    def allowed(self) -> Allowed:
        """Return what they may look at outside of this node."""
        ...

    async def baseline(self, offered: Document) -> Mapping[str, str]:
        """Return what each of them shows now."""
        ...


class Absent:
    """The subject where no process runs: nothing was red before, and nothing green."""

    def lived_s(self) -> float:
        """Return zero."""
        return 0.0

    def polled(self) -> Reading:
        """Return that nobody was asked."""
        return Reading(Light.PENDING)

    def instances(self) -> Mapping[str, Reading]:
        """Return none."""
        return {}

    async def ended(self, instance: str | None, window_s: float) -> tuple[int, int]:
        """Return none."""
        return 0, 0

    async def health(self, instance: str) -> Reading:
        """Return that it is not there."""
        return Reading(Light.PENDING)


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


async def look(
    gates: Sequence[Gate], document: Document, subject: Subject, allowed: Allowed
) -> dict[str, Reading]:
    """Look at all gates at the same time, at each for no longer than its `timeout_s`.

    Cancellation: Ends what was started for it.
    """
    looks = (_look(gate, document, subject, allowed) for gate in gates)
    # A trial ends in time, whatever cannot be looked at.
    found = await asyncio.gather(*looks, return_exceptions=True)
    return {gate.name: _reading(each) for gate, each in zip(gates, found, strict=True)}


def _reading(found: Reading | BaseException) -> Reading:
    if isinstance(found, BaseException):
        return Reading(Light.PENDING, f"cannot be looked at: {found!r}"[:_MESSAGE])
    return Reading(found.light, found.message[:_MESSAGE])


async def _look(gate: Gate, document: Document, subject: Subject, allowed: Allowed) -> Reading:
    why = allowed.refusal(gate)
    if why:
        return Reading(Light.RED, why)
    try:
        async with asyncio.timeout(gate.timeout_s):
            found = await _LOOKS[gate.kind](gate, document, subject, allowed)
    except TimeoutError:
        return Reading(Light.RED, f"no answer within {gate.timeout_s:g} s")
    return found


async def _poll(gate: Gate, document: Document, subject: Subject, allowed: Allowed) -> Reading:
    return subject.polled()


async def _process(gate: Gate, document: Document, subject: Subject, allowed: Allowed) -> Reading:
    lived_s = subject.lived_s()
    light = Light.GREEN if lived_s >= LIVED_S else Light.PENDING
    return Reading(light, f"has lived for {lived_s:.0f} s")


async def _instances(gate: Gate, document: Document, subject: Subject, allowed: Allowed) -> Reading:
    loaded = subject.instances()
    missing = Reading(Light.PENDING, "is not loaded")
    return _worst({name: loaded.get(name, missing) for name in _names(gate, document, loaded)})


async def _plugin(gate: Gate, document: Document, subject: Subject, allowed: Allowed) -> Reading:
    loaded = subject.instances()
    found: dict[str, Reading] = {}
    for name in _names(gate, document, loaded):
        state = loaded.get(name, Reading(Light.PENDING, "is not loaded"))
        found[name] = await subject.health(name) if state.light is Light.GREEN else state
    return _worst(found)


async def _jobs(gate: Gate, document: Document, subject: Subject, allowed: Allowed) -> Reading:
    window_s = float(gate.spec.get("window_s", _WINDOW_S))
    wanted = float(gate.spec.get("success", _SUCCESS))
    well, badly = await subject.ended(gate.spec.get("instance"), window_s)
    if not well + badly:
        return Reading(Light.IDLE, f"no job has ended in the last {window_s:g} s of this process")
    share = well / (well + badly)
    light = Light.GREEN if share >= wanted else Light.RED
    return Reading(light, f"{well} of {well + badly} jobs ended well, and {wanted:.0%} must")


async def _http(gate: Gate, document: Document, subject: Subject, allowed: Allowed) -> Reading:
    import httpcore  # noqa: PLC0415 - a twentieth of a second that whoever only looks at gates does not pay

    # As browsers send what a person has written.
    url = urllib.parse.quote(gate.spec["url"], safe="%/:?#[]@!$&'()*+,;=~")
    context = await asyncio.to_thread(ssl.create_default_context) if url.startswith("https") else None
    try:
        # Redirects are not followed: where they lead is on no list.
        async with (
            httpcore.AsyncConnectionPool(ssl_context=context) as pool,
            pool.stream("GET", url, headers={"User-Agent": "toft"}) as answer,
        ):
            light = Light.GREEN if 200 <= answer.status < 300 else Light.RED
            return Reading(light, f"answers {answer.status}")
    except (
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.TimeoutException,
        OSError,
        ValueError,
    ) as error:
        return Reading(Light.RED, f"does not answer: {error or type(error).__name__}")


async def _tcp(gate: Gate, document: Document, subject: Subject, allowed: Allowed) -> Reading:
    host, port = _address(gate)
    try:
        _, writer = await asyncio.open_connection(host, port)
    except (OSError, ValueError) as error:
        return Reading(Light.RED, f"takes no connection: {error}")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Reading(Light.GREEN, "takes connections")


async def _exec(gate: Gate, document: Document, subject: Subject, allowed: Allowed) -> Reading:
    argv = allowed.commands[gate.spec["command"]]
    try:
        done = await commands.run(
            argv, env=_EXEC_ENVIRON, cwd=allowed.directory, timeout_s=gate.timeout_s + 1.0
        )
    except errors.NodeError as error:
        return Reading(Light.RED, error.message)
    if done.code == 0:
        return Reading(Light.GREEN, "ended with 0")
    said = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
    return Reading(Light.RED, f"ended with {done.code}{': ' if said else ''}{said}")


_Look = Callable[[Gate, Document, Subject, Allowed], Awaitable[Reading]]
_LOOKS: Mapping[str, _Look] = {
    "poll": _poll,
    "process": _process,
    "instances": _instances,
    "jobs": _jobs,
    "http": _http,
    "tcp": _tcp,
    "exec": _exec,
    "plugin": _plugin,
}
_ORDER = (Light.RED, Light.PENDING, Light.GREEN, Light.IDLE)


def _names(gate: Gate, document: Document, loaded: Mapping[str, Reading]) -> list[str]:
    """Return which instances a gate is about: the one it names, else the document's, else all there are."""
    if "instance" in gate.spec:
        return [gate.spec["instance"]]
    wanted = [name for name, each in document.section("instances").items() if each.get("enabled", True)]
    return sorted(wanted or loaded)


def _worst(found: Mapping[str, Reading]) -> Reading:
    if not found:
        return Reading(Light.IDLE, "there is no instance")
    name, worst = min(found.items(), key=lambda each: _ORDER.index(each[1].light))
    if worst.light is Light.GREEN:
        return Reading(Light.GREEN, f"{len(found)} ready" if len(found) > 1 else worst.message)
    return Reading(worst.light, f"{name} {worst.message}")


def _address(gate: Gate) -> tuple[str, int]:
    if gate.kind == "tcp":
        host, _, port = gate.spec.get("address", ":0").rpartition(":")
        return host.strip("[]").lower(), int(port)
    parsed = urllib.parse.urlsplit(gate.spec.get("url", ""))
    try:
        port = parsed.port
    except ValueError:
        port = 0
    return (
        parsed.hostname or ""
    ).lower(), port if port is not None else 443 if parsed.scheme == "https" else 80


@dataclass(frozen=True)
class Bystander:
    """Looks at the gates of a document where no daemon runs: at what lies outside of one."""

    allowed: Allowed

    async def baseline(self, offered: Document) -> Mapping[str, str]:
        """Return what each of them shows now."""
        return shown(await look(declared(offered), offered, Absent(), self.allowed))


def shown(found: Mapping[str, Reading]) -> dict[str, str]:
    """Return the lights of a look, as they are kept."""
    return {name: str(reading.light) for name, reading in found.items()}


class Outcome(enum.StrEnum):
    """How a trial stands after a look."""

    WAITING = "waiting"
    PROVEN = "proven"
    FAILED = "failed"


class Course:
    """The course of one trial: what was found, look after look.

    Proven is what was green all the time for `settle_s`; failed, what one gate was red for as long.

    Args:
        gates: Of the document on trial.
        trial: What was found before it came.
        settle_s: How long.
    """

    def __init__(self, gates: Sequence[Gate], trial: phases.Trial, settle_s: float) -> None:
        self._counting = {gate.name for gate in gates if counts(gate, trial.baseline)}
        self._settle_s = settle_s
        self._green_since: float | None = None
        self._red_since: dict[str, float] = {}
        self.red_gate = ""

    def learn(self, readings: Mapping[str, Reading], at: float) -> Outcome:
        """Take in a look that was ended at a moment of the monotonic clock."""
        lights = {name: readings[name].light for name in self._counting if name in readings}
        red = [name for name, light in lights.items() if light is Light.RED]
        self._red_since = {name: self._red_since.get(name, at) for name in red}
        self.red_gate = min(red, key=lambda name: self._red_since[name], default="")
        if self.red_gate and at - self._red_since[self.red_gate] >= max(self._settle_s, LEAST_RED_S):
            return Outcome.FAILED
        if any(light not in (Light.GREEN, Light.IDLE) for light in lights.values()):
            self._green_since = None
            return Outcome.WAITING
        if self._green_since is None:
            self._green_since = at
        return Outcome.PROVEN if at - self._green_since >= self._settle_s else Outcome.WAITING

    def lasting_red(self, at: float) -> str:
        """Return the gate that has been red for longer than anything flickers; empty for none."""
        is_lasting = self.red_gate and at - self._red_since[self.red_gate] >= LEAST_RED_S
        return self.red_gate if is_lasting else ""

    @property
    def is_settling(self) -> bool:
        """Say whether all that counts is green, and only time is missing."""
        return self._green_since is not None


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
