"""The file store keeps its file private, survives a stop at any step, and says what is wrong with it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from toft.kernel.errors import IntegrityError, NodeError, RefusedError, UnavailableError
from toft.secrets.file_store import FileSecretStore
from toft.store import durable


class PowerCutError(BaseException):
    """The world stops here; no handler of the program runs to tidy up."""


class StoppingOperations(durable.SystemOperations):
    """Does the first `steps` operations; the next one happens half or not at all, then the world stops."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.done: list[str] = []

    def _step(self, name: str) -> None:
        if self.left == 0:
            raise PowerCutError(name)
        self.left -= 1
        self.done.append(name)

    def write(self, path: str, data: bytes, mode: int) -> None:
        try:
            self._step("write")
        except PowerCutError:
            durable.SYSTEM.write(path, data[: len(data) // 2], mode)
            raise
        durable.SYSTEM.write(path, data, mode)

    def rename(self, source: str, target: str) -> None:
        self._step("rename")
        durable.SYSTEM.rename(source, target)

    def sync_directory(self, path: str) -> None:
        self._step("sync_directory")
        durable.SYSTEM.sync_directory(path)

    def remove(self, path: str) -> None:
        self._step("remove")
        durable.SYSTEM.remove(path)


class FullDisk(StoppingOperations):
    """Every write meets a full disk."""

    def __init__(self) -> None:
        super().__init__(100)

    def write(self, path: str, data: bytes, mode: int) -> None:
        durable.SYSTEM.write(path, data[:3], mode)
        raise OSError(28, "No space left on device", path)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_is_0600_in_a_directory_of_0700_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        FileSecretStore(tmp_path / "home" / "secrets").set("ocr", "KEY", "value")
    finally:
        os.umask(old)
    assert mode_of(tmp_path / "home" / "secrets") == 0o700
    assert mode_of(tmp_path / "home" / "secrets" / "secrets.json") == 0o600
    assert {path.name for path in (tmp_path / "home" / "secrets").iterdir()} == {"secrets.json", "lock"}


@pytest.mark.parametrize("delete", [False, True])
def test_a_stop_at_any_step_leaves_the_old_or_the_new_secrets_whole(tmp_path: Path, delete: bool) -> None:
    stops = 0
    for step in range(10):
        directory = tmp_path / str(step)
        FileSecretStore(directory).set("ocr", "KEPT", "kept-value")
        FileSecretStore(directory).set("ocr", "KEY", "old-value")
        stopping = FileSecretStore(directory, operations=StoppingOperations(step))
        stopped = False
        try:
            if delete:
                stopping.delete("ocr", "KEY")
            else:
                stopping.set("ocr", "KEY", "new-value")
        except PowerCutError:
            stopped = True
            stops += 1
        after = FileSecretStore(directory)
        assert after.get("ocr", "KEPT") == "kept-value"
        wanted = None if delete else "new-value"
        assert after.find("ocr", "KEY") in (("old-value", wanted) if stopped else (wanted,))
        after.set("ocr", "MORE", "more-value")
        assert {path.name for path in directory.iterdir()} == {"secrets.json", "lock"}
        if not stopped:
            break
    assert stops >= 3, "write, rename and sync of the directory were each stopped once"


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    FileSecretStore(tmp_path / "s").set("ocr", "KEY", "old-value")
    with pytest.raises(UnavailableError) as caught:
        FileSecretStore(tmp_path / "s", operations=FullDisk()).set("ocr", "KEY", "new-value")
    assert caught.value.code == "secret.not_stored"
    assert "No space left" in caught.value.message
    assert FileSecretStore(tmp_path / "s").get("ocr", "KEY") == "old-value"
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"secrets.json", "lock"}


def test_rights_of_others_are_taken_away_and_told_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    store = FileSecretStore(tmp_path / "s", on_warning=warnings.append)
    store.set("ocr", "KEY", "value")
    (tmp_path / "s").chmod(0o755)
    (tmp_path / "s" / "secrets.json").chmod(0o644)
    assert store.get("ocr", "KEY") == "value"
    assert store.get("ocr", "KEY") == "value"
    assert mode_of(tmp_path / "s") == 0o700
    assert mode_of(tmp_path / "s" / "secrets.json") == 0o600
    assert len(warnings) == 2
    assert "0755" in warnings[0]
    assert "0644" in warnings[1]
    assert "value" not in "".join(warnings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    FileSecretStore(tmp_path / "s").set("ocr", "KEY", "value")
    os.chown(tmp_path / "s" / "secrets.json", 12345, -1)
    with pytest.raises(RefusedError) as caught:
        FileSecretStore(tmp_path / "s").get("ocr", "KEY")
    assert caught.value.code == "secret.store_unsafe"
    assert "12345" in caught.value.message
    assert "chown" in caught.value.hint


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_link_in_the_place_of_the_store_is_refused(tmp_path: Path, what: str) -> None:
    FileSecretStore(tmp_path / "real").set("ocr", "KEY", "value")
    if what == "directory":
        (tmp_path / "s").symlink_to(tmp_path / "real")
    else:
        (tmp_path / "s").mkdir(mode=0o700)
        (tmp_path / "s" / "secrets.json").symlink_to(tmp_path / "real" / "secrets.json")
    with pytest.raises(RefusedError) as caught:
        FileSecretStore(tmp_path / "s").get("ocr", "KEY")
    assert caught.value.code == "secret.store_unsafe"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"schema": 1, "scopes": {"__default__": {"ocr": {"KEY": "sup',
        b"[]",
        b'{"schema": 1, "scopes": {"__default__": {"ocr": {"KEY": 5}}}}',
        b'{"schema": 99, "scopes": {}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_named_never_quoted_and_never_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    path = tmp_path / "s" / "secrets.json"
    path.write_bytes(content)
    path.chmod(0o600)
    store = FileSecretStore(tmp_path / "s")
    for ask in (lambda: store.find("ocr", "KEY"), lambda: store.set("ocr", "KEY", "value")):
        with pytest.raises(IntegrityError) as caught:
            ask()
        assert caught.value.code == "secret.store_damaged"
        assert str(path) in caught.value.message
        assert "sup" not in json.dumps(caught.value.to_dict()).replace(str(path), "")
    assert path.read_bytes() == content


def test_reading_where_nothing_was_stored_makes_nothing(tmp_path: Path) -> None:
    store = FileSecretStore(tmp_path / "s")
    assert store.list_plugins() == []
    with pytest.raises(NodeError):
        store.delete("ocr", "KEY")
    assert list(tmp_path.iterdir()) == []
