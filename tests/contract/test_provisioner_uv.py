"""What the uv provisioner promises beyond the contract: copies, hashes, interpreters, offline, errors."""

import asyncio
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.sample_packages import write_project, write_wheel

from toft.kernel import errors
from toft.plugins.environments import (
    environment_errors,
    environments,
    interpreters,
    provisioning,
    uv_environments,
)

Request = provisioning.EnvironmentRequest
OWN = os.path.realpath(sys.executable)


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    house = tmp_path / "wheelhouse"
    write_wheel("greetlib", "1.0", {"greetlib.py": "VERSION = '1.0'\n"}, house)
    write_wheel("greetlib", "2.0", {"greetlib.py": "VERSION = '2.0'\n"}, house)
    write_wheel("other", "1.0", {"other.py": ""}, house, requires=["greetlib==1.0"])
    write_wheel("extralib", "1.0", {"extralib.py": ""}, house)
    return house


def store_of(
    home: Path, wheelhouse: Path, environ: Mapping[str, str] | None = None, **options: object
) -> environments.Environments:
    chosen = uv_environments.UvOptions(**{"offline": True, "wheelhouses": (wheelhouse,), **options})  # type: ignore[arg-type]
    found = interpreters.Interpreters(environ=environ)
    return environments.Environments(home, [uv_environments.UvProvisioner(found, chosen, environ=environ)])


@pytest.fixture
def store(toft_home: Path, wheelhouse: Path) -> environments.Environments:
    return store_of(toft_home, wheelhouse)


def module(environment: environments.Environment, name: str) -> Path:
    return next(environment.path.glob(f"lib/python*/site-packages/{name}"))


async def test_a_write_into_one_environment_changes_no_other_and_not_the_cache(
    store: environments.Environments, tmp_path: Path
) -> None:
    one = await store.build(Request(requirements=("greetlib==1.0",)))
    two = await store.build(Request(requirements=("other",)))
    assert one.hash != two.hash
    for environment in (one, two):
        for path in environment.path.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert path.stat().st_nlink == 1, path
    changed = module(one, "greetlib.py")
    changed.chmod(0o644)
    changed.write_text(changed.read_text() + "VERSION = 'changed'\n")
    assert "changed" not in module(two, "greetlib.py").read_text()
    three = await store.build(Request(requirements=("greetlib==1.0", "extralib")))
    assert "changed" not in module(three, "greetlib.py").read_text()
    cached = [path.read_text() for path in (tmp_path / "uv-cache").rglob("greetlib.py")]
    assert cached
    assert not any("changed" in text for text in cached)


async def test_nothing_in_an_environment_may_be_written(store: environments.Environments) -> None:
    environment = await store.build(Request(requirements=("greetlib",)))
    for path in (environment.path, *environment.path.rglob("*")):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o222 == 0, path


async def test_compiled_files_are_there_and_valid(store: environments.Environments) -> None:
    environment = await store.build(Request(requirements=("greetlib",)))
    source = module(environment, "greetlib.py")
    compiled = source.parent / "__pycache__" / f"greetlib.{environment.cache_tag}.pyc"
    _, flags, mtime, size = struct.unpack("<4sIII", compiled.read_bytes()[:16])
    assert compiled.read_bytes()[:4] == importlib.util.MAGIC_NUMBER
    assert flags == 0
    assert (mtime, size) == (int(source.stat().st_mtime), source.stat().st_size)


async def test_the_interpreter_starts_without_hooks(store: environments.Environments) -> None:
    environment = await store.build(Request(requirements=("greetlib",)))
    assert list(environment.path.glob("lib/python*/site-packages/*.pth")) == []


async def test_order_and_place_of_the_request_do_not_change_the_environment(
    store: environments.Environments, tmp_path: Path
) -> None:
    files = {"hello.py": "X = 1\n"}
    first = write_project(tmp_path / "a" / "hello", "hello", files, requires=("greetlib",))
    second = Path(shutil.copytree(first, tmp_path / "b" / "hello"))
    one = await store.build(Request(local_project=first, requirements=("extralib",)))
    two = await store.build(Request(local_project=second, requirements=("extralib",)))
    assert one == two
    assert (one.is_new, two.is_new) == (True, False)
    assert two.local_name == "hello"


async def test_a_wheel_and_its_extras_are_installed(store: environments.Environments, tmp_path: Path) -> None:
    wheel = write_wheel("hello", "1.0", {"hello.py": ""}, tmp_path, requires=["extralib; extra == 'more'"])
    plain = await store.build(Request(local_project=wheel))
    more = await store.build(Request(local_project=wheel, extras=("more",)))
    assert set(plain.packages) == {"hello"}
    assert set(more.packages) == {"hello", "extralib"}


async def test_a_lock_is_installed_as_it_is(store: environments.Environments) -> None:
    locked = await store.build(Request(requirements=("greetlib<2",)))
    again = await store.build(Request(lock=locked.lock))
    assert again == locked
    wrong = locked.lock.replace("sha256:", "sha256:0", 1)[:-2] + "\n"
    with pytest.raises(environment_errors.HashMismatchError) as caught:
        await store.build(Request(lock=wrong))
    assert caught.value.code == "environment.hash_mismatch"
    assert [each.hash for each in store.list()] == [locked.hash]


@pytest.mark.parametrize("line", ["greetlib==1.0", "--index-url https://other.example/", "-r other.txt"])
async def test_a_lock_without_hashes_or_with_options_is_refused(
    store: environments.Environments, line: str
) -> None:
    with pytest.raises(environment_errors.SourceError, match="lock"):
        await store.build(Request(lock=line + "\n"))


async def test_unsatisfiable_says_the_short_reason(store: environments.Environments) -> None:
    with pytest.raises(environment_errors.UnsatisfiableError) as caught:
        await store.build(Request(requirements=("greetlib==2.0", "other")))
    assert caught.value.code == "environment.unsatisfiable"
    assert "other" in caught.value.message
    assert "greetlib==1.0" in caught.value.message
    assert len(caught.value.message) < 700
    assert caught.value.details["output"]
    assert os.listdir(store.root) == []


async def test_offline_says_what_is_missing(store: environments.Environments) -> None:
    with pytest.raises(environment_errors.DownloadError, match="offline.*nowhere-to-be-found") as caught:
        await store.build(Request(requirements=("nowhere-to-be-found",)))
    assert caught.value.code == "environment.offline_missing"


async def test_an_index_that_does_not_answer_is_a_download_error(toft_home: Path, wheelhouse: Path) -> None:
    environ = {
        **os.environ,
        "UV_DEFAULT_INDEX": "http://user:secret@127.0.0.1:9/simple",
        "UV_HTTP_RETRIES": "0",
    }
    store = store_of(toft_home, wheelhouse, environ, offline=False)
    with pytest.raises(environment_errors.DownloadError) as caught:
        await store.build(Request(requirements=("nowhere-to-be-found",)))
    assert caught.value.category == "transient"
    assert "secret" not in str(caught.value.to_dict())


async def test_a_build_that_fails_shows_what_it_said(
    store: environments.Environments, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "bad", "bad", {"bad.py": ""})
    (project / "backend.py").write_text("raise SystemExit('the compiler is missing')\n")
    with pytest.raises(environment_errors.BuildError, match="the compiler is missing"):
        await store.build(Request(local_project=project))
    assert os.listdir(store.root) == []


async def test_no_interpreter_names_what_was_looked_for_and_found(store: environments.Environments) -> None:
    with pytest.raises(
        environment_errors.NoInterpreterError, match=r"no interpreter: Python ==3\.99\.\*"
    ) as caught:
        await store.build(Request(requirements=("greetlib",), python="3.99"))
    details = caught.value.details
    assert any(each["path"] == OWN for each in details["found"])
    assert details["looked_in"]
    with pytest.raises(environment_errors.NoInterpreterError, match="not a Python that runs here"):
        await store.build(Request(requirements=("greetlib",), python="/usr/bin/env"))


async def test_the_project_says_which_python(store: environments.Environments, tmp_path: Path) -> None:
    project = write_project(tmp_path / "old", "old", {"old.py": ""}, requires_python=">=3.99")
    with pytest.raises(environment_errors.NoInterpreterError, match=">=3.99"):
        await store.build(Request(local_project=project))


async def test_only_what_a_tool_needs_is_in_its_environment(
    toft_home: Path, wheelhouse: Path, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "nosy", "nosy", {"nosy.py": ""})
    seen = tmp_path / "seen"
    backend = (project / "backend.py").read_text()
    (project / "backend.py").write_text(
        f"import os\nopen({str(seen)!r}, 'w').write(' '.join(os.environ))\n" + backend
    )
    environ = {**os.environ, "GITHUB_TOKEN": "x", "AWS_SECRET_ACCESS_KEY": "x", "HTTPS_PROXY": ""}
    await store_of(toft_home, wheelhouse, environ).build(Request(local_project=project))
    names = seen.read_text().split()
    assert {"PATH", "HTTPS_PROXY"} <= set(names)
    assert not [name for name in names if "TOKEN" in name or name.endswith("KEY")]


async def test_a_requirement_may_be_a_directory_or_a_checkout(
    store: environments.Environments, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "hello", "hello", {"hello.py": ""})
    plain = await store.build(Request(requirements=("greetlib", str(project))))
    assert set(plain.packages) == {"greetlib", "hello"}
    if shutil.which("git") is None:
        pytest.skip("needs git")
    commands = (
        ["init", "-q", "-b", "trunk"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "first"],
        ["tag", "v1"],
    )
    for command in commands:
        await asyncio.to_thread(subprocess.run, ["git", *command], cwd=project, check=True)
    fetched = await store.build(Request(vcs=f"git+file://{project}@v1", requirements=("greetlib",)))
    assert fetched == plain
    with pytest.raises(environment_errors.DownloadError, match="v2"):
        await store.build(Request(vcs=f"git+file://{project}@v2"))


async def test_a_checkout_without_git_says_so(toft_home: Path, wheelhouse: Path) -> None:
    environ = {**os.environ, "PATH": "/nonexistent"}
    with pytest.raises(environment_errors.SourceError, match="needs git"):
        await store_of(toft_home, wheelhouse, environ).build(Request(vcs="git+https://code.example.org/x"))


async def test_size_is_known_before_and_nothing_is_installed(
    store: environments.Environments, wheelhouse: Path
) -> None:
    request = Request(requirements=("other",))
    estimate = await store.size(request)
    files = [wheelhouse / f"{name}-1.0-py3-none-any.whl" for name in ("other", "greetlib")]
    assert estimate.download_bytes == sum(path.stat().st_size for path in files)
    assert estimate.is_complete
    assert (estimate.exists, estimate.installed_bytes) == (False, None)
    assert os.listdir(store.root) == []
    built = await store.build(request)
    assert (await store.size(request)).installed_bytes == built.size_bytes


async def test_works_without_any_network(toft_home: Path, wheelhouse: Path) -> None:
    probe = await asyncio.to_thread(subprocess.run, ["unshare", "-n", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("needs unshare: no network namespace may be made here")
    code = (
        "import asyncio, pathlib, sys\n"
        "from toft.plugins.environments import environments as e, interpreters as i, uv_environments as u\n"
        "o = u.UvOptions(offline=True, wheelhouses=(pathlib.Path(sys.argv[2]),))\n"
        "s = e.Environments(pathlib.Path(sys.argv[1]), [u.UvProvisioner(i.Interpreters(), o)])\n"
        "print(asyncio.run(s.build(e.EnvironmentRequest(requirements=('other',)))).packages)\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        ["unshare", "-n", sys.executable, "-c", code, str(toft_home), str(wheelhouse)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "{'greetlib': '1.0', 'other': '1.0'}", done.stderr


def test_an_environment_of_another_schema_is_refused(toft_home: Path, wheelhouse: Path) -> None:
    store = store_of(toft_home, wheelhouse)
    path = store.root / ("0" * 32)
    path.mkdir(parents=True)
    (path / environments.RECORD).write_text('{"schema": 99}')
    with pytest.raises(errors.IntegrityError, match="schema 99"):
        store.get("0" * 32)
    for name in ("../../etc", "x", "0" * 31):
        with pytest.raises(errors.NotFoundError):
            store.get(name)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 1}', '{"schema": 2}'])
async def test_a_damaged_record_hides_no_other_environment_and_is_not_removed(
    store: environments.Environments, text: str
) -> None:
    whole = await store.build(Request(requirements=("greetlib",)))
    damaged = store.root / ("0" * 32)
    damaged.mkdir()
    (damaged / environments.RECORD).write_text(text)
    by_hand = store.root / "notes"
    by_hand.mkdir()
    assert store.list() == [whole]
    with pytest.raises(errors.IntegrityError):
        store.get(damaged.name)
    store.sweep()
    assert store.gc({whole.hash}) == ()
    assert damaged.exists()
    assert by_hand.exists()
