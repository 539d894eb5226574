"""What a worker is started with, how deaths are told, and when silence ends a wait; no process anywhere."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from toft.host.keeper import Exit
from toft.kernel import clock, errors
from toft.plugins.supervision import deaths, launch, orders, stall

HOST = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/ann",
    "LANG": "C.UTF-8",
    "LC_TIME": "de_DE.UTF-8",
    "TZ": "UTC",
    "TOKEN": "secret",
    "PYTHONPATH": "/somewhere",
    "LD_PRELOAD": "/evil.so",
    "SSH_AUTH_SOCK": "/run/agent",
}


def make_place(tmp_path: Path, **changes: Any) -> launch.Place:
    home = tmp_path / "toft"
    (home / "sdk" / "abc").mkdir(parents=True)
    place = launch.Place(
        home=home, sdk=home / "sdk" / "abc", models_dir=None, cwd=tmp_path / "work", environ=HOST
    )
    (tmp_path / "work").mkdir()
    return dataclasses.replace(place, **changes)


def test_the_environment_is_an_allow_list(tmp_path: Path) -> None:
    place = make_place(tmp_path, models_dir=tmp_path / "models")
    env = launch.environment_variables(place, "ocr", "/envs/1/bin/python", {"MODE": "fast"})
    data = str(place.home / "data" / "ocr")
    assert env == {
        "PATH": "/envs/1/bin:/usr/bin:/bin",
        "HOME": data,
        "TOFT_DATA_DIR": data,
        "TOFT_MODELS_DIR": str(tmp_path / "models"),
        "LANG": "C.UTF-8",
        "LC_TIME": "de_DE.UTF-8",
        "TZ": "UTC",
        "MODE": "fast",
    }


def test_a_declared_value_comes_from_the_instance_then_the_installation_then_the_plugin() -> None:
    specs = [{"name": name, "default": "plugin"} for name in ("A", "B", "C")]
    values = launch.declared_values(specs, {"A": "installed", "B": "installed"}, {"A": "instance"})
    assert values == {"A": "instance", "B": "installed", "C": "plugin"}


def test_a_secret_is_never_taken_as_a_plain_value() -> None:
    specs = [{"name": "KEY", "secret": True, "default": "nobody should write this"}]
    assert launch.declared_values(specs, {}, {}) == {}
    with pytest.raises(errors.UsageError, match="KEY"):
        launch.declared_values(specs, {}, {"KEY": "visible"})


def test_required_variables_without_a_value_are_named() -> None:
    specs = [{"name": "A"}, {"name": "B", "required": False}, {"name": "C", "secret": True}]
    assert launch.missing_variables(specs, {}) == ["A", "C"]
    assert launch.missing_variables(specs, {"A": "1", "C": "2"}) == []


def test_the_home_is_hidden_and_only_what_is_needed_is_shown_again(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    prefix = place.home / "environments" / "1"
    (prefix / "bin").mkdir(parents=True)
    granted = tmp_path / "granted"
    granted.mkdir()
    box = launch.sandbox(place, "ocr", str(prefix / "bin" / "python"), prefix, writable=[str(granted)])
    assert str(place.home) in box.hidden
    assert box.read_only[:2] == (str(prefix), str(place.sdk))
    assert {str(place.home / "data" / "ocr"), str(granted), "/tmp"} <= set(box.writable)
    assert not {str(place.home), str(place.cwd)} & set(box.writable)
    assert box.network is True


def test_an_interpreter_below_the_home_is_shown_again(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    base = place.home / "pythons" / "3.12"
    (base / "bin").mkdir(parents=True)
    (base / "bin" / "python3.12").touch()
    prefix = place.home / "environments" / "1"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python").symlink_to(base / "bin" / "python3.12")
    box = launch.sandbox(place, "ocr", str(prefix / "bin" / "python"), prefix)
    assert str(base) in box.read_only


@pytest.mark.parametrize(
    ("where", "expected"),
    [("work", True), ("toft", False), ("toft/data", False), (".", False), ("user", False), ("gone", False)],
)
def test_a_worker_starts_in_the_working_directory_unless_it_holds_too_much(
    tmp_path: Path, where: str, expected: bool
) -> None:
    place = make_place(tmp_path)
    for name in ("toft/data", "user"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    place = dataclasses.replace(place, cwd=tmp_path / where, environ={**HOST, "HOME": str(tmp_path / "user")})
    assert launch.is_own_place(place) is expected
    assert launch.is_own_place(dataclasses.replace(place, cwd=Path("/"))) is False


@pytest.mark.parametrize("path", ["toft", "toft/data/other", ".", "nothing"])
def test_a_grant_that_would_uncover_the_home_or_is_no_directory_is_refused(tmp_path: Path, path: str) -> None:
    place = make_place(tmp_path)
    (place.home / "data" / "other").mkdir(parents=True)
    with pytest.raises(errors.UsageError) as caught:
        launch.sandbox(place, "ocr", "/usr/bin/python3", Path("/usr"), writable=[str(tmp_path / path)])
    assert caught.value.code == "instance.grant_refused"


def test_keys_of_the_user_are_hidden(tmp_path: Path) -> None:
    user = tmp_path / "user"
    (user / ".ssh").mkdir(parents=True)
    place = make_place(tmp_path, environ={**HOST, "HOME": str(user)})
    box = launch.sandbox(place, "ocr", "/usr/bin/python3", Path("/usr"))
    assert str(user / ".ssh") in box.hidden


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFoundError, match="nowhere"):
        orders.ForeignEnvironment.of(str(tmp_path / "nowhere" / "python"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    found = orders.ForeignEnvironment.of(str(tmp_path / "bin" / "python"), "3.9.18")
    assert (found.path, found.cache_tag) == (tmp_path, "cpython-39")


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        (Exit(code=3), "worker.exited", "exit code 3"),
        (Exit(code=0), "worker.exited", "exit code 0"),
        (Exit(signal=11), "worker.crashed", "SIGSEGV"),
        (Exit(signal=6), "worker.crashed", "SIGABRT"),
        (Exit(signal=9), "worker.killed", "SIGKILL"),
        (Exit(signal=15), "worker.killed", "SIGTERM"),
        (Exit(signal=63), "worker.killed", "signal 63"),
        (Exit(signal=9, out_of_memory=True, evidence={"oom_kill": 1}), "worker.out_of_memory", "memory"),
        (Exit(), "worker.lost", "nobody saw how"),
    ],
)
def test_a_death_is_told_as_what_was_seen(how: Exit, code: str, said: str) -> None:
    error = deaths.classify(how, instance="ocr", pid=7, doing="call 3", lines=["last words"])
    assert error.code == code
    assert said in error.message
    assert "during call 3" in error.message
    assert error.details["last_lines"] == ["last words"]
    if how.out_of_memory:
        assert error.details["evidence"] == {"oom_kill": 1}


class Used:
    """Processor time as the test says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def __call__(self) -> float:
        return self.seconds


async def test_words_and_work_are_signs_of_life_and_silence_is_not() -> None:
    now, used = clock.ManualClock(), Used()
    signs = stall.Signs(now.monotonic, used)
    await signs.look()
    now.advance(10)
    await signs.look()
    assert signs.silent_s() == 10
    used.seconds += 1
    now.advance(2)
    await signs.look()
    assert (signs.silent_s(), signs.speechless_s()) == (0, 12)
    now.advance(5)
    signs.spoke()
    assert signs.silent_s() == 0


async def test_a_first_look_that_comes_late_takes_nobody_for_silent() -> None:
    now, used = clock.ManualClock(), Used()
    signs = stall.Signs(now.monotonic, used)
    now.advance(10)
    await signs.look()
    assert signs.silent_s() == 0
    now.advance(10)
    await signs.look()
    assert signs.silent_s() == 10


async def test_a_watched_wait_ends_with_what_was_waited_for_or_in_silence() -> None:
    loop = asyncio.get_running_loop()
    used = Used()

    async def work(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    assert await stall.watch(work(0.01), stall.Signs(loop.time, used), 5) == "done"
    assert await stall.watch(work(0.01), stall.Signs(loop.time, used), 0) == "done"
    with pytest.raises(stall.StalledError):
        await stall.watch(work(60), stall.Signs(loop.time, used), 0.05)


async def test_a_process_that_only_burns_time_gets_longer_but_not_for_ever() -> None:
    loop = asyncio.get_running_loop()

    async def burning() -> float:
        return loop.time() * 2

    began = loop.time()
    with pytest.raises(stall.StalledError):
        await stall.watch(asyncio.sleep(60), stall.Signs(loop.time, burning), 0.03)
    assert loop.time() - began >= 0.3
