"""What a sandbox shows, masks and lets be written, for every kind of path, with and without namespaces."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.leaks import leaks_checked
from tests.system.test_keeper_processes import PYTHON, keeper

from toft.host import namespaces
from toft.host.keeper import Keeper, Sandbox, SpawnSpec
from toft.kernel.errors import NodeError

__all__ = ["keeper", "leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")

LOOK = """
import json, os, socket, sys
def attempt(what, path):
    try:
        if what == "read":
            return open(path).read()
        if what == "write":
            return open(path, "w").write("new") and "written"
        if what == "list":
            return sorted(os.listdir(path))
        if what == "connect":
            socket.create_connection(("127.0.0.1", int(path)), 2).close()
            return "connected"
        if what == "listen":
            server = socket.create_server(("127.0.0.1", 0))
            socket.create_connection(server.getsockname()).close()
            return "listened"
    except OSError as error:
        return type(error).__name__
os.write(3, json.dumps([attempt(*pair) for pair in json.loads(sys.argv[1])]).encode())
"""

REFUSED = ("FileNotFoundError", "PermissionError", "OSError")


async def look(
    keeper: Keeper, sandbox: Sandbox, *attempts: tuple[str, str | Path], cwd: str = "/"
) -> list[Any]:
    """Try to read, write or list paths from inside; return what each gave, or the name of the error."""
    read, write = os.pipe()
    question = json.dumps([(what, str(path)) for what, path in attempts])
    argv = (PYTHON, "-I", "-S", "-c", LOOK, question)
    try:
        process = await keeper.spawn(SpawnSpec(argv, {}, cwd, fds=(write,), stderr=2, sandbox=sandbox))
    finally:
        os.close(write)
    await process.wait()
    with os.fdopen(read, "rb") as file:
        answers: list[Any] = json.loads(file.read())
    return answers


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A home to hide, with a directory to show, one to write, and something beside it."""
    for name in ("home/shown/deep", "home/data", "home/secrets", "beside"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("home/shown/deep/file", "home/data/file", "home/secrets/file", "home/file", "beside/file"):
        (tmp_path / name).write_text("old")
    return tmp_path


def sandbox_of(tree: Path, **changes: Any) -> Sandbox:
    settings = {
        "hidden": (str(tree / "home"),),
        "read_only": (str(tree / "home/shown"),),
        "writable": (str(tree / "home/data"),),
    }
    return Sandbox(**{**settings, **changes})


async def test_only_what_is_shown_is_seen_and_only_what_is_writable_is_written(
    keeper: Keeper, tree: Path
) -> None:
    answers = await look(
        keeper,
        sandbox_of(tree),
        ("read", tree / "home/shown/deep/file"),
        ("write", tree / "home/shown/deep/file"),
        ("write", tree / "home/shown/new"),
        ("read", tree / "home/data/file"),
        ("write", tree / "home/data/new"),
        ("read", tree / "home/secrets/file"),
        ("read", tree / "home/file"),
        ("write", tree / "home/new"),
        ("read", tree / "beside/file"),
        ("write", tree / "beside/file"),
        ("read", "/dev/null"),
        ("write", "/dev/null"),
    )
    refused = {index for index, answer in enumerate(answers) if answer in REFUSED}
    assert refused == {1, 2, 5, 6, 7, 9}
    assert (tree / "home/data/new").read_text() == "new"
    assert not (tree / "home/new").exists()
    assert not (tree / "home/shown/new").exists()


@pytest.mark.parametrize(
    "name", ["with spaces and 'quotes'", "möbel-家具", "new\nline", "back\\slash", "-rf"]
)
async def test_any_name_is_a_name(keeper: Keeper, tree: Path, name: str) -> None:
    for part in ("home", "home/shown", "home/data"):
        (tree / part / name).mkdir()
        (tree / part / name / "file").write_text("old")
    sandbox = Sandbox(
        hidden=(str(tree / "home" / name),),
        read_only=(str(tree / "home/shown" / name),),
        writable=(str(tree / "home/data" / name),),
    )
    answers = await look(
        keeper,
        sandbox,
        ("read", tree / "home" / name / "file"),
        ("read", tree / "home/shown" / name / "file"),
        ("write", tree / "home/shown" / name / "file"),
        ("write", tree / "home/data" / name / "file"),
    )
    assert answers[0] in REFUSED
    assert answers[1] == "old"
    assert answers[2] in REFUSED
    assert answers[3] == "written"


async def test_a_link_means_what_it_leads_to(keeper: Keeper, tree: Path) -> None:
    for name in ("home", "home/data", "home/shown", "home/secrets"):
        (tree / f"link-to-{name.replace('/', '-')}").symlink_to(tree / name)
    sandbox = sandbox_of(
        tree,
        hidden=(str(tree / "link-to-home"),),
        read_only=(str(tree / "link-to-home-shown"),),
        writable=(str(tree / "link-to-home-data"),),
    )
    answers = await look(
        keeper,
        sandbox,
        ("read", tree / "home/file"),
        ("read", tree / "link-to-home/file"),
        ("read", tree / "link-to-home-secrets/file"),
        ("read", tree / "home/shown/deep/file"),
        ("write", tree / "link-to-home-data/new"),
    )
    assert set(answers[:3]) <= set(REFUSED)
    assert answers[3:] == ["old", "written"]


async def test_what_is_hidden_stays_hidden_in_a_writable_directory_around_it(
    keeper: Keeper, tree: Path
) -> None:
    sandbox = sandbox_of(tree, writable=(str(tree), str(tree / "home/data")))
    answers = await look(
        keeper,
        sandbox,
        ("read", tree / "home/secrets/file"),
        ("write", tree / "home/shown/deep/file"),
        ("write", tree / "beside/file"),
        ("write", tree / "home/data/file"),
    )
    assert set(answers[:2]) <= set(REFUSED)
    assert answers[2:] == ["written", "written"]


async def test_a_single_file_can_be_shown_and_be_written(keeper: Keeper, tree: Path) -> None:
    sandbox = sandbox_of(
        tree,
        read_only=(str(tree / "home/file"),),
        writable=(str(tree / "home/data/file"), str(tree / "beside/file")),
    )
    answers = await look(
        keeper,
        sandbox,
        ("read", tree / "home/file"),
        ("write", tree / "home/file"),
        ("write", tree / "home/data/file"),
        ("write", tree / "beside/file"),
        ("write", tree / "beside/new"),
    )
    assert answers[0] == "old"
    assert answers[1] in REFUSED
    assert answers[2:4] == ["written", "written"]
    assert answers[4] in REFUSED


@pytest.mark.parametrize("kind", ["hidden", "read_only", "writable"])
async def test_a_missing_directory_is_named(keeper: Keeper, tree: Path, kind: str) -> None:
    missing = str(tree / "not there")
    with pytest.raises(NodeError) as caught:
        await keeper.spawn(
            SpawnSpec((PYTHON, "-c", ""), {}, "/", sandbox=Sandbox(**{kind: (missing,)}))  # type: ignore[arg-type]
        )
    assert caught.value.code == "process.spawn_failed"
    word = kind.replace("_", "-")
    assert caught.value.details["step"] == f"open the {word} directory {missing}"
    assert caught.value.details["reason"] == "No such file or directory"


async def test_without_a_network_nothing_outside_is_reached(keeper: Keeper, tree: Path) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    attempts = (("connect", str(port)), ("listen", ""))
    assert (await look(keeper, sandbox_of(tree), *attempts)) == ["connected", "listened"]
    answers = await look(keeper, sandbox_of(tree, network=False), *attempts)
    if keeper.isolation.mode == "namespaces":  # a loopback device of its own
        assert answers == ["ConnectionRefusedError", "listened"]
    else:
        assert answers == ["PermissionError", "PermissionError"]
    server.close()
    await server.wait_closed()


@pytest.fixture
def mounted(tree: Path) -> Iterator[Path]:
    """Something mounted inside the home and inside the directory beside it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: to mount something")
    places = [tree / "home/mounted", tree / "beside/mounted", tree / "home/data/mounted"]
    try:
        for place in places:
            place.mkdir()
            namespaces.mount("tmpfs", str(place), 0)
            (place / "file").write_text("old")
    except namespaces.SetupError as error:
        pytest.skip(f"needs root: {error}")
    yield tree
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


async def test_mounts_below_are_treated_like_the_directory_they_are_in(keeper: Keeper, mounted: Path) -> None:
    answers = await look(
        keeper,
        sandbox_of(mounted),
        ("read", mounted / "home/mounted/file"),
        ("read", mounted / "beside/mounted/file"),
        ("write", mounted / "beside/mounted/file"),
        ("write", mounted / "home/data/mounted/file"),
    )
    assert answers[0] in REFUSED
    assert answers[1] == "old"
    assert answers[2] in REFUSED
    assert answers[3] == "written"
