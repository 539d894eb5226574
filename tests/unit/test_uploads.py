"""What is uploaded to be installed: the same bytes for the same files, and nothing unpacked that may harm."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from toft.kernel import errors, suggestions
from toft.kernel.clock import ManualClock
from toft.plugins import install
from toft.plugins.artifacts import KEPT_S, Artifacts
from toft.plugins.environments import archives, artifact_names, conda_files, elsewhere, projects, provisioning
from toft.plugins.environments.environment_errors import SourceError
from toft.plugins.environments.wishes import Wish
from toft.plugins.manifests import scalars
from toft.store import blobs, durable


def project(directory: Path) -> Path:
    (directory / "src" / "hello").mkdir(parents=True)
    (directory / "src" / "hello" / "__init__.py").write_text("X = 1\n")
    (directory / "pyproject.toml").write_text("[project]\n")
    (directory / "run.sh").write_text("true\n")
    (directory / "run.sh").chmod(0o750)
    for left_out, name in (
        (".git", "config"), (".venv", "x"), ("__pycache__", "x"), ("x.egg-info", "x"), ("own", "pyvenv.cfg"),
    ):  # fmt: skip
        (directory / left_out).mkdir()
        (directory / left_out / name).write_text("secret")
    return directory


def packed(directory: Path) -> bytes:
    file = io.BytesIO()
    archives.pack(directory, file)
    return file.getvalue()


def names(data: bytes) -> list[str]:
    return tarfile.open(fileobj=io.BytesIO(data)).getnames()


def test_a_project_is_the_same_bytes_wherever_and_whenever_it_is_packed(tmp_path: Path) -> None:
    one, two = project(tmp_path / "one"), project(tmp_path / "elsewhere" / "two")
    os.utime(two / "pyproject.toml", (1, 1))
    (two / "run.sh").chmod(0o700)
    data = packed(one)
    assert data == packed(two)
    assert names(data) == ["pyproject.toml", "run.sh", "src/hello/__init__.py"]
    target = tmp_path / "out"
    target.mkdir()
    archives.unpack(io.BytesIO(data), target)
    assert (target / "src" / "hello" / "__init__.py").read_text() == "X = 1\n"
    assert [oct((target / name).stat().st_mode & 0o777) for name in ("run.sh", "pyproject.toml")] == [
        "0o755",
        "0o644",
    ]
    (one / "new.py").write_text("")
    assert packed(one) != data


def test_what_cannot_be_sent_is_named(tmp_path: Path) -> None:
    root = project(tmp_path / "one")
    (root / "inside.py").symlink_to("src/hello/__init__.py")
    assert "inside.py" in names(packed(root))
    (tmp_path / "secret").write_text("secret")
    os.mkfifo(tmp_path / "pipe")
    for make in (
        lambda path: path.symlink_to(tmp_path / "secret"),
        lambda path: path.symlink_to("src"),
        lambda path: path.symlink_to("nothing"),
        lambda path: os.mkfifo(path),
    ):
        make(root / "odd")
        with pytest.raises(SourceError) as refused:
            packed(root)
        assert (refused.value.code, refused.value.details["path"]) == (
            "artifact.unsendable",
            str(root / "odd"),
        )
        (root / "odd").unlink()
    (root / os.fsdecode(b"\xff.py")).write_text("")
    with pytest.raises(SourceError, match="none everywhere"):
        packed(root)


def member(name: str, data: bytes = b"", **more: Any) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        for key, value in more.items():
            setattr(header, key, value)
        archive.addfile(header, io.BytesIO(data))

    return add


def tar(*members: Callable[[tarfile.TarFile], None]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for each in members:
            each(archive)
    return file.getvalue()


def _long_header() -> bytes:
    return tar(member("x", pax_headers={"comment": "x" * (3 << 20)}))


def _sparse() -> bytes:
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "x",
        "GNU.sparse.realsize": "1000",
    }
    return tar(member("x", b"1\n0\n512\n".ljust(512, b"\0") + b"y" * 512, pax_headers=headers))


def _claims_more() -> bytes:
    data = bytearray(tar(member("x", b"y")))
    data[124:136] = b"00000077777\0"
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    return bytes(data)


def _below_nothing() -> bytes:
    # A negative size, which would give back what others have used up.
    data = bytearray(tar(member("x", type=tarfile.DIRTYPE)))
    data[124:136] = b"\xff" * 10 + b"\xf6\x00"
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    return bytes(data)


def _cut_sparse() -> bytes:
    data = bytearray(tar(member("x", b"", type=tarfile.GNUTYPE_SPARSE)))
    data[482] = 1  # more of the header follows, and does not
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    return bytes(data[:612])


def _many_headers() -> bytes:
    headers = tar(member("x", pax_headers={"comment": "y"}))[:1024]
    return headers * 3000 + tar(member("x"))


def _endless_sparse() -> bytes:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"}
    return tar(member("x", b"9999999\n" + b"1\n" * (1 << 20), pax_headers=headers))


UNSAFE = {
    "up": tar(member("../x", b"y")),
    "up inside": tar(member("a/../../x", b"y")),
    "root": tar(member("/etc/x", b"y")),
    "a link": tar(member("x", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "through a link": tar(member("d", type=tarfile.SYMTYPE, linkname="/tmp"), member("d/x", b"y")),
    "a hard link": tar(member("x", type=tarfile.LNKTYPE, linkname="../x")),
    "a device": tar(member("x", type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "a pipe": tar(member("x", type=tarfile.FIFOTYPE)),
    "twice": tar(member("x", b"1"), member("x", b"2")),
    "a file as a directory": tar(member("x", b"1"), member("x/y", b"2")),
    "a file, then a directory": tar(member("x", b"1"), member("x", type=tarfile.DIRTYPE)),
    "a directory as a file": tar(member("x", type=tarfile.DIRTYPE), member("x", b"2")),
    "no name": tar(member("", b"y")),
    "a new line": tar(member("a\nb", b"y")),
    "an escape": tar(member("a\x1b[31m", b"y")),
    "a long name": tar(member("a" * 300, b"y")),
    "deep": tar(member("/".join("a" * 70), b"y")),
    "back": tar(member("a\\..\\b", b"y")),
    "half": tar(member("x", b"y" * 5000))[:3000],
    "claims more": _claims_more(),
    "a long header": _long_header(),
    "sparse": _sparse(),
    "a cut sparse header": _cut_sparse(),
    "an endless sparse header": _endless_sparse(),
    "many headers": _many_headers(),
    "below nothing": _below_nothing(),
    "longer than any path": tar(member("/".join(["a" * 250] * 20), b"y")),
    "packed tight": gzip.compress(tar(member("x", b"y"))),
    "no tar": b"hello" * 1000,
    "a wheel": b"PK\x03\x04" + b"\0" * 2000,
}


@pytest.mark.parametrize("what", UNSAFE)
def test_a_tar_that_no_project_is_leaves_nothing_outside_of_its_directory(tmp_path: Path, what: str) -> None:
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    with pytest.raises(SourceError) as refused:
        archives.unpack(io.BytesIO(UNSAFE[what]), target)
    assert (refused.value.code, "\n" in refused.value.message) == ("artifact.unsafe", False)
    found = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert all(path.is_relative_to(target) and not path.is_symlink() for path in found), found


@pytest.mark.parametrize("what", ["a long header", "an endless sparse header"])
def test_headers_are_not_read_without_end(tmp_path: Path, what: str) -> None:
    with pytest.raises(SourceError, match="headers is too large"):
        archives.unpack(io.BytesIO(UNSAFE[what]), tmp_path)


def test_so_many_files_and_so_many_bytes(tmp_path: Path) -> None:
    def unpack(data: bytes, **most: int) -> None:
        target = tmp_path / str(len(list(tmp_path.iterdir())))
        target.mkdir()
        archives.unpack(io.BytesIO(data), target, **most)

    data = tar(*(member(f"{number}", b"y" * 100) for number in range(10)))
    unpack(data, most_bytes=1000, most_files=10)
    for most in ({"most_bytes": 999}, {"most_files": 9}):
        with pytest.raises(errors.RefusedError) as refused:
            unpack(data, **most)
        assert refused.value.code == "artifact.too_large"


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_wheel_is_read_whole_before_anybody_installs_it(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    archives.check_wheel(wheel(path, {"x.py": b"1"}))
    for bad in (b"", b"PK", path.read_bytes()[:-30], path.read_bytes().replace(b"x.py", b"/x.p")):
        path.write_bytes(bad)
        with pytest.raises(SourceError) as refused:
            archives.check_wheel(path)
        assert refused.value.code == "artifact.unsafe"
    with pytest.raises(errors.RefusedError) as much:
        archives.check_wheel(wheel(path, {"x.py": b"\0" * 5_000_000}), most_bytes=1_000_000)
    assert much.value.code == "artifact.too_large"
    # One that says of itself that it is small, and is not.
    data = bytearray(wheel(path, {"x.py": b"\0" * 5_000_000}).read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24
    data[place : place + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SourceError):
        archives.check_wheel(path, most_bytes=1_000_000)


def test_a_small_wheel_does_not_unfold_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "x-1-py3-none-any.whl"
    about = "x-1.dist-info/METADATA"
    assert projects.requires_python(wheel(path, {about: b"Requires-Python: >=3.9\n"})) == ">=3.9"
    wheel(path, {about: b"Requires-Python: >=3.9\n" + b"x" * (5 << 20)})
    archives.check_wheel(path)
    with pytest.raises(SourceError, match="METADATA is larger"):
        projects.requires_python(path)
    for packed_as in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", packed_as) as archive:
            archive.writestr(about, b"x")
        with pytest.raises(SourceError, match="packed as no wheel"):
            archives.check_wheel(path)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(150):
            each = zipfile.ZipInfo(f"{number}")
            each.comment = b"x" * 60_000
            archive.writestr(each, b"")
    with pytest.raises(SourceError, match="headers is too large") as refused:
        archives.check_wheel(path)
    assert refused.value.code == "artifact.unsafe"
    data = bytearray(wheel(path, {"x.py": os.urandom(5000) + b"\0" * 5000}).read_bytes())
    data[40:50] = b"\xff" * 10
    path.write_bytes(data)
    with pytest.raises(SourceError):
        archives.check_wheel(path)


@pytest.mark.parametrize(
    "text", ["a=" + "[" * 20_000, "project = 3", "#" * (5 << 20), "a = 1\na = 2"], ids=lambda text: text[:8]
)
def test_a_pyproject_of_anybody_is_read_or_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    if text == "project = 3":
        assert (projects.project_name(tmp_path), projects.requires_python(tmp_path)) == (None, None)
        return
    with pytest.raises(SourceError, match="cannot be read"):
        projects.requires_python(tmp_path)


def test_a_few_aliases_are_refused_and_never_written_out(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (tmp_path / "environment.yml").write_text("\n".join(["a0: &a0 x", *levels, "dependencies: [*a8]"]))
    with pytest.raises(SourceError, match="unfolds into"):
        conda_files.read(str(tmp_path / "environment.yml"))
    written = []

    class Leaf:
        def __repr__(self) -> str:
            written.append(1)
            return "x"

    with pytest.raises(SourceError, match="neither a package"):
        conda_files.parse(
            {"dependencies": [[[Leaf()] * 1000] * 100, 1 << 100_000], 1 << 100_000: 1}, what="x"
        )
    assert "must be one of 'a', not [[" in suggestions.not_among([[Leaf()] * 1000] * 100, ["a"])
    assert len(written) < 200
    assert scalars.describe_value(1 << 100_000) == "int a very long int"


ABOUT = "0" * 64


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "./here"},
        {"source": "/srv/secret"},
        {"source": "~/secret"},
        {"source": "x.whl"},
        {"source": "hello @ file:///srv/secret"},
        {"source": "hello @ /srv/secret"},
        {"source": "git+file:///srv/secret"},
        {"source": "git+ssh://git@example.org/x"},
        {"source": "hello @ git+ssh://git@example.org/x"},
        {"source": "hello\n--index-url=http://example.org"},
        {"source": "hello", "requirements": ["../secret"]},
        {"source": "hello", "requirements": ["x", "y @ file:///srv/secret"]},
        {"source": "hello", "python": "/bin/sh"},
    ],
)
def test_nobody_elsewhere_names_a_path_of_this_machine(fields: dict[str, Any]) -> None:
    with pytest.raises(SourceError) as refused:
        elsewhere.wish(fields)
    assert refused.value.code in ("source.elsewhere", "source.invalid")


@pytest.mark.parametrize(
    "fields",
    [
        {"source": f"artifact:{ABOUT}/../x.whl"},
        {"source": f"artifact:{ABOUT}/.whl"},
        {"source": f"artifact:{ABOUT}/x.zip"},
        {"source": f"artifact:{ABOUT[:-1]}/x.whl"},
        {"source": f"artifact:{ABOUT}/a/x.whl"},
        {"source": f"artifact:{ABOUT}/x.whl; rm"},
        {"source": "two words"},
        {"source": ""},
        {"source": "hello", "requirements": [3]},
        {"source": "hello", "lock": "/etc/passwd"},
        {"source": "hello", "env_file": "/etc/passwd"},
        {"source": "hello", "env_file": "file:///etc/passwd"},
        {"source": "hello", "env_vars": {"A": 1}},
        {"source": "hello", "origin": "a\nb"},
        {"source": "hello", "origin": "x" * 501},
    ],
)
def test_what_a_wish_from_elsewhere_must_be(fields: dict[str, Any]) -> None:
    with pytest.raises(SourceError):
        elsewhere.wish(fields)


def test_a_wish_from_elsewhere_remembers_what_it_was(tmp_path: Path) -> None:
    source = f"artifact:{ABOUT}/hello.tar[big]"
    found = elsewhere.wish({"source": source, "name": None, "origin": "here:/src", "requirements": None})
    assert (found.source, found.origin) == (source, "here:/src")
    assert str(artifact_names.parse(found.source)) == source
    # The owner of the node says whether it goes to the network.
    asked = {each: elsewhere.wish({"source": "x", "offline": each}).offline for each in (False, True, None)}
    assert asked == {False: None, True: True, None: None}
    assert elsewhere.wish({"source": "hello[a]==1"}).origin == "hello[a]==1"
    assert artifact_names.file_name("../my project!") == "my-project!"
    for bad in ("channels: [/srv/x]", "channels: ['file:///srv/x']", "dependencies: [{pip: [/srv/secret]}]"):
        text = bad if "dependencies" in bad else f"{bad}\ndependencies: [numpy]"
        (tmp_path / "environment.yml").write_text(text)
        with pytest.raises(SourceError) as refused:
            elsewhere.check_environment(conda_files.read(str(tmp_path / "environment.yml")))
        assert refused.value.code == "source.elsewhere"
    (tmp_path / "environment.yml").write_text("channels: [conda-forge]\ndependencies: [numpy, {pip: [x==1]}]")
    elsewhere.check_environment(conda_files.read(str(tmp_path / "environment.yml")))


async def pieces(data: bytes, fails: BaseException | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]
    if fails is not None:
        raise fails


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


async def test_an_upload_is_there_when_it_is_whole_and_what_it_says(tmp_path: Path) -> None:
    uploads = Artifacts(tmp_path)
    data = os.urandom(5000)
    digest = hashlib.sha256(data).hexdigest()
    for fails in (ConnectionError("gone"), errors.UsageError("slow")):
        with pytest.raises(type(fails)):
            await uploads.save(digest, pieces(data[:2000], fails))
    with pytest.raises(errors.UsageError) as refused:
        await uploads.save(digest, pieces(data[:-1]))
    assert refused.value.code == "artifact.digest"
    with pytest.raises(errors.UsageError) as bad:
        await uploads.save("../x", pieces(data))
    assert bad.value.code == "blob.digest"
    assert files(tmp_path) == [] == list(await uploads.list())
    for _ in range(2):
        assert (await uploads.save(digest, pieces(data))).size_bytes == 5000
    assert [each.digest for each in await uploads.list()] == [digest]
    assert files(tmp_path) == [f"artifacts/sha256/{digest[:2]}/{digest[2:]}"]
    assert uploads.path(digest).read_bytes() == data
    with pytest.raises(errors.ConflictError) as used:
        await uploads.remove(digest, is_named=lambda _: True)
    assert used.value.code == "artifact.in_use"
    assert [await uploads.remove(digest, is_named=lambda _: False) for _ in range(2)] == [True, False]
    with pytest.raises(errors.NotFoundError):
        await uploads.get(digest)


async def test_what_nobody_needs_goes_and_what_came_half_too(tmp_path: Path) -> None:
    clock = ManualClock()
    uploads = Artifacts(tmp_path, clock=clock)
    kept, unused = [hashlib.sha256(each).hexdigest() for each in (b"kept", b"unused")]
    for data in (b"kept", b"unused"):
        await uploads.save(hashlib.sha256(data).hexdigest(), pieces(data))
    half = blobs.Blobs(tmp_path / "artifacts").stage()
    half.write_bytes(b"half of it")
    placed = tmp_path / "artifacts" / ".tmp-placed-x"
    (placed / "deep").mkdir(parents=True)
    for path in (half, placed):
        os.utime(path, (clock.now(), clock.now()))
    clock.advance(KEPT_S - 1)
    assert uploads.collect(lambda digest: digest == kept) == []
    # Whoever installs from it makes it new.
    wish = Wish(source=f"artifact:{unused}/x.py", origin="there")
    async with uploads.placed(wish) as (found, nothing):
        assert os.path.basename(found.source) == "x.py"
        assert uploads.path(unused).samefile(found.source)
        assert nothing is not None
        assert os.listdir(nothing) == []
    clock.advance(2)
    assert uploads.collect(lambda digest: digest == kept) == []
    assert not half.exists()
    assert not placed.exists()
    clock.advance(KEPT_S)
    assert uploads.collect(lambda digest: digest == kept) == [unused]
    assert [each.digest for each in await uploads.list()] == [kept]
    assert files(tmp_path) == [f"artifacts/sha256/{kept[:2]}/{kept[2:]}"]
    with pytest.raises(errors.NotFoundError) as gone:
        async with uploads.placed(wish):
            pass
    assert gone.value.code == "artifact.not_found"


class FullDisk(durable.SystemOperations):
    """Has no room for one more name."""

    def rename(self, source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "no space left", target)


async def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    uploads = Artifacts(tmp_path, operations=FullDisk())
    with pytest.raises(errors.UnavailableError) as refused:
        await uploads.save(hashlib.sha256(b"x").hexdigest(), pieces(b"x"))
    assert refused.value.code == "store.disk_full"
    assert files(tmp_path) == []


async def test_a_lock_is_read_beside_the_loop_and_not_of_any_size(tmp_path: Path) -> None:
    class Lock(str):
        """Knows in which thread it was asked for."""

        threads: ClassVar[list[int]] = []

        def __bool__(self) -> bool:
            self.threads.append(threading.get_ident())
            return True

    class Sizes:
        """Says nothing, and remembers what it was asked."""

        async def size(self, request: provisioning.EnvironmentRequest, _: Any) -> Any:
            self.lock = request.lock

    async def describe(*_: Any) -> Any:
        raise AssertionError

    store = Sizes()
    installer = install.Installer(
        cast(Any, None), cast(Any, store), describe, artifacts=Artifacts(tmp_path / "home")
    )
    lock = tmp_path / "lock.txt"
    lock.write_text("x==1 --hash=sha256:0\n")
    await installer.size(Wish(source="x", lock=Lock(lock)))
    assert Lock.threads
    assert threading.get_ident() not in Lock.threads
    assert store.lock == lock.read_text()
    os.truncate(lock, 1 << 23)
    with pytest.raises(SourceError, match="larger than"):
        await installer.size(Wish(source="x", lock=str(lock)))


async def test_a_wish_of_this_machine_is_left_as_it_is(tmp_path: Path) -> None:
    wish = Wish(source=f"artifact:{ABOUT}/x.py")
    async with Artifacts(tmp_path).placed(wish) as (found, directory):
        assert (found, directory) == (wish, None)
    assert os.listdir(tmp_path) == []
