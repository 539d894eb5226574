"""The queue, the dispatcher and admission, tried by seeds; `TOFT_SIM_SEED=n` runs one seed again.

`TOFT_SIM_STEPS` says how many steps the long run takes in all.
"""

import os
import random
import sys
import time

import pytest
from tests.simulation import simulate
from tests.simulation.world import Plan, Report

GIVEN = os.environ.get("TOFT_SIM_SEED")
LONG_STEPS = int(os.environ.get("TOFT_SIM_STEPS", "1000000"))
SEEDS = [int(GIVEN)] if GIVEN else [1, 2, 3, 4, 5, 6]
STEPS_OF_A_SEED = 20_000


def plan(seed: int, steps: int) -> Plan:
    return Plan(seed, steps, lives=seed % 4 != 0, wall_jumps=seed % 3 == 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds_for_a_seed(seed: int) -> None:
    report = simulate.run(plan(seed, 3000))
    assert report.steps >= 3000
    assert report.jobs > 50


def test_two_runs_of_a_seed_have_the_same_log() -> None:
    first, second = (simulate.run(plan(7, 3000)) for _ in range(2))
    assert first == second
    assert first.log != simulate.run(plan(8, 3000)).log


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_promise_holds_for_a_million_steps() -> None:
    """Fixed seeds and, at the end, one that nobody has tried before."""
    reports: list[Report] = []
    began = time.process_time()
    seed = 1000
    while sum(each.steps for each in reports) < LONG_STEPS:
        seed += 1
        reports.append(simulate.run(plan(seed, STEPS_OF_A_SEED)))
    fresh = random.SystemRandom().getrandbits(32)
    sys.stderr.write(f"TOFT_SIM_SEED={fresh}\n")
    reports.append(simulate.run(plan(fresh, STEPS_OF_A_SEED)))
    kinds: dict[str, int] = {}
    for report in reports:
        for kind, count in report.kinds.items():
            kinds[kind] = kinds.get(kind, 0) + count
    sys.stderr.write(
        f"{sum(each.steps for each in reports)} steps, {sum(each.jobs for each in reports)} jobs,"
        f" {sum(each.lives for each in reports)} lives, {len(reports)} seeds,"
        f" {time.process_time() - began:.0f} s of processor; events: {kinds}\n"
    )
    for kind in (
        "submitted",
        "state",
        "progress",
        "blocked",
        "cancel",
        "retry",
        "reordered",
        "fenced",
        "evicted",
    ):
        assert kinds.get(kind, 0) > 100, kind
