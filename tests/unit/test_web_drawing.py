"""A graph becomes a picture that can be read, and what became of each step is counted right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from toft.jobs.digests import Part
from toft.web import drawing, steps


def graph(**needs: list[str]) -> list[dict[str, Any]]:
    return [{"id": name, "needs": dict.fromkeys(each, "completed")} for name, each in needs.items()]


def test_a_step_stands_right_of_all_it_waits_for() -> None:
    picture = drawing.draw(graph(a=[], b=["a"], c=["a"], d=["b", "c"], e=["a", "d"]))
    assert picture is not None
    at = {box.step: box for box in picture.boxes}
    assert at["a"].x < at["b"].x == at["c"].x < at["d"].x < at["e"].x
    assert at["b"].y != at["c"].y
    assert {(line.source, line.target) for line in picture.lines} >= {("a", "b"), ("d", "e"), ("a", "e")}


def test_lines_that_need_not_cross_do_not() -> None:
    picture = drawing.draw(graph(a=[], b=[], x=["b"], y=["a"]))
    assert picture is not None
    at = {box.step: box.y for box in picture.boxes}
    assert (at["a"] < at["b"]) == (at["y"] < at["x"])


@pytest.mark.parametrize("count", [0, drawing.MOST_STEPS + 1])
def test_what_nobody_could_read_is_not_drawn(count: int) -> None:
    assert drawing.draw(graph(**{f"s{number}": [] for number in range(count)})) is None


@given(some.lists(some.sets(some.integers(0, 30)), max_size=30))
def test_no_two_steps_cover_each_other_and_all_are_inside(waits: list[set[int]]) -> None:
    needs = {
        f"s{at}": [f"s{each}" for each in each_waits if each < at] for at, each_waits in enumerate(waits)
    }
    picture = drawing.draw(graph(**needs))
    if picture is None:
        assert not waits
        return
    boxes = picture.boxes
    assert len(boxes) == len(needs) == len({(box.x, box.y) for box in boxes})
    for box in boxes:
        assert 0 <= box.x <= picture.width - box.width
        assert 0 <= box.y <= picture.height - box.height
    for one in boxes:
        for other in boxes:
            apart_across = abs(one.x - other.x) >= one.width
            assert one is other or apart_across or abs(one.y - other.y) >= one.height


def test_a_step_is_told_by_its_newest_job_and_its_parts() -> None:
    told = steps.described(
        [{"id": "a"}, {"id": "b", "for_each": True}, {"id": "c"}, {"id": "d"}],
        [
            Part("b", True, "failed", 1, 5, "job_5"),
            Part("b", True, "completed", 1, 4, "job_4"),
            Part("a", False, "failed", 1, 2, "job_2"),
            Part("a", False, "running", 1, 3, "job_3"),
            Part("c", False, "skipped", 1, 1, "job_1"),
        ],
    )
    assert [each["state"] for each in told.values()] == ["running", "failed", "skipped", "pending"]
    assert [each["job"] for each in told.values()] == ["job_3", None, "job_1", None]
    assert (told["b"]["parts"], told["b"]["counts"]) == (2, {"failed": 1, "completed": 1})
