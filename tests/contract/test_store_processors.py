"""The thread that writes goes where the one that asks for it is."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from toft.store.processors import Follower

HERE = sorted(os.sched_getaffinity(0))


@pytest.fixture
def own_processors() -> Iterator[None]:
    yield
    os.sched_setaffinity(0, HERE)


@pytest.mark.skipif(not 2 <= len(HERE) <= 4, reason="needs two to four processors")
def test_it_follows_wherever_the_other_one_goes(own_processors: None) -> None:
    follower, found = Follower(), []

    def follow() -> None:
        follower.go()
        found.append(os.sched_getaffinity(0))

    for processor in (HERE[0], HERE[1], HERE[0]):
        os.sched_setaffinity(0, {processor})
        follower.see()
        thread = threading.Thread(target=follow)
        thread.start()
        thread.join()
    assert found == [{HERE[0]}, {HERE[1]}, {HERE[0]}]


def test_a_thread_that_may_not_go_stays(own_processors: None) -> None:
    follower = Follower()
    follower._seen = 4000  # no machine has it, so the system refuses
    before = os.sched_getaffinity(0)
    follower.go()
    assert os.sched_getaffinity(0) == before
    follower.see()
    follower.go()
    assert os.sched_getaffinity(0) == before
