import logging
from pathlib import Path

import pytest

from toft.kernel import clock, errors, ids, log, settings


@pytest.mark.parametrize("name", ["ocr", "a", "0-x_y", "a" * 64])
def test_check_name_returns_an_allowed_name(name: str) -> None:
    assert ids.check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "../x", "a\n", "Ocr", "-x", "_x", "a/b", "a" * 65, "a b", "é", "٣", ".", "a\x00"]
)
def test_check_name_refuses_what_could_become_another_path(name: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        ids.check_name(name, "plugin name")
    assert caught.value.code == "name.invalid"
    assert caught.value.message.startswith("plugin name ")
    assert "\n" not in caught.value.message


def test_ulid_encodes_time_then_randomness() -> None:
    assert ids.ulid(clock.ManualClock(0.0), bytes) == "0" * 26
    assert ids.ulid(clock.ManualClock(0.001), lambda n: b"\xff" * n) == "0000000001" + "Z" * 16


def test_rfc3339_is_utc_with_milliseconds() -> None:
    assert clock.rfc3339(0.25) == "1970-01-01T00:00:00.250Z"


def test_events_reach_logging_and_never_stdout(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="toft"):
        log.get_logger("kernel").info("worker_started", pid=5)
        log.get_logger("kernel").debug("quiet")
    assert [record.message for record in caplog.records if "worker_started" in record.message]
    assert "pid=5" in caplog.text
    assert "quiet" not in caplog.text
    assert capsys.readouterr().out == ""


def test_caller_wins_over_environment_over_file(tmp_path: Path) -> None:
    (tmp_path / "toft.toml").write_text('home = "h"\nload_stall_s = 5\noffline = true\nisolation = "plain"\n')
    read = settings.read({"TOFT_ISOLATION": "namespaces"}, directory=tmp_path, offline=False)
    assert read.home == tmp_path / "h"
    assert read.load_stall_s == 5.0
    assert read.isolation == "namespaces"
    assert read.offline is False


def test_home_of_an_ordinary_user_follows_xdg() -> None:
    assert settings.default_home({"HOME": "/home/a"}, is_root=False) == Path("/home/a/.local/state/toft")
    assert settings.default_home({"XDG_STATE_HOME": "/s"}, is_root=False) == Path("/s/toft")
    assert settings.default_home({}, is_root=True) == Path("/var/lib/toft")


def test_settings_in_the_home_are_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "settings.toml").write_text('interpreters = ["/opt/py"]\nmodels_dir = "models"\n')
    read = settings.read({"TOFT_HOME": str(home)}, directory=tmp_path)
    assert read.interpreters == ("/opt/py",)
    assert read.models_dir == home / "models"


def test_lists_of_paths_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "toft.toml").write_text('wheelhouses = ["wheels", "/srv/wheels"]\n')
    read = settings.read({}, directory=tmp_path)
    assert read.wheelhouses == (tmp_path / "wheels", Path("/srv/wheels"))
    (tmp_path / "toft.toml").write_text('wheelhouses = "wheels"\n')
    with pytest.raises(errors.UsageError, match="a list of paths"):
        settings.read({}, directory=tmp_path)


def test_a_document_that_lies_where_settings_would_is_not_taken_for_them(tmp_path: Path) -> None:
    (tmp_path / "toft.toml").write_text("schema_version = 1\n[settings]\nlanes = 7\n")
    environ = {"TOFT_HOME": str(tmp_path / "home")}
    assert settings.read(environ, directory=tmp_path).lanes == 0
    with pytest.raises(errors.UsageError, match="unknown settings"):
        settings.read({**environ, "TOFT_SETTINGS": "toft.toml"}, directory=tmp_path)


def test_unknown_settings_are_refused_all_at_once_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "toft.toml").write_text("load_stal_s = 5\nzzz = 1\n")
    with pytest.raises(errors.UsageError) as caught:
        settings.read({}, directory=tmp_path)
    assert caught.value.details["fields"] == {
        "load_stal_s": "did you mean load_stall_s?",
        "zzz": "no such setting",
    }


@pytest.mark.parametrize(
    "text", [b"lanes = 1" + b"0" * 5000, b"lanes = \xff", b"lanes = " + b"[" * 5000, b"lanes = ", b"\0"]
)
def test_settings_that_nothing_can_read_are_refused_with_their_file(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "toft.toml").write_bytes(text)
    with pytest.raises(errors.UsageError, match="cannot be read") as caught:
        settings.read({}, directory=tmp_path)
    assert caught.value.code == "settings.unreadable"


def test_a_setting_of_any_length_is_refused_in_few_words(tmp_path: Path) -> None:
    (tmp_path / "toft.toml").write_text(f'lanes = 0x{"f" * 5000}\nlog_bytes = "{"x" * 100_000}"\n')
    with pytest.raises(errors.UsageError) as caught:
        settings.read({}, directory=tmp_path)
    assert caught.value.details["fields"].keys() == {"lanes", "log_bytes"}
    assert len(str(caught.value)) < 1000


def test_ill_typed_settings_are_refused_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "toft.toml").write_text(
        'load_stall_s = "x"\noffline = "perhaps"\ninterpreters = "/a"\nisolation = "jail"\n'
        "crash_limit = 1.5\nlog_files = -1\ncall_stall_s = nan\nlog_bytes = inf\n"
    )
    with pytest.raises(errors.UsageError) as caught:
        settings.read({}, directory=tmp_path)
    assert set(caught.value.details["fields"]) == {
        "load_stall_s",
        "offline",
        "interpreters",
        "isolation",
        "crash_limit",
        "log_files",
        "call_stall_s",
        "log_bytes",
    }
