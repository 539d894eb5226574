"""What a plugin has to keep to, checked in the process that imported it; `toft_sdk.testing` is the way in."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from dataclasses import asdict, dataclass

from toft_sdk import context, hosting
from toft_sdk.codec import decode, encode
from toft_sdk.discovery import find_class
from toft_sdk.errors import CancelledError, InputError, PluginError, classify, trace_text
from toft_sdk.likeness import same
from toft_sdk.plugin import Plugin
from toft_sdk.surroundings import CancellingCall, CapturedOutput, Surroundings
from toft_sdk.validation import problems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_MAX_EVIDENCE = 2000


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        check: What was checked, in a few words.
        ok: Whether it holds.
        evidence: What was seen.
        next: What to do about it; empty when it holds.
    """

    check: str
    ok: bool
    evidence: str
    next: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-like values."""
        return asdict(self)


def check_class(module: str, class_name: str | None = None) -> list[Finding]:
    """Check a plugin class in this process: its description, its life, its examples, what it leaves.

    Args:
        module: Dotted name of its module.
        class_name: Name of the class; None takes the only plugin the module has.

    Returns:
        What was found, in order. When the class cannot be loaded, the list ends there.
    """
    findings = list(_guarded("imports quietly", _check_import(module)))
    loaded: list[Any] = []
    findings += _guarded("is a plugin", _check_load(module, class_name, loaded))
    if not loaded:
        return findings
    subject = _Subject(*loaded)
    before = Surroundings()
    for name, checks in _CHECKS:
        findings += _guarded(name, checks(subject))
        if checks in (_check_variables, _check_life) and findings[-1].next:
            # Every check after it would fail for the same reason.
            break
    findings += _guarded("leaves nothing behind", _check_leftovers(before))
    return findings


class _Subject:
    """The class under test, and how it described itself."""

    def __init__(self, kind: type[Any], hosted: Any) -> None:
        self.kind = kind
        self.hosted = hosted
        self.description: dict[str, Any] = {"actions": {}, "config_schema": {}, "config_defaults": {}}
        self.examples: list[dict[str, Any]] = [dict(each) for each in getattr(kind, "examples", ())]
        self.cancel_within_s: float | None = getattr(kind, "cancel_within_s", None)

    def fresh(self) -> Any:
        """Return the plugin initialized with its defaults."""
        hosted = hosting.load(self.kind.__module__, self.kind.__qualname__)
        hosted.initialize(dict(self.description["config_defaults"]))
        return hosted


def _guarded(name: str, checks: Iterator[Finding]) -> Iterator[Finding]:
    """Run checks, which do nothing before; whatever the author's code raises is a finding like any other."""
    try:
        yield from checks
    except Exception as error:  # noqa: BLE001 - the plugin's code may raise anything, and the other checks go on
        typed = classify(error)
        trace = trace_text(error)[-_MAX_EVIDENCE:]
        yield Finding(name, False, f"{typed.code}: {typed.message}\n{trace}", "mend what the traceback shows")
    except SystemExit as error:
        yield Finding(
            name, False, f"it ended the process: SystemExit({error.code!r})", "raise an error instead"
        )


# -- import and description ------------------------------------------------------------------------


def _check_import(module: str) -> Iterator[Finding]:
    name = "imports quietly"
    if module in sys.modules:
        yield Finding(name, True, f"{module} was imported before, so nothing could be seen")
        return
    before = Surroundings()
    start = time.monotonic()
    with CapturedOutput() as output:
        __import__(module)
    seconds = time.monotonic() - start
    printed = output.text()
    changes = before.changes()
    if printed:
        changes.insert(0, f"it printed {len(printed)} characters, first: {printed[:200]!r}")
    if changes:
        yield Finding(
            name, False, "; ".join(changes), "do this in initialize(), not while the module is imported"
        )
    else:
        yield Finding(name, True, f"in {seconds:.2f} s, with nothing printed, started or changed")


def _check_load(module: str, class_name: str | None, loaded: list[Any]) -> Iterator[Finding]:
    kind = find_class(module, class_name)
    hosted = hosting.load(module, kind.__qualname__)
    loaded[:] = [kind, hosted]
    yield Finding("is a plugin", True, f"{module}.{kind.__qualname__}")


def _check_description(subject: _Subject) -> Iterator[Finding]:
    name = "describes itself"
    described = subject.hosted.describe()
    subject.description = described
    if described != subject.hosted.describe() or json.loads(json.dumps(described)) != described:
        yield Finding(
            name, False, "two descriptions differ, or JSON changes one", "avoid random and unordered defaults"
        )
        return
    if not _NAME.fullmatch(described["name"]):
        hint = "use lower-case letters, digits, - and _, at most 64"
        yield Finding(name, False, f"the name {described['name']!r} cannot be used as one", hint)
        return
    if not described.get("description"):
        yield Finding(name, False, "there is no description", "write a docstring under the class line")
        return
    actions = ", ".join(described["actions"])
    yield Finding(name, True, f"{described['name']} {described['version']}, actions: {actions}")


def _check_signatures(subject: _Subject) -> Iterator[Finding]:
    silent = [
        f"{action}({parameter})"
        for action, described in subject.description["actions"].items()
        for parameter, schema in described["input"]["parameters"].items()
        if not set(schema) - {"kind", "default"}
    ]
    evidence = "every argument has a type"
    if silent:
        evidence = f"accepts anything for: {', '.join(silent)}"
    yield Finding("says what it takes", True, evidence)


def _check_configuration(subject: _Subject) -> Iterator[Finding]:
    name = "has a usable configuration"
    schema, defaults = subject.description["config_schema"], subject.description["config_defaults"]
    required = schema.get("required", [])
    wrong = {path: text for path, text in problems(schema, defaults).items() if path not in required}
    if wrong:
        text = "; ".join(f"{path} {problem}" for path, problem in wrong.items())
        yield Finding(
            name, False, f"defaults that do not fit: {text}", "change the default or its constraint"
        )
        return
    for field, described in schema.get("properties", {}).items():
        trigger = described.get("x-toft-reload")
        if trigger and not callable(getattr(subject.kind, f"release_{trigger}", None)):
            hint = f"write release_{trigger}(self), or drop reload= from the field"
            yield Finding(
                name, False, f"{field} reloads {trigger!r}, and there is no release_{trigger}()", hint
            )
            return
    evidence = f"{len(defaults)} of {len(schema.get('properties', {}))} fields have defaults"
    if required:
        evidence += f"; required: {', '.join(required)}"
    yield Finding(name, True, evidence)


def missing_variables(kind: type[Any]) -> list[str]:
    """Return the required environment variables that are not set here."""
    declared = kind.environment if issubclass(kind, Plugin) else ()
    return [each.name for each in declared if each.required and each.name not in os.environ]


def _check_variables(subject: _Subject) -> Iterator[Finding]:
    name = "has its variables"
    missing = missing_variables(subject.kind)
    if missing:
        # Not the plugin's fault, so no failure; and nothing that follows would say anything about it.
        evidence = f"not started: {', '.join(missing)} not set here"
        yield Finding(name, True, evidence, "run your own tests with them set, or give them a default")
    else:
        yield Finding(name, True, "every variable it requires is set")


# -- life ------------------------------------------------------------------------------------------


def _check_life(subject: _Subject) -> Iterator[Finding]:
    start = time.monotonic()
    hosted = subject.fresh()
    seconds = time.monotonic() - start
    hosted.cleanup()
    hosted.cleanup()
    yield Finding("starts and cleans up", True, f"initialized in {seconds:.2f} s, cleaned up twice")
    again = subject.fresh()
    again.cleanup()
    yield Finding("starts again", True, "a second one was initialized and cleaned up in the same process")


def _check_hooks(subject: _Subject) -> Iterator[Finding]:
    hosted = subject.fresh()
    try:
        hosted.prefetch()
        hosted.prefetch()
        hosted.disable()
        hosted.enable()
        config = dict(subject.description["config_defaults"])
        hosted.reconfigure(config, config)
        options = hosted.config_options()
    finally:
        hosted.cleanup()
    unknown = sorted(set(options) - set(subject.description["config_schema"].get("properties", {})))
    if unknown:
        evidence = f"get_config_options() names fields there are not: {', '.join(unknown)}"
        yield Finding("hooks can be called", False, evidence, "return field names of Config only")
        return
    evidence = "prefetch (twice), disable, enable, reconfigure, get_config_options"
    yield Finding("hooks can be called", True, evidence)


def _check_refusal(subject: _Subject) -> Iterator[Finding]:
    name = "refuses unknown arguments"
    if not issubclass(subject.kind, Plugin):
        yield Finding(name, True, "not tried: a class of the reference system leaves that to the node")
        return
    closed = [
        action for action, each in subject.description["actions"].items() if not each["input"]["additional"]
    ]
    if not closed:
        yield Finding(name, True, "every action takes any argument")
        return
    hosted = subject.fresh()
    try:
        hosted.call(closed[0], {"toft_no_such_argument": 1})
    except InputError as error:
        yield Finding(name, "toft_no_such_argument" in error.fields, error.message)
    else:
        yield Finding(
            name, False, f"{closed[0]} took an argument it does not declare", "drop the decorator around it"
        )
    finally:
        hosted.cleanup()


# -- examples --------------------------------------------------------------------------------------


def _check_examples(subject: _Subject) -> Iterator[Finding]:
    if not subject.examples:
        hint = 'add examples = [{"arguments": {...}, "result": ...}] to the class'
        yield Finding("examples hold", True, "there are none", hint)
        return
    hosted = subject.fresh()
    try:
        for number, example in enumerate(subject.examples, 1):
            checks = _check_example(subject, hosted, number, example)
            yield from _guarded(f"example {number} holds", checks)
    finally:
        hosted.cleanup()


def _check_example(subject: _Subject, hosted: Any, number: int, example: dict[str, Any]) -> Iterator[Finding]:
    name = f"example {number} holds"
    action, arguments = action_of(subject.description, example), dict(example.get("arguments", {}))
    described = subject.description["actions"].get(action)
    if described is None:
        yield Finding(name, False, f"there is no action {action!r}", 'name one in "action"')
        return
    for argument, value in arguments.items():
        wrong = problems(described["input"]["parameters"].get(argument, {}), value, argument)
        if wrong:
            path, text = next(iter(wrong.items()))
            yield Finding(
                name, False, f"{path} {text}", "change the example, or the annotation of the argument"
            )
            return
    start = time.monotonic()
    result = hosted.call(action, arguments)
    seconds = time.monotonic() - start
    if not same(_crossed(result), result):
        yield Finding(name, False, "the result is another one after it was encoded", "return plain values")
        return
    wrong = problems(described["output"], result, "result")
    if wrong:
        path, text = next(iter(wrong.items()))
        yield Finding(name, False, f"{path} {text}", "change the return annotation, or what is returned")
        return
    if "result" in example and not same(result, example["result"]):
        evidence = f"it returned {_short(result)}, the example says {_short(example['result'])}"
        yield Finding(name, False, evidence, "mend the plugin or the example")
        return
    yield Finding(name, True, f"{action} returned {_short(result)} in {seconds:.3f} s")


def _crossed(value: Any) -> Any:
    """Return a value as it comes out at the other end of a process boundary."""
    tree, buffers = encode(value)
    return decode(tree, [each.to_bytes() if hasattr(each, "to_bytes") else each for each in buffers])


def action_of(description: dict[str, Any], example: dict[str, Any]) -> str:
    """Return the action an example is for: the one it names, or the plugin's first."""
    return str(example.get("action") or next(iter(description["actions"]), "execute"))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


# -- cancel and leftovers --------------------------------------------------------------------------


def _check_cancel(subject: _Subject) -> Iterator[Finding]:
    name = "stops when cancelled"
    limit = subject.cancel_within_s
    if limit is None or not subject.examples:
        evidence = "it declares no cancel_within_s" if limit is None else "there is no example to cancel"
        yield Finding(name, True, f"not tried: {evidence}")
        return
    hosted = subject.fresh()
    call = CancellingCall()
    timer = threading.Timer(0.2, call.cancel)
    timer.start()
    example = subject.examples[0]
    try:
        with context.enter(call):
            hosted.call(action_of(subject.description, example), dict(example.get("arguments", {})))
        outcome = "it returned a result"
    except CancelledError:
        outcome = ""
    except PluginError as error:
        outcome = f"it raised {type(error).__name__}"
    finally:
        ended = time.monotonic()
        timer.cancel()
        timer.join()
        hosted.cleanup()
    took = ended - call.at
    if not call.at:
        yield Finding(name, True, "the example ended before it could be cancelled")
    elif took > limit:
        hint = "call check_cancel() or report_progress() more often"
        yield Finding(name, False, f"it took {took:.2f} s to stop, cancel_within_s is {limit}", hint)
    elif outcome:
        hint = "let CancelledError pass, and call check_cancel() before returning"
        yield Finding(name, False, f"{outcome} although it was cancelled", hint)
    else:
        yield Finding(name, True, f"after {took:.3f} s")


def _check_leftovers(before: Surroundings) -> Iterator[Finding]:
    deadline = time.monotonic() + 0.4
    changes = before.changes()
    while changes and time.monotonic() < deadline:
        # A thread that was told to end needs a moment to do so.
        time.sleep(0.02)
        changes = before.changes()
    name = "leaves nothing behind"
    if changes:
        yield Finding(
            name, False, "; ".join(changes), "end it in cleanup(), and put things back where they were"
        )
    else:
        yield Finding(name, True, "same directory and environment, no thread and no process more")


_CHECKS: tuple[tuple[str, Callable[[_Subject], Iterator[Finding]]], ...] = (
    ("describes itself", _check_description),
    ("says what it takes", _check_signatures),
    ("has a usable configuration", _check_configuration),
    ("has its variables", _check_variables),
    ("starts and cleans up", _check_life),
    ("hooks can be called", _check_hooks),
    ("refuses unknown arguments", _check_refusal),
    ("examples hold", _check_examples),
    ("stops when cancelled", _check_cancel),
)
