"""Does a plugin keep to what it says? The conformance kit, and a plugin that keeps to nothing.

`check` runs a class in this process, and, given something that opens a worker, across a process boundary too.
`Conformance` is the first half as a plugin: a worker in the plugin's own environment hosts it, so that a host
which lacks the plugin's packages can run the checks where they are.
"""

from __future__ import annotations

import time

from toft_sdk.conformance import Finding, action_of, check_class, missing_variables
from toft_sdk.errors import CancelledError, InputError, PluginError
from toft_sdk.likeness import same
from toft_sdk.misbehaving import MisbehavingPlugin
from toft_sdk.plugin import Plugin, action

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, ContextManager, Iterator, Mapping, Protocol

    class Running(Protocol):
        """A call that was started and not waited for."""

        def cancel(self) -> object:
            """Ask it to stop."""

        def result(self, timeout_s: float | None = None) -> Any:
            """Wait for the result; raises what the call raised."""

    class OpenWorker(Protocol):
        """An initialized worker, as the kit needs it."""

        def call(self, action: str, arguments: Mapping[str, Any]) -> Any:
            """Call and wait."""

        def stream(self, action: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
            """Call and yield chunks."""

        def start(self, action: str, arguments: Mapping[str, Any]) -> Running:
            """Call and do not wait."""

    WorkerOpener = Callable[[], ContextManager[OpenWorker]]

__all__ = ["Conformance", "Finding", "MisbehavingPlugin", "check", "check_class", "check_worker"]

_STOP_IN_S = 0.2


def check(
    module: str, class_name: str | None = None, open_worker: WorkerOpener | None = None
) -> list[Finding]:
    """Check a plugin in this process, and across a process boundary when there is a way to open a worker.

    Args:
        module: Dotted name of the plugin's module.
        class_name: Name of the class; None takes the only plugin the module has.
        open_worker: Opens a worker that hosts the plugin, and ends it at the end of a `with` block.

    Returns:
        What was found, in order.
    """
    findings = check_class(module, class_name)
    if open_worker is None or not all(each.ok for each in findings[:2]):
        return findings
    subject = describe_examples(module, class_name)
    if subject["missing_variables"]:
        return findings
    return findings + check_worker(
        open_worker, subject["description"], subject["examples"], subject["cancel_within_s"]
    )


def describe_examples(module: str, class_name: str | None = None) -> dict[str, Any]:
    """Return what `check_worker` needs: description, examples, time to stop in, variables it lacks."""
    from toft_sdk.discovery import find_class  # noqa: PLC0415 - not needed by those who only want the misbehaving one
    from toft_sdk.introspect import describe  # noqa: PLC0415 - imports inspect

    kind = find_class(module, class_name)
    return {
        "description": describe(module, kind.__qualname__),
        "examples": [dict(each) for each in getattr(kind, "examples", ())],
        "cancel_within_s": getattr(kind, "cancel_within_s", None),
        "missing_variables": missing_variables(kind),
    }


def check_worker(
    open_worker: WorkerOpener,
    description: dict[str, Any],
    examples: list[dict[str, Any]],
    cancel_within_s: float | None = None,
) -> list[Finding]:
    """Check a plugin across a process boundary.

    Args:
        open_worker: Opens a worker that hosts the plugin, and ends it at the end of a `with` block.
        description: What the plugin said about itself.
        examples: Its examples.
        cancel_within_s: How soon it promises to stop.

    Returns:
        What was found, in order.
    """
    findings: list[Finding] = []
    try:
        with open_worker() as worker:
            findings.append(Finding("starts in a worker", True, "started, loaded and initialized"))
            for number, example in enumerate(examples, 1):
                findings.append(_across(worker, description, number, example))
            findings.append(_refusal_across(worker, description))
            if cancel_within_s is not None and examples:
                findings.append(_cancel_across(worker, description, examples[0], cancel_within_s))
    except PluginError as error:
        evidence = f"{error.code}: {error.message}\n{error.trace}".strip()
        findings.append(Finding("works in a worker", False, evidence, "run the plugin and read its log"))
    return findings


def _across(worker: OpenWorker, description: dict[str, Any], number: int, example: dict[str, Any]) -> Finding:
    name = f"example {number} holds in a worker"
    chosen, arguments = action_of(description, example), dict(example.get("arguments", {}))
    result = worker.call(chosen, arguments)
    if "result" in example and not same(result, example["result"]):
        evidence = f"it returned {result!r:.120}, the example says {example['result']!r:.120}"
        return Finding(name, False, evidence, "look for state that one process has and the other has not")
    if description["actions"][chosen]["stream"]:
        chunks = list(worker.stream(chosen, arguments))
        return Finding(
            name, bool(chunks) or not result, f"{chosen} returned, and streamed {len(chunks)} chunks"
        )
    return Finding(name, True, f"{chosen} returned the same")


def _refusal_across(worker: OpenWorker, description: dict[str, Any]) -> Finding:
    name = "errors cross the boundary typed"
    closed = [action for action, each in description["actions"].items() if not each["input"]["additional"]]
    if not closed:
        return Finding(name, True, "not tried: every action takes any argument")
    try:
        worker.call(closed[0], {"toft_no_such_argument": 1})
    except InputError as error:
        return Finding(name, True, f"{error.code}: {error.message}")
    except PluginError as error:
        return Finding(name, False, f"{error.code}: {error.message}", "raise the errors of toft_sdk")
    return Finding(name, False, f"{closed[0]} took an argument it does not declare", "declare its arguments")


def _cancel_across(
    worker: OpenWorker, description: dict[str, Any], example: dict[str, Any], limit_s: float
) -> Finding:
    name = "stops when cancelled in a worker"
    running = worker.start(action_of(description, example), dict(example.get("arguments", {})))
    time.sleep(_STOP_IN_S)
    start = time.monotonic()
    running.cancel()
    try:
        running.result(limit_s + 5)
    except CancelledError:
        seconds = time.monotonic() - start
        hint = "" if seconds <= limit_s else "call check_cancel() or report_progress() more often"
        return Finding(name, seconds <= limit_s, f"after {seconds:.3f} s", hint)
    return Finding(name, True, "the example ended before it could be cancelled")


class Conformance(Plugin):
    """Checks the plugin class of a module in this very environment."""

    name = "toft-conformance"
    version = "1"

    @action
    def check(self, module: str, class_name: str | None = None) -> list[dict[str, Any]]:
        """Return the findings as dictionaries."""
        return [each.to_dict() for each in check_class(module, class_name)]

    @action
    def subject(self, module: str, class_name: str | None = None) -> dict[str, Any]:
        """Return what `check_worker` needs to know about the class."""
        return describe_examples(module, class_name)
