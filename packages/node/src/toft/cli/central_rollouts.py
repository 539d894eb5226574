"""`toft central rollout …` and `toft central fleet`: bring a revision to its nodes, take it back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from toft.cli import documents, failures, shown
from toft.cli.administering import LOOK_S, Central, TenantOption
from toft.cli.moments import lasting
from toft.cli.session import JsonOption, argument, option
from toft.cli.terminal import Terminal
from toft.kernel.errors import UsageError
from toft.kernel.quantities import counted, duration
from toft.kernel.visible import one_line

app = typer.Typer(no_args_is_help=True, help="Rollouts: a revision reaches its nodes in waves.")

RolloutArgument = Annotated[str, argument("ROLLOUT", "Its id, as toft central rollout list tells it.")]
ReasonOption = Annotated[str, option("--reason", "-m", metavar="TEXT", help="Why, for people.")]
_HOLDS = ("done", "aborted", "paused", "draft")


@app.command("create")
def create(
    context: typer.Context,
    document: Annotated[str, argument("DOCUMENT", "Its id, as toft central document list tells it.")],
    number: Annotated[int | None, option("--number", metavar="N", help="Which revision; the newest.")] = None,
    wave: Annotated[
        list[str] | None,
        option("--wave", metavar="PERCENT:TIME", help="Such as 2:20m; repeat it, the last one is 100."),
    ] = None,
    rules: Annotated[
        str | None, option("--rules", metavar="FILE", help="Waves with selectors, and when it stops.")
    ] = None,
    message: Annotated[str, option("--message", "-m", metavar="TEXT", help="Why, for people.")] = "",
    draft: Annotated[bool, option("--draft", help="It does not begin until you start it.")] = False,
    emergency: Annotated[bool, option("--emergency", help="All waves open at once.")] = False,
    watch: Annotated[bool, option("--watch", help="Show how it goes until it ends or is held.")] = False,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a revision to its nodes in waves: 2 %, 10 %, 50 %, all, each proven before the next one opens.

    Two nodes that go back or fail, or one of twenty reached, end it: all get back what they had.
    """
    central = Central(context, as_json, tenant)
    body = {
        "document": document,
        "number": number,
        "rules": _rules(wave, rules),
        "message": message,
        "draft": draft,
        "emergency": emergency,
    }
    made = central.ask("POST", "rollouts", body=body)
    if watch:
        _watch(central, made.value["id"])
    else:
        made.show(_show_made)


def _show_made(terminal: Terminal, made: Mapping[str, Any]) -> None:
    terminal.line(made["id"])
    terminal.note(f"revision {made['number']} is {made['state']}; {_plan(made)}")
    terminal.note(f"next: toft central rollout show {made['id']} --watch")


def _rules(waves: list[str] | None, file: str | None) -> Mapping[str, Any] | None:
    if waves and file is not None:
        raise UsageError("give --wave or --rules, not both", code="request.command_line")
    if file is not None:
        found = documents.read(file)
        if not isinstance(found, Mapping):
            raise UsageError(
                f"{file} is no object of rules", code="rollout.rules", hint='such as {"min_success": 0.9}'
            )
        return found
    return {"waves": [_wave(each) for each in waves]} if waves else None


def _wave(text: str) -> dict[str, float]:
    percent, colon, bake = text.partition(":")
    try:
        share = float(percent.removesuffix("%"))
        if not math.isfinite(share):
            raise ValueError("not finite")
        return {"percent": share, "bake_s": lasting(bake) if colon else 0.0}
    except ValueError:
        raise UsageError(
            f"{text[:40]!r} is no PERCENT:TIME", code="rollout.rules", hint="such as 2:20m"
        ) from None


@app.command("list")
def list_rollouts(
    context: typer.Context,
    document: Annotated[str, option("--document", metavar="ID", help="Only those of this one.")] = "",
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """List rollouts, the newest first."""
    Central(context, as_json, tenant).ask("GET", "rollouts", document=document).table(
        ["rollout", "state", "revision", "nodes", "made", "by", "why"],
        lambda each: [
            *(each["id"], each["state"], str(each["number"]), _counts(each)),
            *(shown.local(each["created_at"]), each["created_by"], one_line(each["reason"], 60)),
        ],
    )


@app.command("show")
def show(
    context: typer.Context,
    rollout: RolloutArgument,
    stage: Annotated[
        str, option("--stage", metavar="STAGE", help="Only nodes that far, such as rolled_back.")
    ] = "",
    watch: Annotated[
        bool, option("--watch", help="Until it ends or is held; status 1 unless it is done.")
    ] = False,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how a rollout stands: its waves, why it was held or ended, and how far each node is."""
    central = Central(context, as_json, tenant)
    if watch:
        _watch(central, rollout)
    else:
        central.ask("GET", "rollouts", rollout, stage=stage).show(_show)


def _show(terminal: Terminal, found: Mapping[str, Any]) -> None:
    terminal.line(f"{found['id']}  {found['state']}  revision {found['number']}, attempt {found['attempt']}")
    fields = {
        "why": found["reason"],
        "wave": _wave_of(found) if found["wave"] >= 0 else None,
        "nodes": _counts(found),
        "plan": _plan(found),
        "message": found["message"],
        "made": f"{shown.local(found['created_at'])} by {found['created_by']}",
        "ended": shown.local(found["ended_at"]),
    }
    for name, value in fields.items():
        if value:
            terminal.line(f"  {name:<8} {one_line(str(value))}")
    rows = [
        [
            *(each["node"], one_line(each["name"], 40), str(each["wave"] + 1), each["stage"]),
            one_line(" ".join(filter(None, (each["reason"], each["detail"]))), 80),
        ]
        for each in found["nodes"]
    ]
    if rows:
        terminal.table(["node", "name", "wave", "stage", "why"], rows)


def _watch(central: Central, id: str) -> None:
    """Tell each change until nothing more happens by itself; status 1 unless it reached everybody."""
    told: tuple[Any, ...] = ()
    # Whoever was never heard of is not waited for.
    answer = central.ask("GET", "rollouts", id)
    while True:
        found = answer.value
        now = (found["state"], found["wave"], found["counts"])
        if now != told:
            told = now
            if answer.as_json:
                answer.terminal.json_line({name: each for name, each in found.items() if name != "nodes"})
            else:
                answer.terminal.line(_step(found))
                answer.terminal.out.flush()
        if found["state"] in _HOLDS:
            break
        time.sleep(LOOK_S)
        answer = central.look("rollouts", id)
    if found["state"] != "done":
        answer.terminal.note(f"next: toft central rollout show {id}")
        raise typer.Exit(failures.FAILED)


def _step(found: Mapping[str, Any]) -> str:
    why = f": {one_line(found['reason'])}" if found["reason"] else ""
    return f"{found['state']}{why}  wave {_wave_of(found)}  {_counts(found)}"


_CHANGES = {
    "start": "Begin a rollout that was a draft.",
    "pause": "Offer the revision to nobody else for now; those that have it keep it.",
    "resume": "Let a paused rollout go on; its wave is given its time once more.",
    "promote": "Open the next wave now, proven or not; after the last one the revision is everybody's.",
    "abort": "Give every node what it had before. Nothing has to be signed for that. This cannot be undone.",
    "emergency": "Open all waves at once. Signatures are asked for all the same.",
}


def _changing(verb: str) -> Callable[..., None]:
    """Return the command that changes a rollout in one way."""

    def change(
        context: typer.Context,
        rollout: RolloutArgument,
        reason: ReasonOption = "",
        tenant: TenantOption = None,
        as_json: JsonOption = False,
    ) -> None:
        central = Central(context, as_json, tenant)
        changed = central.ask("POST", "rollouts", rollout, verb, body={"reason": reason})
        changed.note(lambda each: f"{each['id']} is {each['state']}; {_counts(each) or 'no node has it'}")

    return change


for _verb, _help in _CHANGES.items():
    app.command(_verb, help=_help)(_changing(_verb))


def fleet(
    context: typer.Context,
    standing: Annotated[
        str,
        option("--standing", metavar="WORD", help="Those that stand so, such as silent; trouble by default."),
    ] = "",
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how many nodes follow, and which lag, fell silent or went back, and why."""
    Central(context, as_json, tenant).ask("GET", "fleet", standing=standing).show(_show_fleet)


def _show_fleet(terminal: Terminal, found: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(found["counts"].items()))
    terminal.line(f"{counted(found['nodes'], 'node')}{': ' + counts if counts else ''}")
    rows = [
        [
            *(each["node"], one_line(each["name"], 40), each["standing"].replace("_", " ")),
            *(shown.local(each["last_seen_at"]) or "never", _trouble(each["trouble"])),
        ]
        for each in found["listed"]
    ]
    if rows:
        terminal.table(["node", "name", "stands", "last seen", "why"], rows)


def _trouble(trouble: Mapping[str, Any] | None) -> str:
    if not trouble:
        return ""
    # Who refused a document never ran it.
    refused = "refused it: " if trouble["event"] == "rejected" else ""
    return one_line(f"{refused}{trouble['reason']} {trouble['detail']}", 300)


def _counts(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in found["counts"].items())


def _wave_of(found: Mapping[str, Any]) -> str:
    return f"{found['wave'] + 1} of {len(found['rules']['waves'])}"


def _plan(found: Mapping[str, Any]) -> str:
    return ", then ".join(
        f"{each['percent']:g} % for {duration(each['bake_s'])}" for each in found["rules"]["waves"]
    )
