"""Simulations bring a loop of their own, in which nothing can block: threads are run in line."""

import gc
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def event_loop_may_not_block() -> None:
    """Take the place of the guard for real loops, which costs a third of a simulated step."""


@pytest.fixture(autouse=True)
def killed_nodes_die_quietly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Coroutines of a killed node end when they are collected, which is no failure of anybody."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    yield
    gc.collect()
