"""`toft run` prints results on stdout, all else on stderr, and ends a call that nobody waits for."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.cli_node import FakeNode, Line, run

from toft.secrets.file_store import FileSecretStore
from toft_sdk.errors import FatalError, InputError


def gives(value: Any) -> FakeNode:
    return FakeNode(lambda options: value)


def test_json_has_the_result_and_where_it_came_from() -> None:
    node = FakeNode(lambda options: {"lines": ["a", b"\x00"]}, usage={"pages": 2})
    told = run(node, "run", "ocr", "text=hello", "times=3", "--json")
    assert (told.status, told.err) == (0, "")
    shown = json.loads(told.out)
    assert shown.pop("duration_s") >= 0
    assert shown == {
        "result": {"lines": ["a", {"bytes_base64": "AA=="}]},
        "plugin": "ocr",
        "instance": "ocr",
        "usage": {"pages": 2},
    }
    assert node.calls == [(None, {"text": "hello", "times": 3}, None)]
    assert node.closed == 1


def test_an_action_an_instance_a_timeout_and_a_configuration_are_passed_on() -> None:
    node = gives("x")
    run(
        node,
        "run",
        "ocr.page",
        "text=1",
        "--instance",
        "ocr-2",
        "--timeout",
        "5",
        "-c",
        "dpi=300",
        "-c",
        "new=1",
    )
    assert node.calls == [("page", {"text": "1"}, 5.0)]
    assert node.loads == [("ocr", {"dpi": 300, "new": 1}, "ocr-2")]


def test_arguments_come_from_json_and_words_win() -> None:
    node = gives("x")
    run(node, "run", "ocr", "--input", '{"text": "a", "times": 2}', "text=b")
    assert node.calls == [(None, {"text": "b", "times": 2}, None)]


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("text", "text\n"),
        ("lines\n", "lines\n"),
        ({"a": (1, None)}, '{\n  "a": [\n    1,\n    null\n  ]\n}\n'),
        (3, "3\n"),
        (None, ""),
    ],
)
def test_a_person_gets_the_result_plainly_and_one_line_about_it_on_stderr(value: Any, printed: str) -> None:
    told = run(gives(value), "run", "ocr")
    assert (told.status, told.out) == (0, printed)
    last = told.err.splitlines()[-1]
    assert "instance ocr" in last
    assert "Python 3.11.7" in last
    assert "environment eeeeeeeeeeee" in last


def test_bytes_go_to_a_pipe_as_they_are() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, write_through=True)
    out.getvalue = lambda: ""  # type: ignore[attr-defined]
    run(gives(b"\x89PNG\x00"), "run", "ocr", out=out)  # type: ignore[arg-type]
    assert raw.getvalue() == b"\x89PNG\x00"


def test_a_place_that_cannot_be_written_is_refused_before_the_call(tmp_path: Path) -> None:
    node = gives(1)
    for target, hint in ((tmp_path, "name a file in it"), (tmp_path / "none" / "x", "mkdir -p ")):
        told = run(node, "run", "ocr", "--output", str(target), "--json")
        error = json.loads(told.err)["error"]
        assert (told.status, hint in error["hint"], str(tmp_path) in error["message"]) == (2, True, True)
    assert node.closed == 0


def test_output_writes_a_file_and_says_what_it_wrote(tmp_path: Path) -> None:
    target = tmp_path / "page.npy"
    told = run(gives(np.eye(3)), "run", "ocr", "--output", str(target), "--json")
    shown = json.loads(told.out)["result"]
    assert shown == {"file": str(target), "kind": "npy", "size_bytes": target.stat().st_size}
    np.testing.assert_array_equal(np.load(target), np.eye(3))


def test_chunks_are_printed_as_they_come() -> None:
    assert run(gives(["a", "b\n", "c"]), "run", "ocr", "--stream").out == "ab\nc\n"
    assert run(gives([{"n": 1}, "x", [2]]), "run", "ocr", "--stream").out == '{"n": 1}\nx\n[2]\n'
    lines = run(gives(["a", {"n": 1}]), "run", "ocr", "--stream", "--json").out.splitlines()
    assert [json.loads(line) for line in lines[:2]] == [{"chunk": "a"}, {"chunk": {"n": 1}}]
    last = json.loads(lines[-1])
    assert (last["result"], last["chunks"], last["plugin"]) == (None, 2, "ocr")


def test_progress_and_prints_are_shown_on_stderr_without_secrets(tmp_path: Path) -> None:
    FileSecretStore(tmp_path / "secrets").set("ocr", "API_KEY", "hunter22")

    def act(options: Mapping[str, Any]) -> str:
        options["on_progress"](0.5, "asking with hunter22")
        options["on_log"](Line("printed hunter22 \x1b[2J"))
        return "done hunter22"

    told = run(FakeNode(act), "run", "ocr", home=tmp_path)
    assert told.out == "done hunter22\n", "a result is the caller's own and is not changed"
    assert "ocr: 50% asking with [secret API_KEY]" in told.err
    assert "printed [secret API_KEY] \\x1b[2J" in told.err
    quiet = run(FakeNode(act), "run", "ocr", "--json", home=tmp_path)
    assert quiet.err == ""


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["run", "nothing"], 1, "plugin.not_found"),
        (["run", "ocr", "page"], 2, "request.command_line"),
        (["run", "ocr", "-c", "dpi"], 2, "request.command_line"),
        (["run", "ocr", "tims=3"], 1, "call.bad_arguments"),
        (["run", "ocr", "times=many"], 1, "call.bad_arguments"),
        (["run", "ocr", "--input", "{"], 1, "call.bad_arguments"),
        (["run", "ocr", "--input", "[1]"], 1, "call.bad_arguments"),
        (["run", "ocr", "--timeout", "0"], 2, "request.command_line"),
        (["run", "ocr", "--timeout", "soon"], 2, "request.command_line"),
        (["run"], 2, "request.command_line"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_is_started(
    words: list[str], status: int, code: str
) -> None:
    node = gives("x")
    told = run(node, *words, "--json")
    assert (told.status, told.out) == (status, "")
    error = json.loads(told.err)["error"]
    assert error["code"] == code
    assert error["hint"]
    assert node.loads == []


def test_every_bad_argument_is_named_at_once_with_what_was_meant() -> None:
    told = run(gives("x"), "run", "ocr", "txt=a", "times=many")
    assert told.status == 1
    assert "txt" in told.err
    assert "text" in told.err
    assert "times" in told.err


def test_a_failure_of_the_plugin_is_one_object_without_secrets(tmp_path: Path) -> None:
    FileSecretStore(tmp_path / "secrets").set("ocr", "API_KEY", "hunter22")

    def fail(options: Mapping[str, Any]) -> None:
        error = FatalError("refused hunter22", details={"url": "/ask?key=hunter22"})
        error.trace = "Traceback\n  key = 'hunter22'"
        raise error

    told = run(FakeNode(fail), "run", "ocr", "--json", home=tmp_path)
    assert told.status == 1
    error = json.loads(told.err)["error"]
    assert error["code"] == "plugin.fatal"
    assert error["message"] == "refused [secret API_KEY]"
    assert "hunter22" not in told.err
    assert "hunter22" not in run(FakeNode(fail), "run", "ocr", home=tmp_path).err


def test_ctrl_c_cancels_the_call_closes_the_node_and_exits_130() -> None:
    def interrupt(options: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    node = FakeNode(interrupt)
    told = run(node, "run", "ocr")
    assert (told.status, told.out) == (130, "")
    assert told.err.splitlines()[-1] == "cancelled"
    assert node.handles[0].cancelled == 1
    assert node.closed == 1
    told = run(node, "run", "ocr", "--json")
    assert told.status == 130
    assert json.loads(told.err)["error"]["code"] == "call.cancelled"


def test_a_reader_who_left_ends_a_stream_quietly() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            raise OSError

    node = gives(["a", "b"])
    told = run(node, "run", "ocr", "--stream", out=Gone())
    assert told.status == 141
    assert told.err == ""
    assert node.handles[0].cancelled == 1


def test_a_plugin_that_refuses_its_input_names_the_fields() -> None:
    def refuse(options: Mapping[str, Any]) -> None:
        raise InputError("not a picture", fields={"image": "neither PNG nor JPEG"})

    told = run(FakeNode(refuse), "run", "ocr")
    assert told.status == 1
    assert told.err.splitlines()[:2] == ["error: not a picture", "  image: neither PNG nor JPEG"]
    assert told.err.splitlines()[-1].startswith("next: ")


def test_settings_are_typed_by_the_schema_and_judged_by_the_node() -> None:
    node = gives("x")
    run(node, "run", "ocr", "-c", "dpi=0", "-c", "dpii=5")
    run(node, "run", "ocr", "-c", "dpi=many")
    assert [config for _, config, _ in node.loads] == [{"dpi": 0, "dpii": 5}, {"dpi": "many"}]


def test_the_next_command_names_the_plugin_it_is_about() -> None:
    assert "toft plugin show ocr lists" in run(gives("x"), "run", "ocr.page", "txt=a").err
    error = json.loads(run(gives("x"), "run", "ocr", "txt=a", "--json").err)["error"]
    assert "NAME" not in error["hint"]
