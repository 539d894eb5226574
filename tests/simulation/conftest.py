"""Simulations bring a loop of their own, in which nothing can block: threads are run in line."""

import pytest


@pytest.fixture(autouse=True)
def event_loop_may_not_block() -> None:
    """Take the place of the guard for real loops, which costs a third of a simulated step."""
