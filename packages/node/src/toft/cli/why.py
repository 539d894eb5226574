"""`toft why ID`: what happened to a job or a sequence, because of what, and how that is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer

from toft.cli import rendering, shown
from toft.cli import session as sessions
from toft.cli.session import JsonOption, argument
from toft.kernel.quantities import duration, size
from toft.kernel.visible import one_line

_LONGEST = 100
_SAID = frozenset(
    {"code", "instance", "job", "message", "progress", "reports", "pid", "cpu_percent", "memory_bytes"}
)
"""What the sentence above has said already; `--json` has everything."""
_UNITS: Mapping[str, Callable[[float], str]] = {"_bytes": size, "_s": duration}


def why(
    context: typer.Context,
    id: Annotated[str, argument("ID", "A job or a sequence, such as job_01J....")],
    as_json: JsonOption = False,
) -> None:
    """Tell the story of a job or a sequence: what happened, why, and how that is known.

    It is told from what was written down when it happened, also long afterwards.
    """
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        story = session.redactor().value(list(node.jobs.why(id)))
    if as_json:
        session.terminal.json(rendering.to_json(story))
        return
    day = ""
    for entry in story:
        moment = shown.local(entry["at"])
        if moment[:10] != day:
            day = moment[:10]
            session.terminal.line(day)
        because = f": {entry['because']}" if entry["because"] else ""
        session.terminal.line(f"  {moment[11:]}  {one_line(entry['what'] + because, 400)}")
        for line in _evidence(entry["evidence"]):
            session.terminal.line(f"            {line}")
    error = story[-1]["evidence"].get("error") if story else None
    if isinstance(error, Mapping) and error.get("hint"):
        session.terminal.note(f"next: {error['hint']}")


def _evidence(evidence: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an entry is known from, few words a line."""
    line = ""
    for name, value in evidence.items():
        if name in _SAID:
            continue
        text = _named(name, value)
        if line and len(line) + len(text) > _LONGEST:
            yield line
            line = ""
        line = f"{line} · {text}" if line else text
    if line:
        yield line


def _named(name: str, value: Any) -> str:
    """Return a value after what it is called, an amount with its unit."""
    if isinstance(value, (int, float)):
        for ending, written in _UNITS.items():
            if name.endswith(ending):
                what = name.removesuffix(ending).replace("_", " ")
                return written(value) if what == "size" else f"{what} {written(value)}"
    return f"{name.replace('_', ' ')} {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        value = ", ".join(
            _named(name, item)
            for name, item in value.items()
            if name not in ("hint", "message") and not isinstance(item, (dict, list))
        )
    elif isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    elif not isinstance(value, str):
        value = json.dumps(rendering.to_json(value))
    return one_line(value, _LONGEST)
