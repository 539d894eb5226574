"""Errors keep their class, their facts and their blame on the way to the caller."""

import json

import pytest

from toft_sdk import errors
from toft_sdk.errors import (
    CancelledError,
    FatalError,
    InputError,
    PluginError,
    ResourceError,
    TransientError,
    classify,
    from_dict,
    trace_text,
)


@pytest.mark.parametrize(
    "error",
    [
        PluginError("broke"),
        InputError("no", fields={"text": "is missing"}, details={"hint": 1}),
        TransientError("later", retry_after_s=2.5),
        ResourceError("small", resource="gpu_ram", needed_bytes=2, available_bytes=1),
        FatalError("never", code="model.gone"),
        CancelledError("stopped"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_json(error: PluginError) -> None:
    error.trace = "Traceback"
    again = from_dict(json.loads(json.dumps(error.to_dict())))
    assert type(again) is type(error)
    assert again.to_dict() == error.to_dict()
    assert str(again) == str(error)


def test_the_fields_of_an_input_error_survive() -> None:
    again = from_dict(InputError("no", fields=["a", "b"]).to_dict())
    assert isinstance(again, InputError)
    assert again.fields == {"a": "", "b": ""}
    assert isinstance(again, ValueError)


def test_an_error_class_of_the_author_arrives_as_the_one_it_derives_from() -> None:
    class ModelMissingError(TransientError):
        code = "model.missing"

    again = from_dict(ModelMissingError("no model", retry_after_s=1).to_dict())
    assert type(again) is TransientError
    assert again.code == "model.missing"
    assert again.retry_after_s == 1


@pytest.mark.parametrize("sent", [{}, {"kind": "Unheard", "details": 3, "retry_after_s": "soon", "code": 4}])
def test_nonsense_from_another_process_is_still_an_error(sent: dict[str, object]) -> None:
    again = from_dict(sent)
    assert type(again) is PluginError
    assert again.code == "plugin.failed"
    assert again.details == {}


@pytest.mark.parametrize(
    ("raised", "kind", "category"),
    [
        (FileNotFoundError("x"), InputError, "user_input"),
        (IsADirectoryError("x"), InputError, "user_input"),
        (PermissionError("x"), InputError, "user_input"),
        (KeyError("x"), InputError, "user_input"),
        (ValueError("x"), InputError, "user_input"),
        (TypeError("x"), InputError, "user_input"),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), InputError, "user_input"),
        (TimeoutError(), TransientError, "transient"),
        (ConnectionResetError(), TransientError, "transient"),
        (InterruptedError(), TransientError, "transient"),
        (BlockingIOError(), TransientError, "transient"),
        (OSError("x"), TransientError, "transient"),
        (MemoryError(), ResourceError, "resource"),
        (RuntimeError("x"), FatalError, "fatal"),
        (ZeroDivisionError(), FatalError, "fatal"),
        (SystemExit(3), FatalError, "fatal"),
        (KeyboardInterrupt(), FatalError, "fatal"),
    ],
    ids=repr,
)
def test_an_untyped_exception_is_sorted_by_its_kind(
    raised: BaseException, kind: type[PluginError], category: str
) -> None:
    typed = classify(raised)
    assert type(typed) is kind
    assert typed.category == category
    assert typed.blame == "plugin"
    assert type(raised).__name__ in typed.message


def test_a_typed_error_is_left_as_it_is() -> None:
    error = InputError("no")
    assert classify(error) is error


def test_the_trace_names_the_line_and_the_cause() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise RuntimeError("second") from error
    except RuntimeError as error:
        text = trace_text(error)
    assert "KeyError: 'first'" in text
    assert "RuntimeError: second" in text
    assert "test_sdk_errors.py" in text


def test_every_error_is_exported() -> None:
    kinds = {name for name, each in vars(errors).items() if isinstance(each, type)}
    assert kinds <= set(errors.__all__)
