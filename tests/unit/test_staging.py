"""What becomes of an offer: what is done once, what is held against nobody, and what writes nothing."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.file_system import Disk

from toft.daemon.pulling import Pulling
from toft.kernel.errors import ConflictError, UnavailableError
from toft.managed import document, gates, generations, install_errors, phases, staging
from toft.managed.document import Document, DocumentError
from toft.managed.install_errors import InstallError
from toft.managed.moments import Moment
from toft.managed.trees import Artifact

NOW = Moment("machine", 1000.0, 1_700_000_000.0)
PIN = {
    "version": "1.0",
    "filename": "ocr_plugin-1.0-py3-none-any.whl",
    "sha256": "0" * 64,
    "size_bytes": 5,
}


def text(revision: int, **more: Any) -> bytes:
    return document.encode({"schema_version": 1, "revision": revision, **more})


class Gated:
    """Counts how often a document is checked."""

    checks = 0

    @property
    def allowed(self) -> gates.Allowed:
        self.checks += 1
        return gates.Allowed()

    async def baseline(self, offered: Document) -> Mapping[str, str]:
        return {}


class Installer:
    """Finds the wheels of some revisions to be bad for good, and counts how often it looked."""

    def __init__(self, *bad: int) -> None:
        self._bad = bad
        self.installs: list[int | None] = []

    @contextlib.asynccontextmanager
    async def installed(self, offered: Document) -> AsyncGenerator[Sequence[Artifact]]:
        self.installs.append(offered.revision)
        if offered.revision in self._bad:
            raise install_errors.mismatch("another file than was pinned")
        yield ()


class Node:
    """A node on a disk in memory that counts its steps; revision 1 runs, and has proven itself."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.engine = generations.Generations(Path("/home/managed"), lambda: NOW, self.disk)
        self.engine.boot("first")
        self.engine.commit(generations.offer(text(1), revision=1, poll_interval_s=40.0), "another")
        self.boot = self.engine.boot("running")
        assert self.engine.confirm(self.boot)
        self.gated = Gated()
        self.installer = Installer()
        self.restarts = 0

    async def stage(self, data: bytes, **more: Any) -> staging.Staged:
        given = {"installer": self.installer, "gated": self.gated, **more}
        offered = document.parse(data)
        return await staging.stage(self.engine, offered, nonce="running", source="https://c.example", **given)

    def pulling(self) -> Pulling:
        def restart() -> None:
            self.restarts += 1

        return Pulling(self.engine, self.boot, document.parse(self.boot.document), restart, gated=self.gated)

    @property
    def active(self) -> str:
        standing = self.engine.read()
        return standing.slots[standing.active or ""].meta.etag

    @property
    def bad(self) -> list[str]:
        return [each.reason for each in self.engine.read().state.bad]


@pytest.fixture
def node() -> Node:
    return Node()


async def pull(pulling: Pulling, data: bytes) -> staging.Staged:
    etag = document.etag_of(data)
    return await pulling.stage(data, etag, source="https://c.example", attempt=0, revision=2, signatures="")


async def test_what_runs_is_not_written_again(node: Node) -> None:
    steps = node.disk.steps
    for _ in range(3):
        staged = await node.stage(text(1))
        assert (staged.action, staged.etag, staged.slot) == ("noop_same_etag", node.active, "")
        pulled = await pull(node.pulling(), text(1))
        assert pulled.action == "noop_same_etag"
    assert node.disk.steps == steps
    assert (node.gated.checks, node.installer.installs, node.restarts) == (0, [], 0)


async def test_what_is_bad_is_checked_once_and_the_next_one_is_tried(node: Node) -> None:
    wrong = text(2, health={"gates": {"web": {"kind": "http", "url": "http://intranet.example/"}}})
    with pytest.raises(DocumentError):
        await node.stage(wrong)
    steps = node.disk.steps
    for _ in range(9):
        staged = await node.stage(wrong)
        assert staged.action == "skipped_bad_etag"
        assert staged.held_back
        assert staged.held_back.reason == "validation_failed"
        assert "intranet.example" in staged.held_back.detail
    assert (node.gated.checks, node.disk.steps) == (1, steps)
    assert node.bad == ["validation_failed"]
    assert (await node.stage(text(3))).action == "applied"
    assert node.active == document.etag_of(text(3))
    assert node.bad == ["validation_failed"]


async def test_who_is_to_end_takes_nothing_more(node: Node) -> None:
    pulling = node.pulling()
    assert (await pull(pulling, text(2))).action == "applied"
    steps, active = node.disk.steps, node.active
    for data in (text(3), text(2), b"{"):
        with pytest.raises(ConflictError) as caught:
            await pull(pulling, data)
        assert caught.value.code == "generation.restart_pending"
    assert (node.disk.steps, node.active, node.restarts, node.bad) == (steps, active, 1, [])


async def test_while_nobody_can_install_yet_nothing_is_held_against_a_document(node: Node) -> None:
    data, steps = text(2, plugins={"ocr": PIN}), node.disk.steps
    with pytest.raises(UnavailableError) as caught:
        await node.stage(data, installer=None)
    assert caught.value.code == "generation.apply_engine_not_ready"
    assert (node.bad, node.disk.steps) == ([], steps)
    assert (await node.stage(data)).action == "applied"
    assert node.installer.installs == [2]


async def test_a_mebibyte_is_staged_and_one_byte_more_is_not(node: Node) -> None:
    whole = text(2, **{"x-a": ""})
    whole = text(2, **{"x-a": "a" * (document.MAX_BYTES - len(whole))})
    assert len(whole) == 1024 * 1024
    longer = whole + b"\n"
    before, pulling = node.active, node.pulling()
    for _ in range(2):
        with pytest.raises(DocumentError) as caught:
            await pull(pulling, longer)
        assert caught.value.code == "document.too_large"
        assert node.bad == ["validation_failed"]
    assert node.active == before
    assert (await pull(pulling, whole)).action == "applied"
    assert node.active == document.etag_of(whole)


async def test_a_full_disk_is_held_against_no_document(node: Node) -> None:
    told = []
    for number in range(1, 100):
        node = Node()
        before = node.active
        node.disk.fail_at = node.disk.steps + number
        try:
            await node.stage(text(2))
        except UnavailableError as error:
            told.append((error.code, error.details["errno"]))
        else:
            break
        assert node.bad == [], number
        if node.active == before:
            assert (await node.stage(text(2))).action == "applied", number
        assert node.engine.boot("next").etag == document.etag_of(text(2)), (
            "also when only the last sync failed"
        )
    assert len(told) > 10, "the slot, the journal, and what points to the slot"
    assert set(told) == {("generation.apply_io_error", errno.ENOSPC)}


async def test_of_bad_documents_that_alternate_each_is_tried_once(node: Node) -> None:
    node.installer = Installer(2, 3, 4)
    told = []
    for _ in range(4):
        for revision in (2, 3, 4):
            try:
                told.append((await node.stage(text(revision, plugins={"ocr": PIN}))).action)
            except InstallError as error:
                told.append(error.kind)
    assert told == ["artifact_hash_mismatch"] * 3 + ["skipped_bad_etag"] * 9
    assert node.installer.installs == [2, 3, 4]
    assert node.bad == ["artifact_hash_mismatch"] * 3
    assert all(each.severity is phases.Severity.PERMANENT for each in node.engine.read().state.bad)
    assert (await node.stage(text(5, plugins={"ocr": PIN}))).action == "applied"
