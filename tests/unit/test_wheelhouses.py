"""All that a wheel needs, found in directories of wheels for one Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pinned import plugin_wheel
from tests.sample_packages import write_wheel

from toft.plugins.environments import environment_errors, wheelhouses
from toft.plugins.environments.interpreters import Interpreter

PYTHON = Interpreter("/python", "3.11.2", "cpython", "cpython-311", "", "linux-x86_64")


def write(house: Path, name: str, version: str, *requires: str) -> Path:
    return write_wheel(name, version, {f"{name}.py": ""}, house, requires=requires)


def closed(house: Path, wheel: Path, python: Interpreter = PYTHON) -> list[str]:
    found = wheelhouses.Wheelhouses([house], python).close(wheel)
    return [f"{each.name}-{each.version}" for each in found]


def test_the_newest_that_everybody_can_live_with_is_taken(tmp_path: Path) -> None:
    for version in ("1.0", "1.5", "2.0"):
        write(tmp_path, "greetlib", version)
    write(tmp_path, "other", "1.0", "greetlib<2")
    write(tmp_path, "unasked", "1.0")
    wheel = plugin_wheel(tmp_path, requires=["greetlib", "other", "toft-sdk>=99"])
    assert closed(tmp_path, wheel) == ["echo-plugin-1.0", "greetlib-1.5", "other-1.0"]


def test_extras_and_markers_are_followed_and_circles_end(tmp_path: Path) -> None:
    write(tmp_path, "greetlib", "1.0", "extralib; extra == 'more'", "old; python_version < '3.11'")
    write(tmp_path, "extralib", "1.0", "greetlib[more]", "echo-plugin")
    wheel = plugin_wheel(tmp_path, requires=["greetlib[more]"])
    assert closed(tmp_path, wheel) == ["echo-plugin-1.0", "extralib-1.0", "greetlib-1.0"]
    older = Interpreter("/python", "3.10.1", "cpython", "cpython-310", "", "linux-x86_64")
    with pytest.raises(environment_errors.UnsatisfiableError, match="greetlib needs old"):
        closed(tmp_path, wheel, older)


def test_what_was_chosen_first_gives_way_and_is_forgotten(tmp_path: Path) -> None:
    write(tmp_path, "greetlib", "2.0", "heavy")
    write(tmp_path, "greetlib", "1.0")
    write(tmp_path, "heavy", "1.0")
    write(tmp_path, "other", "1.0", "greetlib<2")
    wheel = plugin_wheel(tmp_path, requires=["greetlib", "other"])
    assert closed(tmp_path, wheel) == ["echo-plugin-1.0", "greetlib-1.0", "other-1.0"]


def test_wheels_for_other_machines_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, "greetlib", "2.0").rename(tmp_path / "greetlib-2.0-cp311-cp311-win_amd64.whl")
    (tmp_path / "not-a-wheel.whl").write_text("")
    wheel = plugin_wheel(tmp_path, requires=["greetlib"])
    with pytest.raises(environment_errors.UnsatisfiableError) as caught:
        closed(tmp_path, wheel)
    assert str(tmp_path) in caught.value.message
    write(tmp_path, "greetlib", "1.0")
    assert closed(tmp_path, wheel) == ["echo-plugin-1.0", "greetlib-1.0"]


def test_contradictions_are_told(tmp_path: Path) -> None:
    write(tmp_path, "greetlib", "1.0", "echo-plugin>=2")
    wheel = plugin_wheel(tmp_path, requires=["greetlib"])
    with pytest.raises(environment_errors.UnsatisfiableError, match="echo-plugin>=2"):
        closed(tmp_path, wheel)


def test_plugins_are_called_what_their_wheel_declares(tmp_path: Path) -> None:
    assert wheelhouses.plugin_names(plugin_wheel(tmp_path)) == ["echo"]
    assert wheelhouses.plugin_names(write(tmp_path, "Some_Lib", "1.0")) == ["some-lib"]
