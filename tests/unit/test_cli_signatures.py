"""Schemas read like the signature they were made from."""

from __future__ import annotations

import enum
import pathlib
from dataclasses import dataclass
from typing import Any, Optional

from toft.plugins.manifests import signatures
from toft_sdk import Plugin, option
from toft_sdk.introspect import describe_class


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass
class Config:
    model: str = option("small", description="Which model")
    limit: Optional[int] = option(None, minimum=1, maximum=9)  # noqa: UP045 - authors on 3.8 write it so


class Reader(Plugin):
    """Read."""

    Config = Config

    def execute(
        self, image: bytes, dpi: int = 150, mode: Mode = Mode.FAST, *, page: str | None = None
    ) -> list[str]:
        """Read it."""
        return []


class Open(Plugin):
    """Take anything."""

    def execute(self, path: pathlib.Path, **more: Any) -> None:
        """Take it."""


def test_a_signature_names_types_defaults_and_the_result() -> None:
    described = describe_class(Reader, __name__)
    text = signatures.action("execute", described["actions"]["execute"])
    assert text.startswith("execute(image: bytes, dpi: int = 150, mode: ")
    assert text.endswith("page: text | null = null) -> list of text")


def test_more_arguments_are_dots() -> None:
    described = describe_class(Open, __name__)
    assert signatures.action("execute", described["actions"]["execute"]) == "execute(path: path, ...) -> null"


def test_a_setting_says_its_bounds_and_what_it_is_for() -> None:
    described = describe_class(Reader, __name__)
    properties = described["config_schema"]["properties"]
    assert signatures.setting("model", properties["model"], "small") == (
        "model",
        "text",
        '"small"',
        "Which model",
    )
    name, typed, value, _ = signatures.setting("limit", properties["limit"], None)
    assert (name, value) == ("limit", "null")
    assert "minimum 1" in typed
    assert "maximum 9" in typed


def test_a_schema_from_elsewhere_is_never_an_error() -> None:
    for schema in (
        {},
        None,
        True,
        {"type": ["string", "null"]},
        {"enum": [1, "a"]},
        {"type": 5},
        {"items": 3, "type": "array"},
    ):
        assert isinstance(signatures.kind(schema), str)
    assert signatures.action("execute", {}) == "execute() -> any"
