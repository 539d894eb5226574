"""Setting up a micromamba of the node's own: from where it is told, whole or not at all, nowhere else."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from toft.kernel import errors
from toft.plugins.environments import environment_errors, micromamba

PROGRAM = b"#!/bin/sh\necho 2.0.0\n"


def archive(path: Path, *members: tuple[str, bytes | str]) -> Path:
    with tarfile.open(path, "w:bz2") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return path


def own(tmp_path: Path, source: Path | None, **more: str) -> micromamba.Micromamba:
    options = micromamba.MicromambaOptions(
        prefix=tmp_path / "prefix", source=str(source) if source else None, sha256=more.get("sha256")
    )
    return micromamba.Micromamba(options)


async def test_an_archive_is_set_up_once_and_again_when_forced(tmp_path: Path) -> None:
    source = archive(tmp_path / "m.tar.bz2", ("info/index.json", b"{}"), ("bin/micromamba", PROGRAM))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    node = own(tmp_path, source, sha256=digest)
    path = await node.set_up()
    assert path == tmp_path / "prefix" / "bin" / "micromamba"
    assert path.read_bytes() == PROGRAM
    assert os.listdir(path.parent) == ["micromamba"]
    path.write_bytes(b"mine")
    assert await node.set_up() == path
    assert path.read_bytes() == b"mine"
    await node.set_up(force=True)
    assert path.read_bytes() == PROGRAM


async def test_an_address_and_a_bare_program_will_do(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(PROGRAM)
    options = micromamba.MicromambaOptions(
        prefix=tmp_path / "prefix", source=(tmp_path / "program").as_uri(), offline=True
    )
    assert (await micromamba.Micromamba(options).set_up()).read_bytes() == PROGRAM


async def test_without_a_source_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError) as caught:
        await own(tmp_path, None).set_up()
    assert "TOFT_MICROMAMBA_SOURCE" in caught.value.hint


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("../outside", b"x"), ("bin/micromamba", PROGRAM)], "would write to ../outside"),
        ([("/etc/outside", b"x"), ("bin/micromamba", PROGRAM)], "would write to /etc/outside"),
        ([("bin/micromamba", "/bin/sh")], "no plain file"),
        ([("bin/other", PROGRAM)], "no bin/micromamba"),
        ([("bin/micromamba", b"#!/bin/sh\nexit 3\n")], "does not run"),
    ],
)
async def test_a_bad_archive_is_refused_and_changes_nothing(
    tmp_path: Path, members: list[tuple[str, bytes | str]], said: str
) -> None:
    source = archive(tmp_path / "m.tar.bz2", *members)
    with pytest.raises(environment_errors.SourceError, match=said):
        await own(tmp_path, source).set_up()
    assert not (tmp_path / "prefix" / "bin" / "micromamba").exists()
    assert [path for path in (tmp_path / "prefix").rglob("*") if path.is_file()] == []


async def test_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(PROGRAM)
    with pytest.raises(environment_errors.HashMismatchError):
        await own(tmp_path, tmp_path / "program", sha256="0" * 64).set_up()
    assert not (tmp_path / "prefix").exists()


async def test_neither_a_program_nor_an_archive(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not found")
    with pytest.raises(environment_errors.SourceError, match="neither"):
        await own(tmp_path, tmp_path / "text").set_up()
    with pytest.raises(environment_errors.DownloadError):
        await own(tmp_path, tmp_path / "nothing").set_up()
