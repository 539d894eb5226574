"""Who gets a lane, from figures alone."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from toft.jobs import admission, ledger, peaks, policies, retries
from toft.jobs.admission import Admit, Candidate, Evict, Idle, Needs, Refuse, Rules, Standing, Wait, World
from toft.jobs.ledger import Reading
from toft.jobs.records import ONCE, THRICE, RetryPolicy

GB = 10**9


def reading(free: int = 16 * GB, total: int = 16 * GB, **used: int) -> Reading:
    return Reading(
        at=1.0,
        total={"memory": total},
        free={"memory": free},
        used={name: {"memory": size} for name, size in used.items()},
    )


def needs(each: int, idle: int = 0) -> Needs:
    return Needs({"memory": idle}, {"memory": each})


def wanting(instance: str, rank: int = 0, **more: Any) -> Candidate:
    given: dict[str, Any] = {"ready": 1, "need": needs(1 * GB), **more}
    return Candidate(instance=instance, rank=rank, seq=rank, **given)


def world(lanes: int = 4, **more: Any) -> World:
    given: dict[str, Any] = {"running": {}, "reading": reading(), "ledger": ledger.Ledger(), **more}
    return World(free_lanes=lanes, **given)


def decide(
    at: World, candidates: Sequence[Candidate], rules: Rules | None = None
) -> dict[str, admission.Decision]:
    return {each.instance: each for each in admission.decide(at, candidates, rules or Rules())}


class TestLanesAndCaps:
    def test_the_most_urgent_get_the_lanes(self) -> None:
        found = decide(world(2), [wanting("a", 1), wanting("b", 2), wanting("c", 3)])
        assert found["a"] == Admit("a", 1)
        assert found["b"] == Admit("b", 1)
        assert isinstance(found["c"], Wait)
        assert found["c"].reason["code"] == "no_lane"

    def test_an_instance_takes_as_many_as_it_may(self) -> None:
        found = decide(world(8), [wanting("a", ready=8, cap=3, running=1)])
        assert found["a"] == Admit("a", 2)

    def test_a_full_instance_waits_and_others_go_past_it(self) -> None:
        found = decide(world(8), [wanting("a", 1, cap=2, running=2), wanting("b", 2)])
        assert found["a"] == Wait("a", {"code": "instance_busy", "running": 2, "cap": 2})
        assert isinstance(found["b"], Admit)

    @pytest.mark.parametrize("standing", [Standing.AWAY, Standing.LOADING])
    def test_one_that_can_take_nothing_costs_no_lane(self, standing: Standing) -> None:
        reason = {"code": "restarting"}
        found = decide(world(1), [wanting("a", 1, standing=standing, reason=reason), wanting("b", 2)])
        assert isinstance(found["a"], Wait)
        assert isinstance(found["b"], Admit)

    def test_permissive_looks_at_lanes_only(self) -> None:
        rules = Rules(policy=policies.PERMISSIVE)
        found = decide(world(8, reading=reading(free=0)), [wanting("a", ready=5, need=None)], rules)
        assert found["a"] == Admit("a", 5)


class TestMemory:
    def test_what_running_jobs_will_still_take_is_not_free(self) -> None:
        book = ledger.Ledger()
        book.reserve("busy", {"memory": 10 * GB})
        at = world(ledger=book, running={"busy": 1}, reading=reading(free=12 * GB, busy=2 * GB))
        # 12 free, of which `busy` will take 8 more.
        assert isinstance(decide(at, [wanting("a", need=needs(5 * GB))])["a"], Wait)
        at = world(ledger=book, running={"busy": 1}, reading=reading(free=12 * GB, busy=2 * GB))
        assert isinstance(decide(at, [wanting("a", need=needs(4 * GB))])["a"], Admit)

    def test_what_an_instance_holds_already_is_not_asked_for_again(self) -> None:
        at = world(reading=reading(free=1 * GB, a=6 * GB))
        assert isinstance(decide(at, [wanting("a", need=needs(6 * GB))])["a"], Admit)

    def test_jobs_admitted_in_one_pass_count_for_the_next(self) -> None:
        at = world(reading=reading(free=10 * GB))
        found = decide(at, [wanting("a", 1, need=needs(6 * GB)), wanting("b", 2, need=needs(6 * GB))])
        assert isinstance(found["a"], Admit)
        assert isinstance(found["b"], Wait)
        assert found["b"].reason["code"] == "memory"
        assert found["b"].reason["missing_bytes"] == 2 * GB

    def test_only_as_many_of_one_instance_as_fit(self) -> None:
        found = decide(
            world(8, reading=reading(free=10 * GB)), [wanting("a", ready=8, need=needs(3 * GB, 1 * GB))]
        )
        assert found["a"] == Admit("a", 3)

    def test_what_never_fits_fails_at_once_with_evidence(self) -> None:
        rules = Rules(keep={"memory": 1 * GB})
        found = decide(world(reading=reading(free=0)), [wanting("a", need=needs(15 * GB + 1))], rules)["a"]
        assert isinstance(found, Refuse)
        assert found.code == "job.never_fits"
        assert found.details == {
            "resource": "memory",
            "needed_bytes": 15 * GB + 1,
            "total_bytes": 16 * GB,
            "reserved_bytes": 1 * GB,
        }

    def test_one_that_fits_alone_waits_however_many_run_already(self) -> None:
        at = world(running={"a": 3}, reading=reading(free=1 * GB, a=15 * GB))
        assert isinstance(decide(at, [wanting("a", running=3, need=needs(5 * GB))])["a"], Wait)

    def test_gpu_memory_is_packed_like_main_memory(self) -> None:
        seen = Reading(at=1, total={"gpu0": 24 * GB}, free={"gpu0": 10 * GB})
        need = Needs({}, {"gpu0": 12 * GB})
        found = decide(world(reading=seen), [wanting("a", need=need)])["a"]
        assert isinstance(found, Wait)
        assert found.reason["resource"] == "gpu0"

    def test_nothing_is_refused_for_what_nobody_can_measure(self) -> None:
        assert isinstance(decide(world(reading=Reading()), [wanting("a", need=needs(99 * GB))])["a"], Admit)

    @pytest.mark.parametrize(("waited", "kind"), [(0.0, Wait), (299.0, Wait), (300.0, Refuse)])
    def test_the_policy_queue_gives_up_after_a_while(self, waited: float, kind: type) -> None:
        rules = Rules(policy=policies.QUEUE)
        at = world(reading=reading(free=0))
        assert isinstance(decide(at, [wanting("a", blocked_s=waited)], rules)["a"], kind)

    def test_the_policy_safety_gives_up_at_once(self) -> None:
        at = world(reading=reading(free=0))
        found = decide(at, [wanting("a")], Rules(policy=policies.SAFETY))["a"]
        assert isinstance(found, Refuse)
        assert found.code == "job.no_room"


class TestUnmeasured:
    def test_it_waits_until_it_is_alone_and_nothing_overtakes_it(self) -> None:
        at = world(running={"busy": 1})
        found = decide(at, [wanting("new", 1, need=None), wanting("b", 2)])
        assert found["new"].reason["code"] == "unmeasured"  # type: ignore[union-attr]
        assert found["b"].reason == {"code": "measuring", "instance": "new"}  # type: ignore[union-attr]

    def test_it_starts_beside_the_others_when_they_do_not_end(self) -> None:
        found = decide(world(running={"busy": 1}), [wanting("new", 1, need=None, blocked_s=1.0)])
        assert found["new"] == Admit("new", 1)

    def test_beside_others_it_needs_plenty_of_room(self) -> None:
        at = world(running={"busy": 1}, reading=reading(free=3 * GB))
        found = decide(at, [wanting("new", 1, need=None, blocked_s=5.0)])
        assert found["new"].reason["code"] == "memory"  # type: ignore[union-attr]
        found = decide(world(reading=reading(free=3 * GB)), [wanting("new", 1, need=None)])
        assert found["new"] == Admit("new", 1)

    def test_once_it_waits_the_backlog_of_others_does_not_go_first(self) -> None:
        at = world(3, running={"a": 1})
        found = decide(at, [wanting("a", 1), wanting("new", 2, need=None, blocked_s=0.2)])
        assert isinstance(found["a"], Wait)
        found = decide(world(3), [wanting("a", 1), wanting("new", 2, need=None, blocked_s=0.2)])
        assert found["new"] == Admit("new", 1)

    def test_it_gets_one_lane_however_much_it_has_to_do(self) -> None:
        found = decide(world(8), [wanting("new", 1, need=None, ready=8), wanting("b", 2)])
        assert found["new"] == Admit("new", 1)
        assert isinstance(found["b"], Wait)

    @pytest.mark.parametrize(("for_s", "kind"), [(0.5, Wait), (1.0, Admit)])
    def test_it_is_alone_for_a_bounded_time_only(self, for_s: float, kind: type) -> None:
        alone = [admission.Alone(instance="new", for_s=for_s)]
        at = world(running={"new": 1}, alone=alone)
        assert isinstance(decide(at, [wanting("b")])["b"], kind)


class TestNobodyWaitsForEver:
    def test_a_job_that_does_not_fit_may_be_overtaken_at_first(self) -> None:
        at = world(reading=reading(free=6 * GB))
        found = decide(at, [wanting("big", 1, need=needs(12 * GB)), wanting("small", 2, need=needs(5 * GB))])
        assert isinstance(found["big"], Wait)
        assert isinstance(found["small"], Admit)

    def test_later_nothing_that_delays_it_goes_first(self) -> None:
        at = world(reading=reading(free=6 * GB))
        big = wanting("big", 1, need=needs(12 * GB), blocked_s=10.0)
        found = decide(
            at, [big, wanting("small", 2, need=needs(5 * GB)), wanting("tiny", 3, need=needs(3 * GB))]
        )
        assert isinstance(found["big"], Wait)
        assert found["small"].reason["code"] == "not_overtaking"  # type: ignore[union-attr]

    def test_what_fits_beside_it_still_goes(self) -> None:
        at = world(reading=reading(free=6 * GB, busy=10 * GB), running={"busy": 1})
        big = wanting("big", 1, need=needs(12 * GB), blocked_s=10.0)
        # 16 in all: 12 for the big one leave 4 for others, whoever holds the rest now.
        found = decide(at, [big, wanting("a", 2, need=needs(3 * GB)), wanting("b", 3, need=needs(3 * GB))])
        assert isinstance(found["a"], Admit)
        assert isinstance(found["b"], Wait)

    def test_what_was_let_past_before_counts(self) -> None:
        at = world(reading=reading(free=6 * GB), running={"a": 1}, since={"a": {"memory": 3 * GB}})
        big = wanting("big", 1, need=needs(12 * GB), blocked_s=11.0)
        found = decide(at, [big, wanting("b", 3, need=needs(3 * GB))])
        assert isinstance(found["b"], Wait)


class TestEviction:
    def idle(self, name: str, used: int, last_used: float = 0.0, cost_s: float = 0.0) -> Idle:
        return Idle(instance=name, used={"memory": used}, last_used=last_used, cost_s=cost_s)

    def evicted(self, idle: Sequence[Idle], need: int = 6 * GB, free: int = 2 * GB) -> tuple[str, ...]:
        found = decide(world(reading=reading(free=free), idle=idle), [wanting("a", need=needs(need))])["a"]
        return found.victims if isinstance(found, Evict) else ()

    def test_the_longest_unused_go_first_and_no_more_than_needed(self) -> None:
        idle = [self.idle("new", 9 * GB, 3.0), self.idle("old", 2 * GB, 1.0), self.idle("older", 2 * GB, 0.5)]
        assert self.evicted(idle) == ("older", "old")

    def test_the_cheaper_of_two_equally_old_goes(self) -> None:
        idle = [self.idle("dear", 4 * GB, cost_s=30), self.idle("cheap", 4 * GB, cost_s=1)]
        assert self.evicted(idle) == ("cheap",)

    def test_nobody_goes_when_that_would_not_be_enough(self) -> None:
        assert self.evicted([self.idle("old", 1 * GB), self.idle("older", 1 * GB)]) == ()

    def test_one_that_a_larger_one_made_unnecessary_stays(self) -> None:
        assert self.evicted([self.idle("old", 1 * GB, 1.0), self.idle("big", 5 * GB, 2.0)]) == ("big",)

    def test_two_jobs_do_not_count_on_the_same_victim(self) -> None:
        at = world(reading=reading(free=0), idle=[self.idle("old", 6 * GB)])
        found = decide(at, [wanting("a", 1, need=needs(5 * GB)), wanting("b", 2, need=needs(5 * GB))])
        assert isinstance(found["a"], Evict)
        assert isinstance(found["b"], Wait)


@pytest.mark.parametrize("seed", range(200))
def test_reservations_never_exceed_what_is_there(seed: int) -> None:
    chance = random.Random(seed)
    total = 16 * GB
    book, running, used = ledger.Ledger(), {}, {}
    for number in range(chance.randrange(4)):
        name, size = f"r{number}", chance.randrange(3 * GB)
        running[name], used[name] = 1, chance.randrange(size + 1)
        book.reserve(name, {"memory": size})
    free = max(0, total - sum(used.values()) - chance.randrange(2 * GB))
    candidates = [
        wanting(
            f"c{rank}",
            rank,
            ready=chance.randrange(1, 9),
            need=needs(chance.randrange(1, 8 * GB), chance.randrange(2 * GB)),
            cap=chance.choice([None, 1, 2, 4]),
            blocked_s=chance.choice([0.0, 20.0]),
        )
        for rank in range(6)
    ]
    at = world(chance.randrange(9), ledger=book, running=running, reading=reading(free, total, **used))
    lanes = at.free_lanes
    found = admission.decide(at, candidates, Rules())
    assert len(found) == len(candidates)
    assert sum(each.jobs for each in found if isinstance(each, Admit)) <= lanes
    coming = book.growth(at.reading).get("memory", 0)
    before = sum(max(0, book.reserved(name).get("memory", 0) - used[name]) for name in running)
    assert coming <= max(free, before)
    for each in found:
        if isinstance(each, Admit):
            cap = candidates[int(each.instance[1:])].cap
            assert cap is None or each.jobs <= cap


class TestPeaks:
    def test_what_one_more_job_adds_is_learned_from_any_number_at_once(self) -> None:
        peak = peaks.Peak()
        peak.fold(peaks.Sample(peaks={"memory": 3 * GB}, idle={"memory": 1 * GB}, at_once=1))
        peak.fold(peaks.Sample(peaks={"memory": 5 * GB}, at_once=2))
        assert Needs(peak.idle, peak.each).of(1) == {"memory": 3 * GB}
        assert Needs(peak.idle, peak.each).of(3) == {"memory": 7 * GB}
        peak.fold(peaks.Sample(peaks={"memory": 9 * GB}, at_once=2))
        assert Needs(peak.idle, peak.each).of(2) == {"memory": 9 * GB}
        assert peak.most == {"memory": 9 * GB}
        assert round(peak.mean["memory"]) == round(17 / 3 * GB)

    def test_jobs_are_counted(self) -> None:
        peak = peaks.Peak()
        peak.count(1.0, succeeded=True, usage={"tokens": 3})
        peak.count(3.0, succeeded=False, usage={"tokens": 4})
        assert (peak.jobs, peak.success_rate, peak.duration_s) == (2, 0.5, 2.0)
        assert peak.usage == {"tokens": 7}
        assert not peak.is_measured


def half(count: int) -> bytes:
    return b"\x80" + bytes(count - 1)


class TestRetries:
    def again(self, category: str, origin: retries.Origin, **more: Any) -> retries.Again | None:
        given: dict[str, Any] = {"attempt": 1, "policy": ONCE, "idempotent": False, **more}
        error: Mapping[str, Any] = {"category": category, "code": "x", **given.pop("error", {})}
        return retries.again(error, origin, randomness=half, **given)

    def test_a_job_is_not_tried_again_unasked(self) -> None:
        for category in ("transient", "fatal", "user_input"):
            for origin in (retries.Origin.PLUGIN, retries.Origin.WORKER, retries.Origin.TIMEOUT):
                assert self.again(category, origin) is None

    def test_a_lost_worker_only_when_that_does_no_harm(self) -> None:
        policy = RetryPolicy(max_attempts=3)
        assert self.again("transient", retries.Origin.WORKER, policy=policy) is None
        found = self.again("transient", retries.Origin.WORKER, policy=policy, idempotent=True)
        assert found is not None
        assert found.because == "worker_lost"

    def test_a_plugin_that_says_it_lacked_memory_gets_one_more_try(self) -> None:
        found = self.again("resource", retries.Origin.PLUGIN)
        assert found is not None
        assert found.makes_room
        assert self.again("resource", retries.Origin.PLUGIN, attempt=2) is None
        assert self.again("resource", retries.Origin.WORKER) is None

    def test_what_never_began_is_no_attempt(self) -> None:
        assert self.again("fatal", retries.Origin.UNBEGUN, attempt=99) == retries.Again(0.0, "not_started")
        assert self.again("transient", retries.Origin.CANCELLED, policy=THRICE, idempotent=True) is None

    def test_pauses_grow_and_are_never_longer_than_allowed(self) -> None:
        policy = RetryPolicy(max_attempts=99, first_s=1.0, factor=2.0, most_s=10.0, jitter=0.5)
        found = [retries.pause_s({}, attempt, policy, half) for attempt in (1, 2, 3, 9, 2000)]
        assert found == [0.75, 1.5, 3.0, 7.5, 7.5]
        assert retries.pause_s({"retry_after_s": 60}, 1, policy, half) == 60
