"""A plugin file is a command of its own: arguments in, JSON out, one exit code per outcome."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from toft_sdk import FatalError, Plugin, action, context, option, run


@dataclass
class Settings:
    word: str = option("sheep", choices=["sheep", "stars"])
    first: int = 0


class Count(Plugin):
    Config = Settings
    config: Settings

    def initialize(self) -> None:
        self.log("ready", word=self.config.word)

    def execute(self, until: int, note: str = "") -> Iterator[str]:
        for number in range(self.config.first, until):
            self.report_progress(number / until, note)
            yield f"{number} {self.config.word}"

    @action("kinds")
    def kinds(self, place: Path, data: bytes = b"", anything: Any = None) -> list[Any]:
        return [type(place).__name__, len(data), anything, {1, 2}, place]

    @action("fail")
    def fail(self, kind: str) -> None:
        if kind == "typed":
            raise FatalError("it is gone", code="model.gone")
        raise LookupError("it is lost")


def running(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run(Count, words)
    code: int = ended.value.code  # type: ignore[assignment]
    return code


def test_the_result_goes_to_stdout_and_the_rest_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert running("until=2", "note=on") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == ["0 sheep", "1 sheep"]
    assert err.splitlines() == ["info ready word=sheep", "  0% on", " 50% on"]


def test_configuration_and_streaming(capsys: pytest.CaptureFixture[str]) -> None:
    assert running("--stream", "--config", "word=stars", "--config", "first=1", "until=3") == 0
    assert capsys.readouterr().out == '"1 stars"\n"2 stars"\n'


def test_an_action_is_chosen_and_values_json_has_no_word_for_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert running("--action", "kinds", "place=/tmp", "data=abc", 'anything={"a": 1}') == 0
    assert json.loads(capsys.readouterr().out) == [type(Path()).__name__, 3, {"a": 1}, [1, 2], "/tmp"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["until=many"], "until must be a whole number, not str"),
        ([], "until is missing"),
        (["until=1", "untill=2"], "untill is not an argument"),
        (["until"], "'until' is not NAME=VALUE"),
        (["--config", "word=goats", "until=1"], "word must be one of 'sheep', 'stars'"),
        (["--config", "wrod=stars", "until=1"], "wrod is unknown; did you mean word?"),
        (["--action", "fly"], "there is no action 'fly'; there is: execute, kinds, fail"),
    ],
    ids=str,
)
def test_wrong_words_end_with_2_and_the_usage(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert running(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "usage: python " in err


def test_a_typed_failure_ends_with_1_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert running("--action", "fail", "kind=typed") == 1
    assert capsys.readouterr().err.endswith("FatalError (model.gone): it is gone\n")


def test_a_bare_failure_shows_where_it_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert running("--action", "fail", "kind=bare") == 1
    err = capsys.readouterr().err
    assert "in fail" in err
    assert "LookupError: it is lost" in err


def test_the_console_call_is_the_one_outside_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    plugin = Count()
    plugin.report_progress(-1, "thinking")
    plugin.report_usage(tokens=3)
    plugin.check_cancel()
    plugin.register_cancel_callback(lambda: None)()
    assert capsys.readouterr().err.splitlines() == [" ... thinking", "usage tokens=3"]
    assert not context.current().is_cancelled()


def in_a_thread() -> context.Call:
    found: list[context.Call] = []
    thread = threading.Thread(target=lambda: found.append(context.current()))
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_of_the_author_belongs_to_the_only_call_that_runs() -> None:
    first, second = context.Call(), context.Call()
    with context.enter(first):
        assert in_a_thread() is first
        with context.enter(second):
            assert context.current() is second
            # Whose thread it is cannot be told, so it is nobody's.
            assert isinstance(in_a_thread(), context.ConsoleCall)
        assert context.current() is first
    assert isinstance(in_a_thread(), context.ConsoleCall)
