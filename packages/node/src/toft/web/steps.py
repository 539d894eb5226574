"""The steps of a sequence with what became of each, and their picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from toft.api.service import Service
from toft.jobs.sequences import SKIPPED, JobSequence
from toft.web import drawing

_MEMBERS = 1000
_JOB = re.compile(r"job_[0-9A-Z]{26}")
# What is told of a step with several parts: the first of these that one of them is in.
_WEIGHTS = ("failed", "interrupted", "running", "pending", "cancelled", "skipped", "completed")


async def graph(serves: Service, sequence: JobSequence, *, chosen: str = "") -> dict[str, Any]:
    """Return what a page shows of a graph.

    Args:
        serves: Where its jobs are.
        sequence: The graph.
        chosen: The step, or the part of one, that the page is about.
    """
    members = [each.to_dict() for each in await serves.jobs.list(sequence=sequence.id, limit=_MEMBERS)]
    return {
        "sequence": sequence.to_dict(),
        "steps": described(sequence.steps, members),
        "picture": drawing.draw(sequence.steps),
        "chosen": chosen.partition("[")[0],
        "names": {str(each["id"]): str(each["step"] or "") for each in members if each["step"]},
        "is_cut": len(members) == _MEMBERS,
    }


def named(entry: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return an entry of a story with its reason about steps: who reads a graph knows no numbers of jobs."""
    return {**entry, "because": _JOB.sub(lambda found: names.get(found[0], found[0]), str(entry["because"]))}


def described(
    steps: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return each step by name: its state, its job, and how many parts are where."""
    of_step: dict[str, list[Mapping[str, Any]]] = {}
    for each in members:
        of_step.setdefault(str(each["step"] or ""), []).append(each)
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for name, jobs in of_step.items():
        if "[" in name:
            parts.setdefault(name.partition("[")[0], []).extend(jobs)
    found = {}
    for step in steps:
        name = str(step["id"])
        # Jobs come newest first: of a step that ran again only that one counts.
        job = of_step[name][0] if name in of_step else None
        counts = Counter(state_of(each) for each in parts.get(name, ()))
        state = state_of(job) if job else next((each for each in _WEIGHTS if counts[each]), "pending")
        found[name] = {
            "id": name,
            "plugin": str(step.get("plugin") or ""),
            "action": step.get("action"),
            "needs": dict(step.get("needs") or {}),
            "state": state,
            "job": job,
            "parts": sum(counts.values()),
            "counts": {each: counts[each] for each in _WEIGHTS if counts[each]},
            "is_fan_out": bool(step.get("for_each")),
        }
    return found


def state_of(job: Mapping[str, Any]) -> str:
    """Return the state of a job; one that never ran because of another one is told from a cancelled one."""
    if job["state"] == "cancelled" and (job.get("error") or {}).get("code") == SKIPPED:
        return "skipped"
    return str(job["state"])
