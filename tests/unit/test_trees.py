"""What is recorded of an environment, and how every change of it is noticed."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toft.managed import seen, trees
from toft.managed.moments import Moment

HASH = "0123456789abcdef" * 2


@pytest.fixture
def home(tmp_path: Path) -> Path:
    environment = tmp_path / "environments" / HASH
    (environment / "lib" / "empty").mkdir(parents=True)
    (environment / "lib" / "ocr.py").write_text("VERSION = 1\n")
    (environment / "bin").mkdir()
    (environment / "bin" / "python").symlink_to("/usr/bin/python3")
    told = {"schema": 1, "python": "/x", "created_at": "2026", "size_bytes": 7, "origin": "here"}
    (environment / trees.RECORD).write_text(json.dumps(told))
    return tmp_path


def kept(home: Path) -> dict[str, str]:
    digest = trees.Trees(home).keep(HASH, {"code": {"name": "ocr"}})
    return trees.Artifact(name="ocr", version="1", sha256="0" * 64, tree=HASH, tree_sha256=digest).to_dict()


def test_what_was_recorded_is_found_and_whole(home: Path) -> None:
    artifact = kept(home)
    assert trees.Trees(home).problem(artifact) == ""
    found = trees.Trees(home).pinned([artifact])["ocr"]
    assert (found.problem, found.manifest) == ("", {"code": {"name": "ocr"}})
    assert trees.Trees(home).keep(HASH, {"code": {"name": "ocr"}}) == artifact["tree_sha256"]


def _record(environment: Path, **changes: Any) -> None:
    path = environment / trees.RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda at: (at / "lib" / "ocr.py").write_text("VERSION = 2\n"),
    "mode": lambda at: (at / "lib" / "ocr.py").chmod(0o755),
    "more": lambda at: (at / "lib" / "sitecustomize.py").write_text(""),
    "less": lambda at: (at / "lib" / "ocr.py").unlink(),
    "directory": lambda at: (at / "lib" / "more").mkdir(),
    "link": lambda at: ((at / "bin" / "python").unlink(), (at / "bin" / "python").symlink_to("/bin/sh")),
    "link for file": lambda at: ((at / "lib" / "ocr.py").unlink(), (at / "lib" / "ocr.py").symlink_to("x")),
    "pipe for file": lambda at: ((at / "lib" / "ocr.py").unlink(), os.mkfifo(at / "lib" / "ocr.py")),
    "interpreter": lambda at: _record(at, python="/y"),
    "record": lambda at: (at / trees.RECORD).write_text("{"),
    "record is a list": lambda at: (at / trees.RECORD).write_text("[]"),
    "gone": lambda at: at.rename(at.with_name("elsewhere")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_noticed(home: Path, change: Callable[[Path], object]) -> None:
    artifact = kept(home)
    change(home / "environments" / HASH)
    assert "ocr" in trees.Trees(home).problem(artifact)


def test_when_it_was_built_is_no_change(home: Path) -> None:
    artifact = kept(home)
    _record(home / "environments" / HASH, created_at="2027", size_bytes=8, origin="elsewhere")
    assert trees.Trees(home).problem(artifact) == ""


@pytest.mark.parametrize("name", ["tree", "tree_sha256"])
@pytest.mark.parametrize("value", ["", "..", "../../etc", "f" * 64])
def test_a_slot_that_somebody_edited_names_nothing(home: Path, name: str, value: str) -> None:
    artifact = {**kept(home), name: value}
    assert trees.Trees(home).problem(artifact)
    assert trees.Trees(home).pinned([artifact])["ocr"].problem


def test_a_damaged_record_is_noticed(home: Path) -> None:
    artifact = kept(home)
    path = trees.Trees(home).directory / f"{HASH}.{artifact['tree_sha256']}.json"
    path.write_bytes(path.read_bytes().replace(b"ocr", b"OCR"))
    assert "damaged" in trees.Trees(home).problem(artifact)
    assert "damaged" in trees.Trees(home).pinned([artifact])["ocr"].problem


def test_what_did_not_change_since_the_machine_started_is_not_read_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = kept(home)
    environment = home / "environments" / HASH
    moment = Moment("first", 100.0, (environment / "lib" / "ocr.py").stat().st_ctime + 10)
    read: list[str] = []

    def digest(path: str, name: str, found: os.stat_result) -> str:
        read.append(name)
        return whole(path, name, found)

    whole = trees.digest
    monkeypatch.setattr(trees, "digest", digest)

    def problem(now: Moment) -> str:
        read.clear()
        survey = seen.Remembered(home / "managed" / "store" / "seen", lambda: now)
        return trees.Trees(home, survey=survey).problem(artifact)

    assert problem(moment) == ""
    assert read == ["environment.json", "lib/ocr.py"]
    assert (problem(moment), read) == ("", [])
    # the same length, and a time stamp that was set back: the time of the change itself cannot be
    path = environment / "lib" / "ocr.py"
    before = path.stat()
    path.write_text("VERSION = 2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "lib/ocr.py differs" in problem(moment)
    assert read == ["lib/ocr.py"]
    path.write_text("VERSION = 1\n")
    assert problem(moment) == ""
    fresh = dataclasses.replace(moment, wall_s=path.stat().st_ctime + 1)
    assert problem(fresh) == ""
    assert (problem(fresh), read) == ("", ["environment.json", "lib/ocr.py"]), "it may change within a tick"
    assert (problem(moment), len(read)) == ("", 2)
    assert (problem(moment), len(read)) == ("", 0)
    assert (problem(dataclasses.replace(moment, machine="second")), len(read)) == ("", 2)
    assert (problem(dataclasses.replace(moment, machine="")), len(read)) == ("", 2)
    (home / "managed" / "store" / "seen" / f"{HASH}.json").write_text("[]")
    assert (problem(moment), len(read)) == ("", 2)
