"""What a graph of steps is, before anything of it is stored: read, put in order, and refused early.

`docs/reference/graph-files.md` is the form in which people write one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from toft.jobs import references
from toft.jobs.references import Item, Ref
from toft.kernel import errors, ids, suggestions

MAX_STEPS = 10_000
MAX_FAN_OUT = 10_000
MAX_LINKS = 100_000
FAIL_FAST = "fail_fast"
BEST_EFFORT = "best_effort"
MODES = (FAIL_FAST, BEST_EFFORT)
_MOST_TOLD = 20
_GRAPH_KEYS = frozenset({"name", "mode", "priority", "ordered", "steps"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a graph.

    Attributes:
        id: Its name in the graph; children of a fan-out are `id[0]`, `id[1]`...
        plugin: The plugin.
        action: What is executed; None is `execute`.
        instance: Which instance; None is the plugin's own.
        arguments: By name, with references.
        after: Steps that come first although nothing of theirs is used.
        for_each: None, or a list or a reference to one: the step runs once for each item.
        priority: 0 takes that of the graph.
        timeout_s: How long one attempt may take.
        delay_s: Seconds to wait before it may run.
        deadline_s: Seconds from submission after which it is too late.
        idempotent: Running it twice does no harm.
        retry: When an attempt that failed is followed by another one.
    """

    id: str
    plugin: str
    action: str | None = None
    instance: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    for_each: Any = None
    priority: int = 0
    timeout_s: float | None = None
    delay_s: float | None = None
    deadline_s: float | None = None
    idempotent: bool = False
    retry: Any = None

    @property
    def is_fan_out(self) -> bool:
        """Say whether it runs once for each item of a list."""
        return self.for_each is not None


_STEP_KEYS = frozenset(Step.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Steps in an order in which they can run.

    Attributes:
        name: What people call it.
        mode: `fail_fast` stops at the first failure; `best_effort` runs what still can.
        priority: Of the steps that say 0.
        steps: Each behind those it waits for.
        needs: For each step those it waits for, and what they must have done: `completed` or `ended`.
        is_ordered: Whether each step waits for the one before it.
    """

    name: str
    mode: str
    priority: int
    steps: tuple[Step, ...]
    needs: Mapping[str, Mapping[str, str]]
    is_ordered: bool


class GraphError(errors.UsageError):
    """A graph cannot be as it was written; nothing of it was stored."""

    code = "graph.invalid"


def refuse(problem: str, *, code: str | None = None, step: str | None = None, **details: Any) -> GraphError:
    """Return the error for a graph that cannot be."""
    where = f"step {step}: " if step is not None else ""
    named = {"step": step, **details} if step is not None else details
    return GraphError(f"{where}{problem}", code=code, details=named)


def read(document: Any, **given: Any) -> Graph:
    """Read a graph as it stands in a file, or as a program says it.

    Args:
        document: An object with `steps`, or a list of steps, which then run in that order.
        given: What wins over the document: `name`, `mode`, `priority`, `ordered`.

    Raises:
        GraphError: It cannot be; the first problem is named with its step.
    """
    if isinstance(document, Mapping):
        fields = _members(document)
    elif isinstance(document, (list, tuple)):
        fields = {"steps": document, "ordered": True}
    else:
        raise refuse("a graph is an object with steps, or a list of steps")
    fields.update((key, value) for key, value in given.items() if value is not None)
    _refuse_unknown(fields, _GRAPH_KEYS, None)
    mode, priority, name = fields.get("mode", FAIL_FAST), fields.get("priority", 0), fields.get("name", "")
    if mode not in MODES:
        raise refuse(f"mode is {MODES[0]} or {MODES[1]}, not {mode!r}"[:200])
    if type(priority) is not int or not _is_title(name):
        raise refuse("priority is a whole number, and name is text of at most 200 characters")
    listed = fields.get("steps")
    if not isinstance(listed, (list, tuple)):
        raise refuse("steps is a list")
    if len(listed) > MAX_STEPS:
        raise refuse(f"{len(listed)} steps are more than {MAX_STEPS}", steps=len(listed))
    ordered = bool(fields.get("ordered", False))
    return _linked(_named(listed), name=name, mode=mode, priority=priority, ordered=ordered)


def _members(given: Mapping[Any, Any], **details: Any) -> dict[str, Any]:
    # A key that only reads like `plugin` or `steps` would win over the one that a permit was asked for.
    if not all(isinstance(key, str) for key in given):
        raise refuse("every key of a graph and of a step is text", **details)
    return dict(given)


def _is_title(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= 200 and ids.is_text(name)


def uniform(plugin: str, arguments: Iterable[Mapping[str, Any]] | Mapping[str, Sequence[Any]]) -> list[Step]:
    """Return steps that run one plugin over many sets of arguments.

    Args:
        plugin: The plugin.
        arguments: One mapping for each step; or one mapping of lists of equal length, of which each step gets
            one item.

    Raises:
        GraphError: The lists have not the same length.
    """
    if isinstance(arguments, Mapping):
        lengths = {name: len(values) for name, values in arguments.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise refuse(f"the lists are not of equal length: {told}", code="graph.unequal", lengths=lengths)
        rows = zip(*arguments.values(), strict=True)
        sets: Iterable[Mapping[str, Any]] = [dict(zip(arguments, row, strict=True)) for row in rows]
    else:
        sets = arguments
    return [
        Step(id=f"{plugin}-{number}", plugin=plugin, arguments=each) for number, each in enumerate(sets, 1)
    ]


def _named(listed: Sequence[Any]) -> list[Step]:
    steps: list[Step] = []
    taken = {each["id"] for each in listed if isinstance(each, Mapping) and isinstance(each.get("id"), str)}
    numbers: dict[str, int] = {}
    for number, each in enumerate(listed, start=1):
        step = each if isinstance(each, Step) else _step(each, number, taken, numbers)
        if not ids.is_name(step.id):
            raise refuse(f"the id of a step {ids.NAME_RULE}", step=str(step.id)[:80])
        try:
            source = references.plain(step.for_each)
            steps.append(replace(step, arguments=_plain(step), for_each=source))
        except references.BadReferenceError as error:
            raise refuse(str(error), code="graph.reference", step=step.id) from None
    seen: set[str] = set()
    for step in steps:
        if step.id in seen:
            raise refuse("two steps have this id", code="graph.duplicate", step=step.id)
        seen.add(step.id)
    return steps


def _plain(step: Step) -> dict[str, Any]:
    if not isinstance(step.arguments, Mapping) or not all(isinstance(name, str) for name in step.arguments):
        raise refuse("arguments is an object", step=step.id)
    plain: dict[str, Any] = references.plain(dict(step.arguments))
    return plain


def _step(given: Any, number: int, taken: set[str], numbers: dict[str, int]) -> Step:
    if not isinstance(given, Mapping):
        raise refuse(f"step {number} is no object", number=number)
    fields = _members(given, number=number)
    plugin = fields.get("plugin")
    if not isinstance(plugin, str):
        raise refuse(f"step {number} names no plugin", number=number)
    name = fields.get("id")
    if name is None:
        name = _free(plugin, taken, numbers)
        taken.add(name)
    _refuse_unknown(fields, _STEP_KEYS, str(name)[:80])
    fields["id"] = name if isinstance(name, str) else str(name)[:80]
    _check_fields(fields)
    after = fields.get("after", ())
    fields["after"] = (after,) if isinstance(after, str) else tuple(after)
    return Step(**{key: value for key, value in fields.items() if value is not None or key == "for_each"})


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "action": ((str,), "text"),
    "instance": ((str,), "text"),
    "arguments": ((Mapping,), "an object"),
    "after": ((str, list, tuple), "a step or a list of steps"),
    "priority": ((int,), "a whole number"),
    "timeout_s": ((int, float), "a number"),
    "delay_s": ((int, float), "a number"),
    "deadline_s": ((int, float), "a number"),
    "idempotent": ((bool,), "true or false"),
    "for_each": ((list, tuple, Mapping, Ref), "a list or a reference to one"),
}


def _check_fields(fields: Mapping[str, Any]) -> None:
    for name, (kinds, what) in _KINDS.items():
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise refuse(f"{name} is {what}", step=fields["id"])
    if not all(isinstance(each, str) for each in fields.get("after") or ()):
        raise refuse("after is a step or a list of steps", step=fields["id"])


def _free(plugin: str, taken: set[str], numbers: dict[str, int]) -> str:
    if plugin not in taken:
        return plugin
    # Names are only ever taken: the search goes on where the last one of this plugin ended.
    number = numbers.get(plugin, 2)
    while f"{plugin}-{number}" in taken:
        number += 1
    numbers[plugin] = number
    return f"{plugin}-{number}"


def _refuse_unknown(fields: Mapping[str, Any], known: frozenset[str], step: str | None) -> None:
    for key in fields:
        if key not in known:
            raise refuse(f"{key[:80]}: {suggestions.unknown(key[:80], known)}", step=step)


def _linked(steps: list[Step], *, name: str, mode: str, priority: int, ordered: bool) -> Graph:
    known = {step.id for step in steps}
    order_needs = "completed" if mode == FAIL_FAST else "ended"
    needs: dict[str, dict[str, str]] = {}
    before: str | None = None
    links = 0
    for step in steps:
        mine: dict[str, str] = {}
        if ordered and before is not None:
            mine[before] = order_needs
        for other in step.after:
            mine[other] = order_needs
        # What a value is taken from must have completed, whatever the mode.
        mine.update((other, "completed") for other in _mentioned(step))
        for other in mine:
            _check_link(step.id, other, known)
        needs[step.id] = mine
        before = step.id
        links += len(mine)
        if links > MAX_LINKS:
            raise refuse(f"the steps wait for each other more than {MAX_LINKS} times", links=links)
    return Graph(
        name=name,
        mode=mode,
        priority=priority,
        steps=tuple(_sorted(steps, needs)),
        needs=needs,
        is_ordered=ordered,
    )


def _mentioned(step: Step) -> list[str]:
    try:
        found = [ref for _, ref in references.find(step.arguments)]
        source = list(references.find(step.for_each)) if step.for_each is not None else []
    except references.BadReferenceError as error:
        raise refuse(str(error), code="graph.reference", step=step.id) from None
    if any(isinstance(ref, Item) for _, ref in source):
        raise refuse("for_each cannot hold $item", code="graph.reference", step=step.id)
    if any(isinstance(ref, Item) for ref in found) and not step.is_fan_out:
        raise refuse("$item is only known in a step with for_each", code="graph.reference", step=step.id)
    if isinstance(step.for_each, Mapping) and not any(where == () for where, _ in source):
        raise refuse("for_each is a list or a reference to one", step=step.id)
    if isinstance(step.for_each, (list, tuple)) and len(step.for_each) > MAX_FAN_OUT:
        raise refuse(f"for_each has {len(step.for_each)} items, more than {MAX_FAN_OUT}", step=step.id)
    mentioned = [ref.step for ref in (*found, *(ref for _, ref in source)) if isinstance(ref, Ref)]
    return list(dict.fromkeys(mentioned))


def _check_link(step: str, other: str, known: set[str]) -> None:
    if other == step:
        raise refuse("refers to itself", code="graph.cycle", step=step, cycle=[step, step])
    if other not in known:
        text = suggestions.unknown(other[:80], known)
        raise refuse(f"there is no step {other[:80]!r}: {text}", code="graph.unknown_step", step=step)


def _sorted(steps: list[Step], needs: Mapping[str, Mapping[str, str]]) -> list[Step]:
    by_id = {step.id: step for step in steps}
    missing = {step.id: len(needs[step.id]) for step in steps}
    children: dict[str, list[str]] = {}
    for child, parents in needs.items():
        for parent in parents:
            children.setdefault(parent, []).append(child)
    ready = [step.id for step in steps if not missing[step.id]]
    done: list[Step] = []
    for name in ready:  # grows while it is walked
        done.append(by_id[name])
        for child in children.get(name, ()):
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
    if len(done) < len(steps):
        cycle = _cycle({name for name, count in missing.items() if count}, needs)
        told = cycle if len(cycle) <= _MOST_TOLD else [*cycle[: _MOST_TOLD // 2], "…", *cycle[-3:]]
        raise refuse(
            f"the steps wait for each other: {' -> '.join(told)}",
            code="graph.cycle",
            cycle=told,
            steps=len(cycle) - 1,
        )
    return done


def _cycle(among: set[str], needs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return one cycle, in the order in which the steps would have to run, ending where it began."""
    name = min(among)
    walked: dict[str, int] = {}
    while name not in walked:
        walked[name] = len(walked)
        name = min(other for other in needs[name] if other in among)
    return [name, *reversed(list(walked)[walked[name] :])]
