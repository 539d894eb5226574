"""The two doors have the same words, and the page names every one of them."""

import inspect
from pathlib import Path

import pytest

import toft
from toft import blocking
from toft.dispatch import jobs
from toft.plugins import installed, instance, node
from toft.plugins.supervision import calls, chunks

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "python-api.md").read_text(encoding="utf-8")
# What one door needs and the other does not: plumbing between the parts, and what asyncio has a protocol for.
APART = {
    "Node": {"rooms", "find", "fresh_name", "load_apart"},
    "Installed": set(),
    "Instance": {"monitor", "check_drift", "drift", "config"},
    "Call": {
        *("ask_to_end", "begin_running", "expire_after", "finish", "listen", "note_line", "note_progress"),
        *("note_usage", "when_ended", "worker_ended", "number", "progress", "message", "usage"),
        *("action", "arguments", "ended_at", "future", "grace_s", "phase", "seen_at", "started_at"),
        *("timeout_s", "worker", "is_raw", "when_cancelling", "tell_phase", "belongs_to"),
    },
    "Jobs": {"open", "close", "drain", "changed", "forget"},
    "Chunks": {"aclose", "close", "take", "usage"},
}
PAIRS = [
    (blocking.Node, node.Node),
    (blocking.Installed, installed.Installed),
    (blocking.Instance, instance.Instance),
    (blocking.Call, calls.Call),
    (blocking.Chunks, chunks.Chunks),
    (blocking.Jobs, jobs.Jobs),
]
IDS = [pair[0].__name__ for pair in PAIRS]


def words(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")} - APART[kind.__name__]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=IDS)
def test_both_doors_have_the_same_words(one: type, other: type) -> None:
    assert words(one) == words(other)


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=IDS)
def test_both_doors_take_the_same_parameters(one: type, other: type) -> None:
    for name in sorted(words(one)):
        here, there = getattr(one, name), getattr(other, name)
        if callable(here) and callable(there):
            assert list(inspect.signature(here).parameters) == list(inspect.signature(there).parameters), name


@pytest.mark.parametrize("kind", [pair[0] for pair in PAIRS], ids=IDS)
def test_every_word_is_on_the_page(kind: type) -> None:
    assert [name for name in sorted(words(kind)) if f"`{name}" not in PAGE and f" {name}(" not in PAGE] == []


def test_the_package_exports_what_it_says() -> None:
    assert toft.__all__ == sorted(toft.__all__)
    assert all(hasattr(toft, name) for name in toft.__all__)
