"""What a boot decides about code that is not what was installed; the code itself stands in for here."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from toft.managed import generations, phases
from toft.managed.generations import Generations
from toft.managed.moments import Moment

NOW = Moment("first", 1000.0, 1_700_000_000.0)


class Code:
    """Says what a test wants to be damaged, and what could be made again."""

    def __init__(self) -> None:
        self.damaged: set[str] = set()
        self.can_mend = False

    def problems(self, artifacts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        names = [str(each["name"]) for each in artifacts]
        return {name: f"{name} was changed" for name in names if name in self.damaged}

    def can_be_mended(self, document: bytes) -> bool:
        return self.can_mend


class Node:
    def __init__(self, home: Path) -> None:
        self.code = Code()
        self.engine = Generations(home / "managed", lambda: NOW, code=self.code)
        self._count = 0

    def boot(self) -> generations.Boot:
        self._count += 1
        return self.engine.boot(f"boot-{self._count}")

    def commit(self, name: str) -> generations.Boot:
        made = generations.offer(f'{{"x":"{name}"}}'.encode(), artifacts=({"name": name},))
        self.engine.commit(made, self.boot().nonce)
        return self.boot()

    def prove(self, name: str) -> str:
        boot = self.commit(name)
        assert self.engine.confirm(boot)
        return boot.etag


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_what_can_be_made_again_stays_and_is_told(node: Node) -> None:
    node.prove("old")
    etag = node.prove("new")
    node.code.damaged, node.code.can_mend = {"new"}, True
    boot = node.boot()
    assert (boot.etag, boot.damaged) == (etag, ("new",))
    assert "new was changed" in boot.notes
    adopted = node.engine.adopt(boot.nonce)
    assert adopted is not None
    assert adopted.damaged == ("new",), "the daemon behind a guard knows too"
    node.code.damaged = set()
    assert node.boot().damaged == ()


def test_what_cannot_gives_way_to_what_was_proven_and_is_whole(node: Node) -> None:
    old, new = node.prove("old"), node.prove("new")
    node.code.damaged = {"new"}
    boot = node.boot()
    assert (boot.etag, boot.damaged) == (old, ())
    state = node.engine.read().state
    assert state.rolled_back is not None
    assert (state.rolled_back.etag, state.rolled_back.reason) == (new, "slot_corrupt")
    assert state.bad == ()
    assert node.boot().etag == old
    # and what comes next comes beside it
    node.code.damaged = set()
    node.prove("next")
    assert node.engine.revert(phases.OPERATOR, phases.Severity.PERMANENT)
    assert node.boot().etag == old


def test_damaged_on_trial_ends_the_trial_and_condemns_nobody(node: Node) -> None:
    old = node.prove("old")
    tried = node.commit("tried")
    node.code.damaged = {"tried"}
    boot = node.boot()
    assert (boot.etag, boot.trial) == (old, None)
    state = node.engine.read().state
    assert state.rolled_back is not None
    assert (state.rolled_back.etag, state.rolled_back.reason) == (tried.etag, "slot_corrupt")
    assert state.bad == ()
    assert not node.engine.confirm(tried)


def test_with_nothing_whole_the_document_stays_for_the_sake_of_whom_it_asks(node: Node) -> None:
    node.prove("old")
    new = node.prove("new")
    node.code.damaged = {"old", "new"}
    boot = node.boot()
    assert (boot.etag, boot.damaged) == (new, ("new",))


def test_the_first_document_on_trial_goes_back_to_the_base(node: Node) -> None:
    first = node.commit("first")
    node.code.damaged = {"first"}
    assert first.etag
    assert node.boot().etag == ""


def test_mending_that_failed_goes_back_and_holds_nothing_against_the_document(node: Node) -> None:
    old, new = node.prove("old"), node.prove("new")
    assert node.engine.revert("slot_corrupt", None, "another Python is here")
    assert node.boot().etag == old
    state = node.engine.read().state
    assert phases.find_bad(state, new) is None
    assert not state.pinned
