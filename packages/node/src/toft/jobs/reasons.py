"""The words that waits, retries and ends are recorded with, as sentences for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.kernel.quantities import size

ENDED = "the node ended while it ran"
UNKNOWN = "nobody can say how far it came, so it is not run again unasked"
INTERRUPTED = f"{ENDED}; {UNKNOWN}"
FENCED = "only the newest attempt may end a job, and only once"

CANCEL_PHASES: Mapping[str, str] = {
    "requested": "a cancel was asked for",
    "cooperative": "the plugin was asked to stop",
    "force": "the plugin did not stop in time, so its process was ended",
    "reloading": "a fresh worker takes the place of the one that was ended",
    "done": "the cancel was over",
}

CAUSES: Mapping[str, str] = {
    "asked": "somebody asked for it",
    "boot": "the node came back",
    "deadline": "it was not done by its deadline",
    "due": "its time came",
    "empty": "its list was empty, so there was nothing to run",
    "given_back": "no lane became free in the moment for which it was set aside, so nothing had happened yet",
    "fan_out": "its list could not be spread over jobs",
    "its sequence": "its sequence was cancelled",
    "parts completed": "all of its parts completed",
    "idempotent": "it was declared idempotent, so running it again does no harm",
    "job.never_fits": "it needs more than this machine has",
    "job.no_room": "there was no room for it for as long as the scheduling policy waits",
    "making_room": "a job needs the memory it held, and it had nothing to do",
    "node_stopped": "the node was stopped while it ran",
    "not_started": "its worker went away before the job was handed to it, so nothing had happened yet",
    "resource": "the plugin said that it lacked a resource; it gets more room and a fresh worker",
    "resumed": "it was declared idempotent, so running it again does no harm",
    "skipped": "a job that has to complete before it did not",
    "timeout": "it took longer than it was given",
    "transient": "the plugin said that the same may work later",
    "worker_lost": "its worker died while it ran",
}
"""Words in `because` of an event."""

BLOCKS: Mapping[str, str] = {
    "after": "it comes after other jobs that have not ended yet",
    "away": "its instance cannot take work just now",
    "disabled": "its instance {instance} is switched off; toft plugin enable switches it on",
    "down": "the worker of {instance} died too often and is kept down for a while: {because}",
    "evicted": "its instance {instance} was just unloaded to make room for {for}",
    "instance_busy": "its instance runs {running} jobs already and takes {cap} at once",
    "load_failed": "its instance {instance} could not be loaded; it is tried again after a pause",
    "loading": "its instance {instance} was being loaded",
    "making_room": "{missing_bytes} of {resource} were missing, so idle instances had to go first: {evicted}",
    "measuring": (
        "{instance} runs for the first time, and runs alone until it is known how much memory it takes"
    ),
    "memory": (
        "it needs {needed_bytes} of {resource}, of which {free_bytes} were free and {coming_bytes} promised"
        " to running jobs; {missing_bytes} were missing"
    ),
    "no_lane": "all lanes were taken: {running} jobs were running",
    "not_overtaking": "{instance} has waited for {resource} so long that nothing that delays it may go first",
    "not_started": "its instance {instance} lost its worker; it is tried again after a pause",
    "recovering": "its instance {instance} gets a fresh worker after {job} ran out of a resource",
    "restarting": "the worker of {instance} is being replaced: {because}",
    "scheduled": "it is not to begin before its time",
    "unmeasured": (
        "nobody knows yet how much memory it takes, so it first waits for {running} running jobs to end"
    ),
}
"""Codes of block reasons; `{name}` is a value of the reason."""


class _Known(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def cause(word: str) -> str:
    """Return the sentence for a recorded cause; what has none is shown as it is."""
    return CAUSES.get(word) or (word if " " in word else word.replace("_", " "))


def sentence(reason: Mapping[str, Any]) -> str:
    """Return why a job waits."""
    code = str(reason.get("code") or reason.get("because") or "")
    values = _Known({key: _shown(key, value) for key, value in reason.items()})
    return BLOCKS[code].format_map(values) if code in BLOCKS else cause(code)


def _shown(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, (int, float)):
        return size(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
