"""What a document pins, read and checked without any file."""

from typing import Any

import pytest
from tests.pinned import document_of

from toft.managed import collecting, document, pins

PIN: dict[str, Any] = {
    "version": "1.0",
    "filename": "ocr_plugin-1.0-py3-none-any.whl",
    "sha256": "0" * 64,
    "size_bytes": 5,
}
PACKAGE = {**PIN, "name": "greetlib", "filename": "greetlib-1.0-py3-none-any.whl", "sha256": "1" * 64}


def test_pins_are_read_whole_and_without_what_is_disabled() -> None:
    told = {**PIN, "python": "3.12", "packages": [{**PACKAGE, "url": "https://x.example/y", "x-why": "fast"}]}
    found = pins.read({"ocr": told, "off": {**PIN, "enabled": False}})
    assert [each.plugin for each in found] == ["ocr"]
    assert [each.name for each in found[0].wheels] == ["ocr_plugin", "greetlib"]
    assert found[0].wheels[1].url == "https://x.example/y"
    assert found[0].python == "3.12"


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"filename": "ocr.whl"}, "plugins.ocr.filename", "is not how a wheel is called"),
        ({"version": "1.1"}, "plugins.ocr.version", "is 1.1; the wheel says 1.0"),
        ({"version": "no"}, "plugins.ocr.version", "the wheel says 1.0"),
        ({"url": "https://me:word@x.example/y"}, "plugins.ocr.url", "for everybody to read"),
        ({"url": "../wheels/ocr.whl"}, "plugins.ocr.url", ""),
        ({"url": "git+https://x.example/y"}, "plugins.ocr.url", ""),
        ({"sha256": None}, "plugins.ocr.sha256", ""),
        ({"packages": [{**PACKAGE, "name": "other"}]}, "plugins.ocr.packages[0].filename", "not of other"),
        ({"packages": [PACKAGE, {**PACKAGE, "sha256": "2" * 64}]}, "plugins.ocr.packages[1].name", "already"),
        ({"packages": [{**PACKAGE, "sha256": "0" * 64}]}, "plugins.ocr.packages[0]", "is the plugin itself"),
    ],
)
def test_what_is_no_pin_is_refused_with_its_place(changes: dict[str, Any], place: str, said: str) -> None:
    with pytest.raises(document.DocumentError) as caught:
        document_of({"ocr": {**PIN, **changes}})
    problems = caught.value.details["problems"]
    assert [(each["path"], said in each["message"]) for each in problems] == [(place, True)]


def test_an_unpinned_plugin_is_no_document() -> None:
    for told in ({}, {"version": "1.0"}, {"source": "./plugins/ocr"}):
        with pytest.raises(document.DocumentError):
            document_of({"ocr": told})


def test_the_same_version_may_be_written_otherwise() -> None:
    assert document_of({"ocr": {**PIN, "version": "1.0.0"}})


def test_what_a_document_needs_is_told_from_it_and_its_artifacts() -> None:
    needs = collecting.Needs.of("sha256-x", [{"tree": "7" * 32}], {"ocr": {**PIN, "packages": [PACKAGE]}})
    assert needs.trees == {"7" * 32}
    assert needs.wheels == {"0" * 64, "1" * 64}
    with pytest.raises(ValueError, match="cannot be read"):
        collecting.Needs.of("sha256-x", [], {"ocr": {"version": "1.0"}})
