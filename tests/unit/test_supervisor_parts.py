"""The parts a supervisor is made of, without any process."""

import itertools

import pytest

from toft.kernel import clock, errors
from toft.plugins import errors as faults
from toft.plugins.supervision import gate, restart, states


def make_gate(cap: int | None = 1, limit: int = 2) -> tuple[gate.Gate[str], list[str]]:
    started: list[str] = []
    made = gate.Gate("ocr", started.append, cap=cap, limit=limit)
    made.open()
    return made, started


def test_calls_up_to_the_cap_start_at_once_and_the_rest_in_order() -> None:
    door, started = make_gate(cap=2, limit=10)
    for name in "abcde":
        door.enter(name)
    assert started == ["a", "b"]
    assert (door.running, door.waiting) == (2, 3)
    door.leave()
    assert started == ["a", "b", "c"]
    door.leave()
    door.leave()
    assert started == list("abcde")


def test_an_unbounded_gate_lets_everybody_through() -> None:
    door, started = make_gate(cap=None)
    for number in range(100):
        door.enter(str(number))
    assert len(started) == 100


def test_more_waiting_calls_than_allowed_are_answered_busy() -> None:
    door, _ = make_gate(cap=1, limit=2)
    for name in "abc":
        door.enter(name)
    with pytest.raises(faults.BusyError) as caught:
        door.enter("one too many")
    assert caught.value.code == "instance.busy"
    assert caught.value.details == {"running": 1, "waiting": 2, "cap": 1}


def test_a_newcomer_never_overtakes_those_who_wait() -> None:
    door, started = make_gate(cap=1, limit=10)
    door.close()
    door.enter("first")
    door.open()
    door.enter("second")
    assert started == ["first"]


def test_a_withdrawn_call_never_starts() -> None:
    door, started = make_gate(cap=1)
    door.enter("a")
    door.enter("b")
    assert door.withdraw("b") is True
    assert door.withdraw("a") is False
    door.leave()
    assert started == ["a"]


def test_a_closed_gate_keeps_places() -> None:
    door, started = make_gate(cap=1, limit=10)
    for name in "abc":
        door.enter(name)
    door.close()
    door.leave()
    assert started == ["a"]
    door.open()
    assert started == ["a", "b"]


def test_draining_takes_everybody_out_in_order() -> None:
    door, _ = make_gate(cap=1, limit=10)
    for name in "abc":
        door.enter(name)
    assert door.drain() == ["b", "c"]
    assert door.waiting == 0


def test_pauses_double_up_to_the_longest_and_then_it_stays_down() -> None:
    now = clock.ManualClock()
    restarts = restart.Restarts(restart.RestartPolicy(first_s=1, most_s=5, limit=6), now)
    assert [restarts.died() for _ in range(6)] == [1, 2, 4, 5, 5, None]
    assert restarts.total == 6


def test_a_worker_that_lived_long_enough_starts_the_row_anew() -> None:
    now = clock.ManualClock()
    restarts = restart.Restarts(restart.RestartPolicy(first_s=1, healthy_s=60, limit=3), now)
    assert restarts.died() == 1
    restarts.ready()
    now.advance(59)
    assert restarts.died() == 2
    restarts.ready()
    now.advance(60)
    assert restarts.died() == 1


def test_forgiveness_gives_all_tries_back() -> None:
    restarts = restart.Restarts(restart.RestartPolicy(limit=2), clock.ManualClock())
    assert restarts.died() is not None
    assert restarts.died() is None
    restarts.forgive()
    assert restarts.died() is not None


def test_only_the_transitions_in_the_table_are_possible() -> None:
    for old, new in itertools.product(states.State, states.State):
        lifecycle = states.Lifecycle(clock.ManualClock())
        lifecycle.state = old
        if new in states.NEXT[old]:
            lifecycle.move(new)
            assert lifecycle.state is new
        else:
            with pytest.raises(errors.ConflictError):
                lifecycle.move(new)
            assert lifecycle.state is old


def test_every_state_can_end() -> None:
    for start in states.State:
        reached, frontier = {start}, [start]
        while frontier:
            for following in states.NEXT[frontier.pop()] - reached:
                reached.add(following)
                frontier.append(following)
        assert states.State.STOPPED in reached


def test_a_transition_says_since_when_and_why() -> None:
    now = clock.ManualClock()
    seen: list[tuple[str, str]] = []
    lifecycle = states.Lifecycle(now, lambda old, new: seen.append((old, new)))
    now.advance(5)
    lifecycle.move(states.State.READY, "loaded", {"pid": 7})
    assert lifecycle.since == now.now()
    assert (lifecycle.reason, lifecycle.evidence) == ("loaded", {"pid": 7})
    assert seen == [("starting", "ready")]


def test_an_out_of_memory_death_is_a_resource_error_and_others_are_transient() -> None:
    assert faults.WorkerLostError("x", code="worker.out_of_memory").category == "resource"
    assert faults.WorkerLostError("x", code="worker.crashed").category == "transient"
