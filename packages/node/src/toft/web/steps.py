"""The steps of a sequence with what became of each, and their picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from toft.api.service import Service
from toft.jobs import digests
from toft.jobs.sequences import JobSequence
from toft.web import drawing

LISTED = 60
"""The most steps that a table shows."""
# What is told of a step with several parts: the first of these that one of them is in. Of many steps those
# are shown that come first here.
_WEIGHTS = ("failed", "interrupted", "running", "pending", "cancelled", "skipped", "completed")
_NONE: Mapping[str, int] = {}
_JOB = re.compile(r"job_[0-9A-Z]{26}")


async def graph(serves: Service, sequence: JobSequence, *, chosen: str = "") -> dict[str, Any]:
    """Return the picture of a graph.

    Args:
        serves: Where its jobs are.
        sequence: The graph.
        chosen: The step, or the part of one, that the page is about.
    """
    picture = drawing.draw(sequence.steps)
    engine = await serves.jobs.open()
    is_needed = picture is not None or not chosen
    parts = await digests.parts(engine.means.store, sequence.id) if is_needed else ()
    steps = described(sequence.steps, parts)
    return {
        "sequence": sequence,
        "steps": steps,
        "picture": picture,
        "edges": edges(picture, steps) if picture is not None else {},
        "chosen": chosen.partition("[")[0],
    }


def edges(picture: drawing.Picture, steps: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the lines of a picture by how they look: a page has one path for all of a look."""
    found: dict[str, list[str]] = {}
    for line in picture.lines:
        look = f"{'loose ' if line.is_loose else ''}from-{steps[line.source]['state']}"
        found.setdefault(look, []).append(line.path)
    return {look: "".join(paths) for look, paths in found.items()}


async def listed(serves: Service, steps: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps that a table shows, each with its job: of very many those that are amiss or run."""
    chosen = sorted(steps.values(), key=lambda step: _WEIGHTS.index(step["state"]))[:LISTED]
    names = {each["id"] for each in chosen}
    shown = [each for each in steps.values() if each["id"] in names]
    store = (await serves.jobs.open()).means.store
    jobs = await digests.jobs(store, [each["job"] for each in shown if each["job"]])
    told = {name: job.to_dict() for name, job in jobs.items()}
    return [{**each, "job": told.get(str(each["job"]))} for each in shown]


def named(entry: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return an entry of a story with its reason about steps: who reads a graph knows no numbers of jobs."""
    return {**entry, "because": _JOB.sub(lambda found: names.get(found[0], found[0]), str(entry["because"]))}


def described(steps: Sequence[Mapping[str, Any]], parts: Sequence[digests.Part]) -> dict[str, dict[str, Any]]:
    """Return each step by name: its state, the name of its job, and how many of its parts are where."""
    own: dict[str, digests.Part] = {}
    counted: dict[str, Counter[str]] = {}
    for each in parts:
        if each.is_part:
            counted.setdefault(each.step, Counter())[each.state] += each.jobs
        elif each.step not in own or own[each.step].newest < each.newest:
            own[each.step] = each
    found = {}
    for step in steps:
        name = str(step["id"])
        job, counts = own.get(name), counted.get(name, _NONE)
        state = job.state if job else next((each for each in _WEIGHTS if each in counts), "pending")
        found[name] = {
            "id": name,
            "plugin": str(step.get("plugin") or ""),
            "action": step.get("action"),
            "state": state,
            "job": job.id if job else None,
            "parts": sum(counts.values()),
            "counts": {each: counts[each] for each in _WEIGHTS if each in counts} if counts else {},
            "is_fan_out": bool(step.get("for_each")),
            "waits": ", ".join(step.get("needs") or ()),
        }
    return found
