"""When something that comes again is due, whatever the expression and the clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toft.kernel.errors import UsageError
from toft.kernel.timetable import MOST_COUNTED, Timetable, Turn


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_a_cron_expression_is_due_in_utc_and_what_was_missed_is_one_turn() -> None:
    nightly = Timetable(cron="30 4 * * *")
    assert nightly.following(at("2026-11-27 04:29:59")) == at("2026-11-27 04:30")
    assert nightly.following(at("2026-11-27 04:30")) == at("2026-11-28 04:30")
    assert nightly.latest(at("2026-11-27 04:00"), at("2026-11-27 04:29:59")) is None
    assert nightly.latest(at("2026-11-27 04:00"), at("2026-11-27 04:29:59") + 0.5) is None
    assert nightly.latest(at("2026-11-27 04:00"), at("2026-11-27 04:30")) == Turn(at("2026-11-27 04:30"))
    assert nightly.latest(at("2026-11-27 04:30"), at("2026-11-27 09:00")) is None
    assert nightly.latest(at("2026-11-24 04:30"), at("2026-11-27 09:00")) == Turn(at("2026-11-27 04:30"), 2)
    often = Timetable(cron="* * * * *").latest(at("2020-01-01"), at("2026-01-01"))
    assert often == Turn(at("2026-01-01"), MOST_COUNTED)


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* * 31 2 *",
        "*/0 * * * *",
        "a b c d e",
        "* * * * ²",
        "@daily",
    ],
)
def test_what_is_no_expression_or_never_comes_is_refused(cron: str) -> None:
    with pytest.raises(UsageError) as caught:
        Timetable(cron=cron).check(0.0)
    assert caught.value.code == "schedule.cron"


@given(st.text(st.sampled_from("0123456789*/,-#LW ²A\x00"), max_size=40))
def test_no_text_does_anything_but_mean_something_or_be_refused(cron: str) -> None:
    table = Timetable(cron=cron)
    try:
        table.check(0.0)
    except UsageError:
        return
    due = table.following(1e9)
    assert due is not None
    assert due > 1e9


@given(
    st.sampled_from(["*/7 * * * *", "0 */5 * * *", "15 3 1,15 * *", "0 0 29 2 *", "0 12 * * 1-5"]),
    st.floats(0, 4e9),
    st.floats(0, 4e6),
)
def test_the_latest_turn_is_the_one_a_patient_count_finds(cron: str, since: float, passed: float) -> None:
    table = Timetable(cron=cron)
    found = table.latest(since, since + passed)
    due, count = table.following(since), 0
    last = None
    while due is not None and due <= since + passed and count <= MOST_COUNTED:
        last, count, due = due, count + 1, table.following(due)
    if count > MOST_COUNTED:
        assert found is not None
        assert found.missed == MOST_COUNTED
    else:
        assert found == (None if last is None else Turn(last, count - 1))


def test_an_interval_counts_from_the_turn_before_and_does_not_drift() -> None:
    table = Timetable(every_s=60)
    assert table.latest(1000.0, 1059.9) is None
    assert table.latest(1000.0, 1061.5) == Turn(1060.0)
    assert table.latest(1000.0, 1000.0 + 86_400) == Turn(1000.0 + 86_400, MOST_COUNTED)


def test_a_clock_that_was_set_back_by_far_begins_anew_and_a_small_step_does_nothing_twice() -> None:
    hourly = Timetable(every_s=3600)
    assert not hourly.is_ahead(10_000.0, 9_000.0)
    assert hourly.is_ahead(1e9, 1e6)
    assert Timetable(every_s=1).is_ahead(100.0, 90.0), "else it would be silent for ten turns"
    assert hourly.latest(1e12, 1e12 + 1e6) is None, "no date is so far away"
