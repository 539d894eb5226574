"""What a plugin does to its own process, a script sees as one error; what it looks for, it does not find."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.command_line import CommandLine
from tests.sample_packages import write_project
from tests.waiting import eventually

MISBEHAVING = '''
    """Does what it is told."""
    from toft_sdk.misbehaving import MisbehavingPlugin


    class Bad(MisbehavingPlugin):
        """Do what you are told."""

        name = "bad"
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Install the plugin once; no test here changes what is remembered of it."""
    directory = tmp_path_factory.mktemp("hostile")
    found = CommandLine(directory / "home", directory, {"HOST_TOKEN": "a-token-of-the-host"})
    # What its class is derived from stands in another package, so it is declared.
    write_project(directory / "bad", "bad", {"bad.py": MISBEHAVING}, entry_points={"bad": "bad:Bad"})
    assert found("plugin", "add", "./bad", "--json").value[0]["name"] == "bad"
    return found


@pytest.fixture
def toft(installed: CommandLine, tmp_path: Path) -> CommandLine:
    environ = {"HOST_TOKEN": "a-token-of-the-host", "TOFT_SETTINGS": str(tmp_path / "settings.toml")}
    (tmp_path / "settings.toml").write_text("")
    return CommandLine(installed.home, tmp_path, environ)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("segv",), "worker.crashed", "SIGSEGV"),
        (("kill_self",), "worker.killed", "SIGKILL"),
        (("exit_now", "code=3"), "worker.exited", "3"),
        (("raise_error", "kind=RuntimeError"), "plugin.exception", "as told"),
        (("raise_error", "kind=TransientError"), "plugin.transient", "as told"),
        (("raise_error", "kind=SystemExit"), "", "as told"),
        (("raise_error", "kind=MemoryError"), "plugin.resource", "as told"),
        (("unencodable",), "result.unencodable", "bad"),
        (("endless",), "result.unencodable", ""),
    ],
)
def test_an_end_with_an_error_is_told_with_its_evidence(
    toft: CommandLine, arguments: tuple[str, ...], code: str, word: str
) -> None:
    action, *rest = arguments
    done = toft("run", f"bad.{action}", *rest, "--json")
    assert (done.status, done.out) == (1, "")
    assert done.error["code"].startswith(code)
    assert word in json.dumps(done.error)
    assert done.error["hint"]
    spoken = toft("run", f"bad.{action}", *rest)
    assert spoken.status == 1
    assert "error: " in spoken.err
    assert "next: " in spoken.err


def test_an_unencodable_value_is_named_by_its_path(toft: CommandLine) -> None:
    error = toft("run", "bad.unencodable", "--json").error
    assert "deep" in error["message"]
    assert "bad" in error["message"]


def test_noise_is_contained_and_counted_as_what_it_is(toft: CommandLine) -> None:
    done = toft("run", "bad.flood", "lines=200000", "--json")
    assert done.value["result"] == 200_000
    assert toft("run", "bad.write_fds", "--json").status == 0
    assert toft("run", "bad.close_fds", "--json").status in (0, 1)
    assert toft("run", "bad.where", "--json").status == 0
    assert toft("plugin", "logs", "bad", "-n", "3").status == 0
    size_bytes = sum(path.stat().st_size for path in (toft.home / "logs").iterdir())
    assert size_bytes < 20_000_000


def test_daemons_end_with_the_run(toft: CommandLine) -> None:
    pids = toft("run", "bad.fork_daemons", "--json").value["result"]
    assert len(pids) == 2


def test_a_hanging_call_is_ended_by_its_time_limit(toft: CommandLine) -> None:
    for where in ("python", "gil"):
        error = toft("run", "bad.hang", f"where={where}", "--timeout", "0.5", "--json").error
        assert error["code"] == "call.timeout"


@pytest.mark.parametrize(
    ("how", "word"),
    [("raise", "told to raise"), ("exit", "7"), ("segv", "SIGSEGV"), ("stall", "stall")],
)
def test_an_instance_that_cannot_start_says_why_and_where(
    toft: CommandLine, tmp_path: Path, how: str, word: str
) -> None:
    (tmp_path / "settings.toml").write_text("load_stall_s = 1.5")
    error = toft("run", "bad.where", "-c", f"at_initialize={how}", "-c", "seconds=600", "--json").error
    assert word in json.dumps(error)
    if how == "stall":
        assert "initialize" in json.dumps(error["details"]), "it says where it was stuck"


def test_a_slow_start_that_shows_progress_is_fine(toft: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("load_stall_s = 1.0")
    done = toft("run", "bad.where", "-c", "at_initialize=progress", "-c", "seconds=3", "--json")
    assert done.value["result"]["label"] == "plain"


def test_a_very_large_result_goes_to_a_file(toft: CommandLine, tmp_path: Path) -> None:
    target = tmp_path / "huge.bin"
    done = toft("run", "bad.huge", "size_bytes=300000000", "-o", target, "--json")
    assert done.value["result"]["size_bytes"] == 300_000_000
    assert target.stat().st_size == 300_000_000
    target.unlink()


def test_a_plugin_finds_no_secret_no_host_variable_and_no_database(toft: CommandLine) -> None:
    toft("secret", "set", "other", "API_KEY", "--from-stdin", stdin="hunter22-of-somebody-else")
    paths = [str(toft.home / name) for name in ("secrets/secrets.json", "node.db", "plugins", "secrets")]
    done = toft("run", "bad.look", "--input", json.dumps({"paths": paths}), "--json")
    text = json.dumps(done.value["result"])
    assert "hunter22-of-somebody-else" not in text
    assert "a-token-of-the-host" not in text
    for path, seen in done.value["result"]["files"].items():
        assert "Error" in seen or seen.strip() == "directory:", (path, seen)


def test_a_host_that_is_killed_takes_the_plugin_with_it(toft: CommandLine, tmp_path: Path) -> None:
    process = toft.start("run", "bad.hang", "where=gil")
    ready = toft.home / "logs" / "bad.log"
    eventually(ready.exists, 30)
    process.kill()
    process.wait(10)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    # The check for leaks after each system test fails when anything survived.
