"""Looks at gates: what is found at each kind of them, here and now.

A look never fails and never lasts: what cannot be looked at is pending, what does not answer in time is red.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from toft.host import commands
from toft.kernel import errors
from toft.managed.document import Document
from toft.managed.gates import Allowed, Gate, Light, Reading, declared

LIVED_S = 60.0
"""How long the process must have lived for a gate of kind `process`."""
_WINDOW_S = 300.0
_SUCCESS = 0.9
_MESSAGE = 300
_EXEC_ENVIRON = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


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
    host, port = gate.address
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
