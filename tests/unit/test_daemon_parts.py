"""Parts of the daemon and its client that need no process: who may connect, units, logs, paths, frames."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from toft.api import bodies, following, frames, problems
from toft.client import choice, connection, paths
from toft.daemon import log_file, notify, peers, units
from toft.host import process_tree
from toft.jobs import errors as job_errors
from toft.kernel import errors, settings
from toft.plugins import errors as faults
from toft_sdk import errors as plugin_errors


def family(*parents: tuple[int, int]) -> Any:
    """Return what finds processes of which only their parents are known."""
    known = {
        pid: process_tree.Stat(pid, [b"S", str(parent).encode(), *([b"0"] * 22)]) for pid, parent in parents
    }
    return known.get


@pytest.mark.parametrize(
    ("uid", "parents", "reason"),
    [
        (1000, ((50, 40), (40, 1), (1, 0)), ""),
        (0, ((50, 40), (40, 1), (1, 0)), "uid 0 is not the owner's, 1000"),
        (1001, (), "uid 1001 is not the owner's, 1000"),
        (1000, ((50, 40),), "process 50 cannot be found"),
        (1000, (), "process 50 cannot be found"),
        (1000, ((50, os.getpid()),), "process 50 was started by a plugin"),
        (1000, ((50, 51), (51, os.getpid()), (os.getpid(), 1), (1, 0)), "process 50 was started by a plugin"),
        (1000, ((50, 51), (51, 50)), "process 50 has too many ancestors"),
        (1000, ((50, 0),), ""),
    ],
)
def test_only_the_owner_may_connect_and_no_plugin(
    uid: int, parents: tuple[tuple[int, int], ...], reason: str
) -> None:
    assert peers.refusal(peers.Peer(50, uid), owner=1000, find=family(*parents)) == reason


def test_the_log_of_the_daemon_is_bounded_and_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "daemon.log"
    target = log_file.LogFile(path, max_bytes=1000, files=2, takes_stderr=False)
    target.redact = lambda text: text.replace("hunter2", "***")
    for number in range(200):
        target.emit(logging.LogRecord("toft", logging.INFO, "", 0, f"line {number} hunter2", (), None))
    target.emit(logging.LogRecord("toft", logging.INFO, "", 0, "x" * 5000, (), None))
    target.close()
    files = sorted(tmp_path.glob("logs/*"))
    assert [each.name for each in files] == ["daemon.log", "daemon.log.1", "daemon.log.2"]
    assert all(each.stat().st_size <= 1000 for each in files)
    assert "hunter2" not in "".join(each.read_text() for each in files)
    assert path.with_name("daemon.log.1").read_text().endswith("line 199 ***\n")
    assert path.stat().st_mode & 0o077 == 0


def test_a_service_manager_that_is_not_there_changes_nothing(tmp_path: Path) -> None:
    notify.Notifier({}).tell("READY=1")
    notify.Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).tell("READY=1")


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}])
async def test_without_a_watchdog_nothing_is_told(environ: Mapping[str, str]) -> None:
    await asyncio.wait_for(notify.Notifier(environ).keep_alive(), 1)


def test_the_unit_of_a_home_says_how_it_is_kept(tmp_path: Path) -> None:
    environ = {"HOME": "/home/ann", "PATH": "/usr/bin"}
    own = settings.Settings(home=settings.default_home(environ, is_root=False), drain_s=12)
    unit = units.Unit.of(own, is_system=False, environ=environ)
    if settings.default_home(environ) == own.home:
        assert unit.name == "toft.service"
    assert unit.path.parent == Path("/home/ann/.config/systemd/user")
    assert "TimeoutStopSec=42\n" in unit.text()
    assert unit.command("start") == ["systemctl", "--user", "start"]
    strange = settings.Settings(home=Path('/srv/a "b" 5%/toft node'))
    machine = units.Unit.of(strange, is_system=True, environ=environ)
    assert machine.path == Path("/etc/systemd/system/toft-toft-node.service")
    assert '--home "/srv/a \\"b\\" 5%%/toft node"\n' in machine.text()
    assert "WantedBy=multi-user.target" in machine.text()
    assert machine.command("start") == ["systemctl", "start"]


SCHEMA = {
    "parameters": {
        "file": {"type": "string", "x-toft-type": "path"},
        "maybe": {"anyOf": [{"type": "string", "x-toft-type": "path"}, {"type": "null"}]},
        "files": {"type": "array", "items": {"type": "string", "x-toft-type": "path"}},
        "named": {"type": "object", "additionalProperties": {"type": "string", "x-toft-type": "path"}},
        "text": {"type": "string"},
    }
}


def test_paths_mean_the_callers_directory_and_text_stays_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "file": "a/../b.txt",
        "maybe": None,
        "files": ["x", "/y"],
        "named": {"k": "z"},
        "text": "b.txt",
        "other": PurePosixPath("c"),
        "deep": [{"p": Path("d")}],
        "empty": "",
    }
    assert paths.absolute(SCHEMA, given) == {
        "file": str(tmp_path / "b.txt"),
        "maybe": None,
        "files": [str(tmp_path / "x"), "/y"],
        "named": {"k": str(tmp_path / "z")},
        "text": "b.txt",
        "other": PurePosixPath(tmp_path / "c"),
        "deep": [{"p": tmp_path / "d"}],
        "empty": "",
    }
    assert paths.absolute(None, {"file": "b.txt"}) == {"file": "b.txt"}
    assert paths.absolute({"parameters": 3}, {"file": "b.txt"}) == {"file": "b.txt"}


VALUES = [
    1,
    {"a": [1, 2.5, None, "x"]},
    (1, {2}, b"\0bytes" * 1000, {(1, 2): datetime.date(2026, 1, 2)}),
    [b"x" * 3_000_000, "y" * 100_000],
]


@pytest.mark.parametrize("size", [1, 7, 65536, 10_000_000])
def test_frames_come_out_as_they_went_in_however_they_are_cut(size: int) -> None:
    stream = b"".join(bytes(piece) for value in VALUES for piece in frames.frame(value))
    arriving, came = frames.Frames(), []
    step = size if size > 1 else 4099
    for at in range(0, len(stream), step):
        came += list(arriving.feed(stream[at : at + step]))
    assert came == VALUES


def test_a_body_that_is_no_value_is_refused() -> None:
    for body in (b"{", b"\0toft\0\x001", b"\xff", b"\0"):
        with pytest.raises(errors.UsageError):
            frames.unpack(body)
    assert math.isnan(frames.unpack(frames.pack(float("nan"))))


def test_members_of_a_body_are_known_and_of_their_kind() -> None:
    kinds: Mapping[str, Any] = {"name": str, "count": (int, None), "on": (bool, None)}
    assert bodies.taken({"name": "x", "on": True}, **kinds) == {"name": "x", "count": None, "on": True}
    with pytest.raises(errors.UsageError) as caught:
        bodies.taken({"count": True, "on": 1, "more": 2}, **kinds)
    assert set(caught.value.details["fields"]) == {"name", "count", "on", "more"}


ERRORS = [
    errors.NotFoundError("no", code="x.y", details={"a": 1}, hint="do"),
    errors.UnavailableError("later", retry_after_s=2.5),
    faults.BusyError("busy"),
    faults.CallTimeoutError("late", details={"timeout_s": 1}),
    faults.WorkerLostError("gone", code="worker.out_of_memory"),
    job_errors.WaitTimeoutError("not yet"),
    plugin_errors.InputError("bad", fields={"a": "b"}),
    plugin_errors.TransientError("again", retry_after_s=1.5),
    plugin_errors.CancelledError("stopped"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_come_back_as_what_they_were(error: Any) -> None:
    back: Any = connection.problem(problems.response(error).body)
    assert type(back) is type(error)
    assert back.to_dict() == error.to_dict()
    assert isinstance(back, TimeoutError) == isinstance(error, TimeoutError)


def test_an_error_of_a_class_that_is_not_known_here_is_the_nearest_one() -> None:
    class StrangeError(errors.ConflictError):
        code = "strange"

    told = problems.described(StrangeError("x"))
    assert type(connection.error_of({**told, "kind": "Unheard"})) is errors.ConflictError
    assert problems.described(ZeroDivisionError("x"))["code"] == "node.fault"
    assert problems.described(PermissionError(13, "no", "/x"))["details"]["errno"] == 13


def test_a_status_code_for_each_error_of_the_node() -> None:
    codes = {type(error).__name__: problems.status_of(error) for error in ERRORS}
    assert codes == {
        "NotFoundError": 404,
        "UnavailableError": 503,
        "BusyError": 429,
        "CallTimeoutError": 504,
        "WorkerLostError": 503,
        "WaitTimeoutError": 409,
        "InputError": 422,
        "TransientError": 503,
        "CancelledError": 409,
    }


async def test_many_readers_are_let_through_a_few_each_turn_and_in_order() -> None:
    turnstile, turn, seen = following.Turnstile(10), 0, []

    async def reader(number: int) -> None:
        await turnstile.enter()
        seen.append((number, turn))

    readers = [asyncio.create_task(reader(number)) for number in range(100)]
    while len(seen) < 100:
        await asyncio.sleep(0)
        turn += 1
    await asyncio.gather(*readers)
    assert [number for number, _ in seen] == list(range(100))
    assert max(sum(1 for _, at in seen if at == each) for each in range(turn)) <= 20
    assert turn >= 9


def test_a_daemon_is_used_when_it_would_do_the_same(tmp_path: Path) -> None:
    mine = settings.Settings(home=tmp_path)
    theirs = choice.told(mine)
    assert choice.differs(mine, theirs, directory=tmp_path) == ""
    other = settings.Settings(home=tmp_path, offline=True, drain_s=1, lanes=7, request_bytes=5)
    assert choice.differs(other, theirs, directory=tmp_path) == ""
    stricter = settings.Settings(home=tmp_path, isolation="plain")
    assert "isolation" in choice.differs(stricter, theirs, directory=tmp_path)
    (tmp_path / ".toft" / "manifests").mkdir(parents=True)
    assert "plugins" in choice.differs(mine, theirs, directory=tmp_path)


def test_every_setting_either_matters_to_calls_or_is_known_not_to() -> None:
    others = {
        *("home", "interpreters", "offline", "wheelhouses", "python_downloads", "conda_tool", "conda_prefix"),
        *("micromamba_source", "micromamba_sha256", "plugins_file", "drain_s", "request_bytes", "lanes"),
        *("jobs_scheduler", "memory_reserve_bytes", "jobs_pending_limit", "jobs_keep_s", "jobs_keep_count"),
        *("listen", "tls_cert", "tls_key", "insecure_public", "allowed_hosts", "cors_origins"),
        *("gate_hosts", "gate_commands", "tracing_endpoint"),
    }
    assert {*choice.MATTERS} | others == {field for field in settings.Settings.__dataclass_fields__}


def test_text_is_json_for_everybody_whatever_is_in_it() -> None:
    said = {"nan": float("nan"), "half": "\udcff", "deep": [{"inf": float("inf")}], "other": {1: b"x"}}
    told = frames.text(said)
    assert told.isascii()
    assert json.loads(told, parse_constant=pytest.fail) == {
        **{"nan": None, "half": "\udcff", "deep": [{"inf": None}], "other": {"1": "b'x'"}}
    }
