"""Runs a benchmark: everybody takes turns at each measure, several times, and the median counts."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toft.bench import contenders, targets
from toft.bench.targets import Target

YARDSTICK = "yardstick"
OURS = "toft"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Suite:
    """What is measured, and who measures it.

    Attributes:
        measures: In this order; each gives one or more of the keys in `targets`.
        targets: What each figure has to reach.
        yardstick: Module of the program that has nothing but the standard library; empty where none compares.
        driver: Module of the program that measures toft.
        peers: Names of the other systems.
        patience_s: How long one measure may take.
    """

    measures: tuple[str, ...]
    targets: Mapping[str, Target]
    yardstick: str
    driver: str
    peers: tuple[str, ...]
    patience_s: float = contenders.PATIENCE_S


RUNTIME = Suite(
    # Memory first: what was moved later stays mapped.
    measures=(
        "memory",
        "call",
        "open_calls",
        "stream",
        "cold_start",
        "zygote_start",
        "cancel",
        "force_cancel",
        "move",
        "host_kill",
    ),
    targets=targets.RUNTIME,
    yardstick="toft.bench.yardstick",
    driver="toft.bench.node_driver",
    peers=("ray", "appose", "reference"),
)
JOBS = Suite(
    measures=(
        "submissions",
        "jobs",
        "roundtrip",
        "cancel_job",
        "events",
        "idle",
        "million",
    ),
    targets=targets.JOBS,
    yardstick="toft.bench.jobs_yardstick",
    driver="toft.bench.jobs_driver",
    peers=("huey", "ray", "reference"),
)
API = Suite(
    measures=("submissions", "lists", "events", "page", "streams"),
    targets=targets.API,
    yardstick="toft.bench.api_yardstick",
    driver="toft.bench.api_driver",
    peers=(),
)

CENTRAL = Suite(
    measures=("offers", "bad_rollout", "join"),
    targets=targets.CENTRAL,
    yardstick="",
    driver="toft.bench.central_driver",
    peers=(),
    patience_s=600.0,
)


@dataclass
class Figures:
    """What one contender gave, measure by measure, and what went wrong."""

    values: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    given_up: set[str] = field(default_factory=set)

    def take(self, answer: Mapping[str, float]) -> None:
        """Add the figures of one round."""
        for key, value in answer.items():
            self.values.setdefault(key, []).append(value)

    def medians(self, keys: Iterable[str]) -> dict[str, float]:
        """Return the median of each figure, in the order of the keys."""
        return {key: round(statistics.median(self.values[key]), 3) for key in keys if key in self.values}


def measure(
    suite: Suite,
    peers: Mapping[str, str] | None = None,
    *,
    rounds: int = 5,
    env: Mapping[str, str] = os.environ,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Measure this machine, toft on it, and other systems.

    Args:
        suite: What to measure.
        peers: Name of each other system to the Python interpreter it is installed for.
        rounds: How many times everybody takes a turn.
        env: The environment of the measuring programs.
        say: Told what is being measured.

    Returns:
        `{"yardstick", "toft", "peers", "machine"}`; the first three hold the keys of the targets where they
        apply. What failed is listed under `failures` beside the figures; it stops nothing.
    """
    found: dict[str, Figures] = {}
    with contextlib.ExitStack() as running:
        modules = {YARDSTICK: suite.yardstick, OURS: suite.driver}
        taking_part = [
            running.enter_context(contenders.own(name, module, env))
            for name, module in modules.items()
            if module
        ]
        for name, python in (peers or {}).items():
            taking_part.append(running.enter_context(contenders.peer(name, python, env)))
        found = {contender.name: Figures() for contender in taking_part}
        for name in suite.measures:
            for number in range(rounds):
                for contender in taking_part:
                    say(f"{name}, round {number + 1} of {rounds}: {contender.name}")
                    _take_turn(contender, name, found[contender.name], suite)
    return _result(found, suite.targets)


def _take_turn(contender: contenders.Contender, name: str, figures: Figures, suite: Suite) -> None:
    # What failed once is not tried again: a peer that hangs would cost its patience every round.
    if name in figures.given_up:
        return
    try:
        figures.take(contender.ask(name, suite.patience_s))
    except contenders.MeasureError as error:
        figures.failures.append(error.message)
        figures.given_up.update([name] if contender.is_running else suite.measures)


def _result(found: Mapping[str, Figures], keys: Iterable[str]) -> dict[str, Any]:
    def section(figures: Figures) -> dict[str, Any]:
        failures = {"failures": figures.failures} if figures.failures else {}
        return {**figures.medians(keys), **failures}

    others = {name: section(figures) for name, figures in found.items() if name not in (YARDSTICK, OURS)}
    return {
        "yardstick": section(found[YARDSTICK]) if YARDSTICK in found else {},
        "toft": section(found[OURS]),
        "peers": others,
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    model = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "processor": model or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
