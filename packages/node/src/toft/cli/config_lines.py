"""How a node stands with its document, as a person reads it; no text of a stranger drives the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toft.kernel.quantities import counted, duration, skew
from toft.kernel.visible import one_line

_WIDTH = 12
_SHORT = 19
_LONG = 64
_ARTIFACT = ("name", "version", "sha256")


def of(found: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines of what `managed.standing` describes; none for what there is nothing to tell of."""
    if found["active"] or found["enrolled"] or found["diagnostics"] or found["exit_code"]:
        yield _line("stands", found["standing"].replace("_", " "))
    for name in ("active", "phase", "source", "revision", "pinned"):
        if found[name] not in (None, ""):
            yield _line(name, str(found[name]))
    if found["active"]:
        yield _line("signed by", " ".join(found["signature"]["key_ids"]) or "nobody")
    for each in found["artifacts"]:
        yield _line("code", " ".join(str(each.get(name, "?"))[:_LONG] for name in _ARTIFACT))
    trial = found["trial"]
    if trial:
        left = duration(max(0.0, trial["remaining_s"]))
        yield _line("on trial", f"{trial['etag'][:_SHORT]}, {left} left, start {trial['boots']}")
    for gate in found["gates"]:
        how = gate["state"] if gate["counts"] or not gate["required"] else f"{gate['state']}, does not count"
        yield _line("gate", f"{gate['name']} {how}: {gate['message']}")
    if found["rolled_back"]:
        yield _line("went back", _event(found["rolled_back"], is_new=not found["acknowledged"]))
    for each in found["bad"]:
        yield _line("held back", f"{each['etag'][:_SHORT]} ({each['reason']}, {each['severity']})")
    for each in found["overrides"]:
        yield _line("dropped", f"{each['section']}.{each['key']}: {each['reason']}")
    yield from _central(found)


def _central(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["enrolled"] and not found.get("joining"):
        return
    url = found["control_url"] or "a central"
    knows = f"knows this node as {found['node_id']}" if found["node_id"] else "does not know this node yet"
    yield _line("central", f"{url} {knows}")
    if found["central"]:
        yield _line("", str(found["central"]).replace("_", " "))
    poll = found["last_poll"]
    if poll:
        yield _line("last poll", f"{poll['at']}: {poll['code']}, {poll['latency_ms']} ms")
        if poll["problem"]:
            yield _line("", poll["problem"])
    if found["next_poll_in_s"] is not None:
        yield _line("next poll", f"in {duration(found['next_poll_in_s'])}")
    if found["clock_skew_s"] is not None:
        yield _line("clock skew", skew(found["clock_skew_s"]))
    if found["consecutive_failures"]:
        yield _line("failures", f"{counted(found['consecutive_failures'], 'poll')} in a row")
    if found["telemetry"]:
        yield from _telemetry(found["telemetry"])


def _telemetry(found: Mapping[str, Any]) -> Iterator[str]:
    for signal, each in found["signals"].items():
        lost = f", {each['dropped']} refused for good" if each["dropped"] else ""
        last = f", the last at {each['last_at']}" if each["last_at"] else ""
        yield _line(signal, f"{counted(each['sent'], 'row')} sent{last}{lost}")
    if found["problem"]:
        yield _line("", found["problem"])


def _event(event: Mapping[str, Any], *, is_new: bool) -> str:
    detail = f": {event['detail']}" if event["detail"] else ""
    seen = "; toft config ack when you have seen it" if is_new else ""
    return f"from {event['etag'][:_SHORT]} at {event['at']} ({event['reason']}{detail}){seen}"


def _line(name: str, text: str) -> str:
    return f"{name:<{_WIDTH}}{one_line(text, 300)}"
