"""`toft central node logs|metrics`: what a node has sent of its log and of its samples."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from toft.cli import shown
from toft.cli.administering import LOOK_S, Central, NodeArgument, TenantOption
from toft.cli.answers import Answer
from toft.cli.session import JsonOption, option
from toft.cli.terminal import Terminal
from toft.kernel.quantities import size
from toft.kernel.visible import one_line, visible

FollowOption = Annotated[bool, option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")]
_MOST = 1000
_FIRST = "0-0"
_LARGEST = 1e18
_COLUMNS = ("time", "cpu", "memory", "lanes", "waiting", "running", "gpu memory")
_NONE = (
    "this central has none of it: a node sends it when its document has [telemetry], "
    'such as logs = "warning" or metrics = true; toft central node show tells what it runs'
)


def logs(
    context: typer.Context,
    node: NodeArgument,
    count: Annotated[
        int, option("--lines", "-n", metavar="COUNT", min=1, max=_MOST, help="How many lines; 50.")
    ] = 50,
    level: Annotated[
        str, option("--level", metavar="LEVEL", help="From which on: debug, info, warning or error.")
    ] = "",
    follow: FollowOption = False,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the last lines of a node's own log that it has sent here."""
    central = Central(context, as_json, tenant)
    _tell(central, (node, "logs"), _lines, follow=follow, most=count, level=level)


def metrics(
    context: typer.Context,
    node: NodeArgument,
    count: Annotated[
        int, option("--lines", "-n", metavar="COUNT", min=1, max=_MOST, help="How many samples; 20.")
    ] = 20,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the last samples of a node that it has sent here: how busy it was."""
    central = Central(context, as_json, tenant)
    _tell(central, (node, "metrics"), _table, follow=False, most=count)


def _tell(
    central: Central,
    what: tuple[str, str],
    words: Callable[[Terminal, Sequence[Mapping[str, Any]]], None],
    *,
    follow: bool,
    **query: Any,
) -> None:
    route = ("nodes", what[0], "telemetry", what[1])
    answer = central.ask("GET", *route, **query)
    rows = answer.value["rows"]
    if not follow:
        if rows or answer.as_json:
            answer.show(lambda terminal, value: words(terminal, value["rows"]))
        else:
            level = query.get("level")
            answer.terminal.note(f"no line here is of level {level} or above" if level else _NONE)
        return
    last = _FIRST
    query["most"] = _MOST
    while True:
        _one_by_one(answer, words)
        last = answer.value["rows"][-1]["id"] if answer.value["rows"] else last
        if not answer.value["more"] or last == _FIRST:
            time.sleep(LOOK_S)
        answer = central.look(*route, after=last, **query)


def _one_by_one(answer: Answer, words: Callable[[Terminal, Sequence[Mapping[str, Any]]], None]) -> None:
    if not answer.as_json:
        words(answer.terminal, answer.value["rows"])
        answer.terminal.out.flush()
        return
    for each in answer.value["rows"]:
        answer.terminal.json_line(each)


def _lines(terminal: Terminal, rows: Sequence[Mapping[str, Any]]) -> None:
    for each in rows:
        row = each["row"]
        text = row.get("text")
        said = text if isinstance(text, str) else json.dumps(row)
        terminal.line(f"{_word(row, 'at', 27)} {_word(row, 'level', 7)} {visible(said)}")


def _word(row: Mapping[str, Any], name: str, width: int) -> str:
    return f"{one_line(str(row.get(name) or ''), width):<{width}}"


def _table(terminal: Terminal, rows: Sequence[Mapping[str, Any]]) -> None:
    terminal.table(_COLUMNS, [_sample(each["row"]) for each in rows])


def _sample(row: Mapping[str, Any]) -> Sequence[str]:
    cpu = _number(row, "cpu_percent")
    gpus = [name for name in sorted(row) if name.startswith("gpu") and name.endswith("_used_bytes")]
    return [
        _moment(row.get("at")),
        "" if cpu is None else f"{cpu:.0f} %",
        _share(row, "memory_used_bytes", "memory_total_bytes"),
        f"{_count(row, 'lanes_busy')}/{_count(row, 'lanes')}",
        _count(row, "queue_pending"),
        _count(row, "queue_running"),
        " ".join(_share(row, each, each.replace("_used_", "_total_")) for each in gpus),
    ]


def _moment(at: Any) -> str:
    try:
        return shown.local(at)
    except (ValueError, TypeError, OverflowError):
        return one_line(str(at), 24)


def _number(row: Mapping[str, Any], name: str) -> float | None:
    found = row.get(name)
    if not isinstance(found, int | float) or isinstance(found, bool):
        return None
    return found if abs(found) < _LARGEST else None  # nobody has checked what a node sends


def _count(row: Mapping[str, Any], name: str) -> str:
    found = _number(row, name)
    return "?" if found is None else f"{found:g}"


def _share(row: Mapping[str, Any], used: str, total: str) -> str:
    found = [_number(row, each) for each in (used, total)]
    return " of ".join("?" if each is None else size(each) for each in found)
