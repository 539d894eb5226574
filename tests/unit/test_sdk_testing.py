"""The conformance kit passes what is right and says what is wrong, each thing by itself."""

import contextlib
import os
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from toft_sdk import CancelledError, EnvVar, InputError, Plugin, context, hosting, option
from toft_sdk.likeness import same
from toft_sdk.surroundings import CancellingCall
from toft_sdk.testing import Conformance, Finding, check, check_class


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    made = types.ModuleType("toft_sdk_testing_probe")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def findings(module: types.ModuleType, kind: type[Plugin]) -> dict[str, Finding]:
    kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
    setattr(module, kind.__name__, kind)
    return {each.check: each for each in check_class(module.__name__, kind.__name__)}


def failed(found: Mapping[str, Finding]) -> list[str]:
    return [each.check for each in found.values() if not each.ok]


class Good(Plugin):
    """Adds."""

    @dataclass
    class Config:
        step: int = option(1, minimum=1, reload="step")

    config: Config
    cancel_within_s = 1.0
    examples = (
        {"arguments": {"count": 3}, "result": [0, 1, 2]},
        {"action": "execute", "arguments": {"count": 0}},
    )

    def release_step(self) -> None:
        """Let go of nothing."""

    def execute(self, count: int) -> list[int]:
        found = []
        for index in range(0, count, self.config.step):
            self.report_progress(index / count)
            found.append(index)
        return found


def test_a_good_plugin_passes_everything(module: types.ModuleType) -> None:
    found = findings(module, Good)
    assert failed(found) == []
    assert found["example 1 holds"].evidence.startswith("execute returned [0, 1, 2]")
    assert found["stops when cancelled"].evidence.startswith("after ")


class Deaf(Good):
    """Does not listen."""

    cancel_within_s = 0.01

    def execute(self, count: int) -> list[int]:
        try:
            self.report_progress(0.5)
        except CancelledError:
            time.sleep(0.05)
        return list(range(count))


def test_a_plugin_that_does_not_stop_in_time_is_told_so(module: types.ModuleType) -> None:
    found = findings(module, Deaf)
    assert failed(found) == ["stops when cancelled"]
    assert "cancel_within_s is 0.01" in found["stops when cancelled"].evidence


class Unheeding(Deaf):
    """Listens, and goes on."""

    cancel_within_s = 5.0


def test_a_cancelled_call_must_not_return_a_result(module: types.ModuleType) -> None:
    assert "it returned a result although" in findings(module, Unheeding)["stops when cancelled"].evidence


class Wrong(Plugin):
    """Has wrong examples."""

    examples = (
        {"arguments": {"text": "a"}, "result": "B"},
        {"arguments": {"text": 1}},
        {"action": "whisper"},
        {"arguments": {"text": "type"}},
        {"arguments": {"text": "raise"}},
        {"arguments": {"text": "object"}},
    )

    def execute(self, text: str) -> str:
        if text == "raise":
            raise LookupError("as told")
        odd: dict[str, Any] = {"type": 3, "object": object()}
        result: str = odd.get(text, text.upper())
        return result


def test_each_wrong_example_says_what_is_wrong(module: types.ModuleType) -> None:
    found = findings(module, Wrong)
    evidence = {name: found[name].evidence for name in failed(found)}
    assert evidence.pop("example 1 holds") == "it returned 'A', the example says 'B'"
    assert evidence.pop("example 2 holds") == "text must be a string, not int"
    assert evidence.pop("example 3 holds") == "there is no action 'whisper'"
    assert evidence.pop("example 4 holds") == "result must be a string, not int"
    assert "LookupError: as told" in evidence.pop("example 5 holds")
    assert "example 6 holds" in evidence


class Careless(Plugin):
    """Leaves things behind, and describes itself badly."""

    @dataclass
    class Config:
        size: int = option(0, minimum=1, reload="model")

    def initialize(self) -> None:
        os.environ["TOFT_SDK_TESTING_PROBE"] = "1"
        self.stop = threading.Event()
        threading.Thread(target=self.stop.wait, name="careless", args=(3.0,), daemon=True).start()

    def execute(self) -> None:
        """Do nothing."""


def test_what_is_left_behind_is_named(module: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOFT_SDK_TESTING_PROBE", "0")
    Careless.Config = None  # type: ignore[assignment,misc]
    left = findings(module, Careless)["leaves nothing behind"]
    assert not left.ok
    assert "environment variables changed: TOFT_SDK_TESTING_PROBE" in left.evidence
    assert "threads run: careless" in left.evidence


class Ill(Plugin):
    @dataclass
    class Config:
        size: int = option(0, minimum=1)
        model: str = option("base", reload="model")

    def initialize(self) -> None:
        raise SystemExit(3)

    def execute(self) -> None:
        """Do nothing."""


def test_a_description_that_cannot_be_used_is_named(module: types.ModuleType) -> None:
    found = findings(module, Ill)
    assert found["describes itself"].evidence == "there is no description"
    assert found["has a usable configuration"].evidence.startswith("defaults that do not fit: size must be")


def test_a_reload_nobody_answers_is_named(module: types.ModuleType) -> None:
    @dataclass
    class Fine:
        model: str = option("base", reload="model")

    Ill.Config = Fine  # type: ignore[assignment,misc]
    found = findings(module, Ill)
    assert "there is no release_model()" in found["has a usable configuration"].evidence
    assert "SystemExit(3)" in found["starts and cleans up"].evidence


class Keyed(Good):
    """Needs a key."""

    environment = (EnvVar("TOFT_SDK_TESTING_KEY", secret=True),)


def test_a_plugin_is_not_started_without_its_variables(
    module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOFT_SDK_TESTING_KEY", raising=False)
    found = findings(module, Keyed)
    assert failed(found) == []
    assert found["has its variables"].evidence == "not started: TOFT_SDK_TESTING_KEY not set here"
    assert "starts and cleans up" not in found
    monkeypatch.setenv("TOFT_SDK_TESTING_KEY", "open")
    assert "starts and cleans up" in findings(module, Keyed)


class Elsewhere:
    """Written for the reference system: known by its methods."""

    name = "elsewhere"
    version = "1.0"

    def initialize(self, config: dict[str, Any]) -> None:
        self.config = config

    def execute(self, text: str = "a") -> str:
        return text.upper()

    def get_config_schema(self) -> dict[str, Any]:
        return {"type": "object", "properties": {"size": {"type": "integer", "default": 1}}}

    def get_current_config(self) -> dict[str, Any]:
        return self.config

    def cleanup(self) -> None:
        """Nothing."""


def test_a_class_of_the_reference_system_is_checked_as_well(module: types.ModuleType) -> None:
    found = findings(module, Elsewhere)  # type: ignore[arg-type]
    assert failed(found) == []
    assert "starts again" in found


NOISY = """
import os, subprocess, sys
print("hello from the import")
os.chdir("/")
from toft_sdk import Plugin
class Noisy(Plugin):
    '''Makes noise.'''
    def execute(self) -> int:
        return 1
"""


def test_an_import_that_prints_and_moves_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toft_noisy_probe.py").write_text(NOISY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = {each.check: each for each in check_class("toft_noisy_probe")}
    sys.modules.pop("toft_noisy_probe")
    assert not found["imports quietly"].ok
    assert "'hello from the import\\n'" in found["imports quietly"].evidence
    assert "the working directory is /" in found["imports quietly"].evidence
    assert found["is a plugin"].ok


def test_a_module_without_a_plugin_ends_the_list(module: types.ModuleType) -> None:
    found = check_class(module.__name__)
    assert [each.check for each in found if not each.ok] == ["is a plugin"]
    assert "no subclass of toft_sdk.Plugin" in found[-1].evidence


class InProcess:
    """Stands in for a worker: the same calls, no process."""

    def __init__(self, module: str) -> None:
        self._hosted: hosting.Hosted = hosting.load(module)
        self._hosted.initialize()

    def call(self, action: str, arguments: Mapping[str, Any]) -> Any:
        return self._hosted.call(action, arguments)

    def stream(self, action: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
        return self._hosted.stream(action, arguments)

    def start(self, action: str, arguments: Mapping[str, Any]) -> "Started":
        return Started(self._hosted, action, arguments)


class Started:
    def __init__(self, hosted: hosting.Hosted, action: str, arguments: Mapping[str, Any]) -> None:
        self._call = lambda: hosted.call(action, arguments)
        self._cancelling = CancellingCall()

    def cancel(self) -> None:
        self._cancelling.cancel()

    def result(self, timeout_s: float | None = None) -> Any:
        with context.enter(self._cancelling):
            return self._call()


def test_a_worker_is_checked_with_the_same_examples(module: types.ModuleType) -> None:
    findings(module, Good)

    @contextlib.contextmanager
    def open_worker() -> Iterator[InProcess]:
        yield InProcess(module.__name__)

    found = check(module.__name__, open_worker=open_worker)
    assert [each.check for each in found if not each.ok] == []
    assert [each.check for each in found][-5:] == [
        "starts in a worker",
        "example 1 holds in a worker",
        "example 2 holds in a worker",
        "errors cross the boundary typed",
        "stops when cancelled in a worker",
    ]


def test_the_kit_is_a_plugin_itself(module: types.ModuleType) -> None:
    findings(module, Good)
    kit: hosting.Hosted = hosting.load("toft_sdk.testing", Conformance.__name__)
    kit.initialize()
    found = kit.call("check", {"module": module.__name__})
    assert all(each["ok"] for each in found)
    assert kit.call("subject", {"module": module.__name__})["cancel_within_s"] == 1.0
    with pytest.raises(InputError):
        kit.call("check", {})


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (float("nan"), float("nan"), True),
        ({"a": (1, [2])}, {"a": [1, (2,)]}, True),
        ({"a": 1}, {"b": 1}, False),
        (Good.Config(2), {"step": 2}, True),
        ([1], [1, 2], False),
    ],
)
def test_results_are_compared_as_they_look_from_the_other_side(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is equal
