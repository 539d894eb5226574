"""Tells what happened to a job or a sequence, and why, from nothing but what was written down.

Pure: events and attempts in, sentences with their evidence out. Whoever reads them knows nothing of toft.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from toft.jobs import reasons
from toft.kernel.clock import rfc3339
from toft.kernel.quantities import duration, size

Entry = dict[str, Any]
"""`at`, `what`, `because` and `evidence` of one thing that happened."""

_ENVELOPE = frozenset({"cursor", "at", "type", "job", "attempt", "sequence"})
_KNOWN_ANYWAY = frozenset({"action", "instance", "kind", "plugin", "rank", "step"})
_MOMENTS = frozenset({"deadline_at", "due_at", "ready_at"})
_USUAL = frozenset({"claimed"})
_NOTHING: tuple[Any, ...] = (None, "", {}, [])
_SHORT_S = 0.01
"""A wait that is shorter is none that anybody would ask about."""
_ENDS = frozenset({"completed", "failed", "cancelled"})
_WAITING = "pending"


def tell(
    job: Mapping[str, Any],
    events: Iterable[Mapping[str, Any]],
    attempts: Iterable[Mapping[str, Any]] = (),
) -> list[Entry]:
    """Tell the story of one job, oldest first.

    Args:
        job: What `Job.to_dict` gives.
        events: What `Event.to_dict` gives for each event of the job, by cursor.
        attempts: What was recorded of each attempt, by number: times, usage, peaks.

    Returns:
        Each entry has `at` (RFC 3339), `what` (a sentence), `because` (a sentence or empty) and `evidence`.
    """
    return _in_order(_heard(job, events, attempts))


def tell_sequence(
    sequence: Mapping[str, Any],
    jobs: Iterable[Mapping[str, Any]],
    events: Iterable[Mapping[str, Any]],
    attempts: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    *,
    after: int = 0,
) -> list[Entry]:
    """Tell the story of a sequence or a graph: its own turns and those of its jobs, in the order of time.

    Args:
        sequence: What it is: `id`, `name`, `state`.
        jobs: Its jobs, as `Job.to_dict` gives them.
        events: The events of all of them, by cursor.
        attempts: Attempts by job.
        after: What happened up to this cursor is known but not told.
    """
    members = {str(each["id"]): each for each in jobs}
    own: list[Mapping[str, Any]] = []
    of_job: dict[str, list[Mapping[str, Any]]] = {name: [] for name in members}
    for event in events:
        of_job.get(str(event.get("job")), own).append(event)
    told = [entry for event in own for entry in _turn(sequence, event)]
    for name, job in members.items():
        label = str(job.get("step") or name)
        for entry in _heard(job, of_job[name], (attempts or {}).get(name, ())):
            told.append(
                {**entry, "what": f"{label}: {entry['what']}", "evidence": {"job": name, **entry["evidence"]}}
            )
    return _in_order([entry for entry in told if entry["cursor"] > after])


def _heard(
    job: Mapping[str, Any], events: Iterable[Mapping[str, Any]], attempts: Iterable[Mapping[str, Any]]
) -> list[Entry]:
    told = _Teller(job, {int(each.get("attempt", 0)): each for each in attempts})
    for event in events:
        told.hear(event)
    return told.end()


def _in_order(entries: list[Entry]) -> list[Entry]:
    """Return entries as they happened: by cursor, because a clock can be set back."""
    return [
        {name: entry[name] for name in ("at", "what", "because", "evidence")}
        for entry in sorted(entries, key=lambda entry: float(entry["cursor"]))
    ]


def _turn(sequence: Mapping[str, Any], event: Mapping[str, Any]) -> Iterator[Entry]:
    data = _data(event)
    state = data.pop("state", None) or data.pop("to", None)
    data.pop("name", None)
    if event["type"] == "submitted" or (event["type"] == "sequence" and state == _WAITING):
        yield _entry(event, f"{sequence.get('name') or sequence.get('id')} was submitted", "", data)
    elif event["type"] == "sequence":
        because = str(data.pop("because", "") or "")
        yield _entry(event, f"the sequence is {state}", reasons.cause(because), data)
    else:
        yield _entry(event, event["type"].replace("_", " "), str(data.pop("because", "") or ""), data)


class _Teller:
    """What is remembered between the events of one job."""

    def __init__(self, job: Mapping[str, Any], attempts: Mapping[int, Mapping[str, Any]]) -> None:
        self._job = job
        self._attempts = attempts
        self._entries: list[Entry] = []
        self._block: Entry | None = None
        self._blocked_at = ""
        self._progress: Entry | None = None
        self._reports = 0
        self._snapshot: Entry | None = None
        self._again: tuple[int, Entry] | None = None
        self._since = str(job.get("submitted_at") or "")
        self._cancel_at = ""
        self._hear: dict[str, Callable[[Mapping[str, Any], Entry], None]] = {
            "submitted": self._submitted,
            "state": self._state,
            "progress": self._progressed,
            "blocked": self._blocked,
            "unblocked": self._unblocked,
            "retry": self._retried,
            "cancel": self._cancelled,
            "snapshot": self._measured,
            "evicted": self._evicted,
            "fenced": self._fenced,
            "passed_over": self._passed_over,
            "reordered": self._reordered,
        }

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in the next event."""
        self._hear.get(str(event["type"]), self._other)(event, _data(event))

    def end(self) -> list[Entry]:
        """Return the whole story; of a job that waits, with what it waits for now."""
        reason = self._job.get("block_reason")
        if self._job.get("state") == _WAITING and reason and self._block is None:
            at = str(reason.get("since") or self._since)
            now = {"at": at, "cursor": math.inf}
            self._entries.append(_entry(now, "waits to begin", reasons.sentence(reason), reason))
        elif self._block is not None:
            self._block["what"] = "waits to begin"
        return self._entries

    def _say(self, event: Mapping[str, Any], what: str, because: str, evidence: Mapping[str, Any]) -> Entry:
        entry = _entry(event, what, because, evidence)
        self._entries.append(entry)
        return entry

    def _submitted(self, event: Mapping[str, Any], data: Entry) -> None:
        self._since = str(event["at"])
        action = self._job.get("action")
        of = "" if action in (None, "execute") else f"{action} of "
        by = data.pop("by", None)
        shown = {key: value for key, value in data.items() if key not in _KNOWN_ANYWAY}
        for key in _MOMENTS & shown.keys():
            shown[key] = rfc3339(shown[key])
        what = f"submitted: run {of}{self._job.get('plugin')}"
        self._say(event, what, f"asked for by {by}" if by else "", shown)

    def _passed_over(self, event: Mapping[str, Any], data: Entry) -> None:
        data["due_at"] = rfc3339(data["due_at"])
        what = f"the schedule {data.get('schedule')} submitted no other job"
        self._say(event, what, "this one had not ended", data)

    def _state(self, event: Mapping[str, Any], data: Entry) -> None:
        before, after = str(data.pop("from", "")), str(data.pop("to", ""))
        word = str(data.pop("because", "") or "")
        because = "" if word == after or word in _USUAL else reasons.cause(word)
        self._unblock(event)
        if after == "running":
            self._began(event, because, data)
        elif after in _ENDS:
            self._ended(event, before, after, word, data)
        elif after == "interrupted":
            self._interrupted(event, word, data)
        elif self._again is None or self._again[0] != event["attempt"]:
            self._retried(event, {"because": word, **data})
        self._since = str(event["at"])

    def _interrupted(self, event: Mapping[str, Any], word: str, data: Entry) -> None:
        if isinstance(data.get("error"), Mapping):
            data["error"] = _short(data["error"])
        if word in reasons.CAUSES:
            ran = _between(self._since, event["at"])
            what, because = (
                f"interrupted{ran and f' after {ran}'}",
                f"{reasons.cause(word)}; {reasons.UNKNOWN}",
            )
        else:
            # Nobody was there to see it: it is written down when the node comes back.
            what, because = "was found interrupted", f"{reasons.ENDED}; {reasons.UNKNOWN}"
        self._say(event, what, because, data)

    def _began(self, event: Mapping[str, Any], because: str, data: Entry) -> None:
        self._progress, self._snapshot, self._reports = None, None, 0
        instance = data.pop("instance", None) or self._job.get("instance")
        waited = _between(self._since, event["at"])
        where = f" on instance {instance}" if instance else ""
        self._say(event, f"attempt {event['attempt']} began{where}", because, {"waited": waited, **data})

    def _ended(self, event: Mapping[str, Any], before: str, after: str, word: str, data: Entry) -> None:
        because = "" if word == after else reasons.cause(word)
        error = data.get("error") or (self._job.get("error") if after != "completed" else None)
        attempt = self._attempts.get(int(event.get("attempt") or 0), {})
        usage = used(data.pop("usage", None) or attempt.get("usage") or {})
        took = _between(self._since, event["at"])
        # A fan-out has no attempt of its own and completes without having been begun.
        has_run = before == "running" or after == "completed"
        ran = "" if has_run and not took else f" after {took}" if has_run else " before it began"
        evidence = {**data, "used": usage}
        if isinstance(error, Mapping):
            evidence.pop("error", None)
            evidence["error"] = _short(error)
            message = str(error.get("message") or "")
            # The message of what was cancelled says who did it, or what it was skipped for.
            if word not in reasons.CAUSES or (after == "cancelled" and message):
                because = ""
            because = "; ".join(each for each in (because, message) if each)
        self._say(event, f"{after}{ran}", because, evidence)

    def _progressed(self, event: Mapping[str, Any], data: Entry) -> None:
        # A digest tells the last report, and how many there were.
        self._reports += int(data.pop("reports", 1))
        fraction, message = data.get("progress"), data.get("message")
        share = f"{fraction:.0%}" if isinstance(fraction, (int, float)) and fraction >= 0 else ""
        said = " ".join(part for part in (share, str(message or "")) if part)
        if self._progress is None:
            self._progress = self._say(event, "", "", {})
        times = f" ({self._reports} reports)" if self._reports > 1 else ""
        what = f"got as far as {said}{times}"
        told = _something({**data, "reports": self._reports})
        self._progress.update(at=event["at"], cursor=event["cursor"], what=what, evidence=told)

    def _blocked(self, event: Mapping[str, Any], data: Entry) -> None:
        self._unblock(event)
        reason = data.get("reason") or data
        if isinstance(reason, str):
            reason = {"code": reason}
        self._blocked_at = str(event["at"])
        self._block = self._say(event, "had to wait", reasons.sentence(reason), dict(reason))

    def _unblocked(self, event: Mapping[str, Any], data: Entry) -> None:
        self._unblock(event)
        word = str(data.pop("because", "") or "")
        left = data.get("waiting")
        if left:
            self._say(event, f"waits for {left} more", f"{word}, which it had to wait for", data)
        elif word:
            self._say(event, "may begin", reasons.cause(word), data)

    def _unblock(self, event: Mapping[str, Any]) -> None:
        if self._block is not None:
            took = _seconds(self._blocked_at, event["at"])
            if took is not None and 0 <= took < _SHORT_S:
                self._entries.remove(self._block)
            self._block["what"] = f"waited {_between(self._blocked_at, event['at']) or 'a moment'}"
            self._block = None

    def _retried(self, event: Mapping[str, Any], data: Entry) -> None:
        error = data.get("error")
        data.pop("rank", None)
        because = reasons.cause(str(data.pop("because", "") or ""))
        if isinstance(error, Mapping):
            data["error"] = _short(error)
            because = "; ".join(each for each in (str(error.get("message") or ""), because) if each)
        delay = data.get("delay_s")
        soon = f" in {duration(delay)}" if isinstance(delay, (int, float)) and delay > 0 else ""
        what = f"will be tried again{soon}" if error else "queued again"
        if self._again is not None and self._again[0] == event["attempt"]:
            # Both the retry and the change of state that it leads to are written down.
            self._again[1].update(what=what, because=because, evidence=data)
        else:
            self._again = int(event["attempt"]), self._say(event, what, because, data)

    def _cancelled(self, event: Mapping[str, Any], data: Entry) -> None:
        phase = str(data.pop("phase", ""))
        what = reasons.CANCEL_PHASES.get(phase, f"cancel: {phase}")
        if phase == "requested":
            self._cancel_at = str(event["at"])
        elif phase == "done" and (took := _between(self._cancel_at, event["at"])):
            what = f"{what} {took} after it was asked for"
        because = reasons.cause(str(data.pop("because", "") or ""))
        if phase == "cooperative" and not self._cancel_at and self._job.get("timeout_s"):
            because = because or reasons.cause("timeout")
        self._say(event, what, because, data)

    def _measured(self, event: Mapping[str, Any], data: Entry) -> None:
        if self._snapshot is None:
            self._snapshot = self._say(event, "", "", {})
        peak = {
            key: max(_number(self._snapshot["evidence"].get(key)), _number(value))
            for key, value in data.items()
            if isinstance(value, (int, float))
        }
        self._snapshot.update(at=event["at"], cursor=event["cursor"])
        what = f"was seen using up to {used(peak)}"
        self._snapshot.update(what=what, evidence=_something({**data, **peak}))

    def _evicted(self, event: Mapping[str, Any], data: Entry) -> None:
        freed = data.get("freed_bytes")
        freed = {"memory_bytes": freed} if isinstance(freed, (int, float)) else freed
        room = f", which freed {used({'_bytes': freed})}" if isinstance(freed, Mapping) and freed else ""
        what = f"the idle instance {data.get('instance')} was unloaded to make room{room}"
        self._say(event, what, reasons.cause(str(data.pop("because", "") or "")), data)

    def _fenced(self, event: Mapping[str, Any], data: Entry) -> None:
        what = f"a late answer of attempt {event.get('attempt')} was thrown away"
        self._say(event, what, reasons.cause(str(data.pop("because", "") or "")) or reasons.FENCED, data)

    def _reordered(self, event: Mapping[str, Any], data: Entry) -> None:
        other = data.pop("because", None)
        data.pop("rank", None)
        because = f"it makes room for {other}" if other else "somebody asked for it"
        self._say(event, "was moved in the queue", because, data)

    def _other(self, event: Mapping[str, Any], data: Entry) -> None:
        because = reasons.cause(str(data.pop("because", "") or ""))
        self._say(event, str(event["type"]).replace("_", " "), because, data)


def _entry(event: Mapping[str, Any], what: str, because: str, evidence: Mapping[str, Any]) -> Entry:
    return {
        "at": str(event["at"]),
        "cursor": event["cursor"],
        "what": what,
        "because": because,
        "evidence": _something(evidence),
    }


def _something(evidence: Mapping[str, Any]) -> Entry:
    """Return the evidence that says something."""
    return {key: _without_nothing(value) for key, value in evidence.items() if value not in _NOTHING}


def _without_nothing(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: each for key, each in value.items() if each is not None}


def _data(event: Mapping[str, Any]) -> Entry:
    return {key: value for key, value in event.items() if key not in _ENVELOPE}


def _between(began: str, ended: Any) -> str:
    """Return how long it was between two moments, or nothing when the clock went backwards meanwhile."""
    took = _seconds(began, ended)
    return duration(took) if took is not None and took >= 0 else ""


def _seconds(began: str, ended: Any) -> float | None:
    try:
        return (datetime.fromisoformat(str(ended)) - datetime.fromisoformat(began)).total_seconds()
    except (ValueError, TypeError):
        return None


def _short(error: Mapping[str, Any]) -> Entry:
    """Return of an error what explains it; the rest is shown by `toft job show`."""
    wanted = ("code", "category", "message", "hint")
    return {key: error[key] for key in wanted if error.get(key)}


def used(usage: Any) -> str:
    """Return what was used as people read it."""
    if not isinstance(usage, Mapping):
        return str(usage)
    parts = []
    for name, value in usage.items():
        if isinstance(value, Mapping):
            unit = "_bytes" if name.endswith("_bytes") else ""
            most = "up to " if name.startswith("peak") else ""
            parts += [most + used({f"{key.removesuffix(unit)}{unit}": item}) for key, item in value.items()]
            continue
        if not isinstance(value, (int, float)) or name in ("pid", "at", "duration_s"):
            continue
        if name.startswith("peak_") and name.endswith("_bytes"):
            parts.append(f"up to {size(value)} of {name[5:-6].replace('_', ' ')}")
        elif name.endswith("_bytes"):
            parts.append(f"{size(value)} of {name[:-6].replace('_', ' ')}")
        elif name.endswith("_s"):
            parts.append(f"{duration(value)} of {name[:-2].replace('_', ' ')}")
        elif name.endswith("_percent"):
            parts.append(f"{value:.0f} % of {name[:-8].replace('_', ' ')}")
        else:
            parts.append(f"{value:g} {name.replace('_', ' ')}")
    return ", ".join(parts)


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0
