"""Which trace something belongs to, carried as a W3C traceparent, and how long the steps of it took.

Nothing here knows who collects traces; without a collector a step costs one look at a context variable.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from toft.kernel import clock as clocks

HEADER = "traceparent"
_SHAPE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LENGTH = 55
_given: ContextVar[str | None] = ContextVar("toft_traceparent", default=None)
_collected: ContextVar[list[Step] | None] = ContextVar("toft_steps", default=None)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that took a while; times in seconds since 1970."""

    name: str
    began: float
    ended: float


def parse(header: str | None) -> str | None:
    """Return a traceparent as version 00; None for what is none, which is ignored and never an error."""
    if header is None or not _SHAPE.match(header):
        return None
    # Later versions may add to it, the first one may not.
    if len(header) > _LENGTH and (header.startswith("00") or header[_LENGTH] != "-"):
        return None
    return "00" + header[2:_LENGTH]


@contextlib.contextmanager
def within(header: str | None) -> Iterator[None]:
    """Let what happens in a `with` block belong to the trace of a request."""
    token = _given.set(parse(header))
    try:
        yield
    finally:
        _given.reset(token)


def current() -> str | None:
    """Return the traceparent of what happens now: of the request, else of the program's own tracing."""
    return _given.get() or _ambient()


def _ambient() -> str | None:
    # A program that traces has imported it; one that does not must not pay for it.
    tracing = sys.modules.get("opentelemetry.trace")
    if tracing is None:
        return None
    found = tracing.get_current_span().get_span_context()
    if not found.is_valid:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags):02x}"


@contextlib.contextmanager
def step(name: str, clock: clocks.Clock = clocks.SYSTEM) -> Iterator[None]:
    """Note how long a `with` block takes, for whoever collects the steps of this."""
    collected = _collected.get()
    if collected is None:
        yield
        return
    began = clock.now()
    try:
        yield
    finally:
        collected.append(Step(name, began, clock.now()))


@contextlib.contextmanager
def collect() -> Iterator[list[Step]]:
    """Collect the steps of a `with` block, in the order in which they ended."""
    steps: list[Step] = []
    token = _collected.set(steps)
    try:
        yield steps
    finally:
        _collected.reset(token)
