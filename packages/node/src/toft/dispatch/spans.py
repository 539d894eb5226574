"""The trace of a job, made from nothing but its events: what was written down is what is traced.

A call that is no job has no events; its trace is made of the call itself once it has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toft.jobs.records import ENDED, Event, State
from toft.kernel.traces import Step
from toft.plugins.supervision.calls import Call

LOADED_FOR_S = 5.0
"""An instance that was there for no longer than this before its first call was loaded for that call."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something of a job that took a while; times in seconds since 1970.

    Attributes:
        parent: Its place in the list of spans; None for the job as a whole.
        error: The code of what it failed with.
    """

    name: str
    began: float
    ended: float
    parent: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """An instance was loaded for jobs."""

    instance: str
    steps: Sequence[Step]


def of(events: Sequence[Event], loads: Iterable[Load] = ()) -> tuple[list[Span], str | None]:
    """Return the spans of a job that has ended, the job itself first, and the traceparent it came with.

    A job that was asked to run again has a span for each time that it ended; these are of the last one.

    Args:
        events: All of the job, the oldest first.
        loads: What was loaded meanwhile.
    """
    ends = [index for index, event in enumerate(events) if _moved_to(event) in ENDED]
    if not ends:
        return [], None
    told = dict(events[0].data) if events[0].type == "submitted" else {}
    own = events[ends[-2] + 1 if len(ends) > 1 else 0 : ends[-1] + 1]
    last = own[-1]
    attributes = {"toft.job": str(last.job), "toft.state": str(last.data["to"])}
    names = {
        "plugin": "toft.plugin",
        "instance": "toft.instance",
        "action": "toft.action",
        "step": "toft.step",
    }
    attributes |= {name: str(told[key]) for key, name in names.items() if told.get(key)}
    if last.sequence:
        attributes["toft.sequence"] = last.sequence
    name = f"job {told.get('plugin', '')}.{told.get('action') or 'execute'}"
    job = Span(name, own[0].at, last.at, None, attributes, _error(last))
    spans = [job]
    if own[0].type == "submitted":
        spans.append(Span("submit", own[0].at, own[0].at, 0))
    mine = [each for each in loads if each.instance == told.get("instance")]
    for span, steps in _attempts(own, mine):
        spans.append(span)
        place = len(spans) - 1
        spans += [Span(each.name, each.began, each.ended, place) for each in steps]
    parent = told.get("traceparent")
    return spans, parent if isinstance(parent, str) else None


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that somebody made.

    Attributes:
        at: When, in seconds since 1970.
        looped_at: The same in the time of the event loop, which the call's own times are in.
        steps: How its instance was loaded.
    """

    plugin: str
    instance: str
    at: float
    looped_at: float
    steps: Sequence[Step] = ()


def of_call(asked: Asked, call: Call, looped_at: float) -> list[Span]:
    """Return the spans of a call that has ended, the call as a whole first.

    Args:
        asked: What was asked for.
        call: What became of it.
        looped_at: Loop time at which its result, or its error, was there.
    """
    loaded_at = max((each.ended for each in asked.steps), default=0.0)
    steps = asked.steps if loaded_at > asked.at - LOADED_FOR_S else ()
    later = asked.at - asked.looped_at
    ended = looped_at + later
    began = call.started_at + later if call.started_at else ended
    # Whoever waited for it went away: it is over for them, though its worker may have to be ended yet.
    was_left = call.future.cancelled()
    error = None if was_left else call.future.exception()
    code = "call.cancelled" if was_left else str(getattr(error, "code", "") if error else "")
    attributes = {
        "toft.plugin": asked.plugin,
        "toft.instance": asked.instance,
        "toft.action": call.action,
        "toft.outcome": "cancelled" if was_left else call.outcome,
    }
    whole = Span(
        f"call {asked.plugin}.{call.action}",
        min([asked.at, *(each.began for each in steps)]),
        ended,
        None,
        attributes,
        code,
    )
    found = [whole, *(Span(each.name, each.began, each.ended, 0) for each in steps)]
    found.append(Span("queue", asked.at, began, 0))
    if call.started_at:
        found.append(Span("call", began, ended, 0, {}, code))
    return found


def _attempts(events: Sequence[Event], loads: Sequence[Load]) -> Iterator[tuple[Span, list[Step]]]:
    waiting: float | None = events[0].at
    running = 0.0
    for event in events:
        to = _moved_to(event)
        if not to:
            continue
        numbered = {"toft.attempt": event.attempt}
        if waiting is not None:
            if to == State.PENDING:
                continue
            steps = [
                each
                for load in loads
                for each in load.steps
                if each.began < event.at and each.ended > waiting
            ]
            yield Span("queue", waiting, event.at, 0, numbered), steps
            waiting, running = None, event.at
        else:
            because = {"toft.because": str(event.data.get("because") or "")}
            yield Span("call", running, event.at, 0, {**numbered, **because}, _error(event)), []
            waiting = event.at


def _moved_to(event: Event) -> str:
    return str(event.data.get("to") or "") if event.type == "state" else ""


def _error(event: Event) -> str:
    error = event.data.get("error")
    return str(error.get("code") or "") if isinstance(error, Mapping) else ""
