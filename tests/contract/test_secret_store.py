"""What every secret store promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from toft.kernel.errors import NotFoundError, UsageError
from toft.secrets.file_store import FileSecretStore
from toft.secrets.store import DEFAULT_SCOPE, LONGEST_VALUE_BYTES, SecretStore

OpenStore = Callable[[], SecretStore]


@pytest.fixture(params=["file", "file opened anew each time"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    directory = tmp_path / "secrets"
    first = FileSecretStore(directory)
    return (lambda: first) if request.param == "file" else (lambda: FileSecretStore(directory))


def test_get_returns_exactly_what_was_set(open_store: OpenStore) -> None:
    for value in ("plain", " spaces kept \n", "line one\nline two", "🔑 žluťoučký", '"quoted" \\ {}'):
        open_store().set("ocr", "API_KEY", value)
        assert open_store().get("ocr", "API_KEY") == value


def test_set_replaces_the_value_and_leaves_the_others(open_store: OpenStore) -> None:
    open_store().set("ocr", "API_KEY", "first")
    open_store().set("ocr", "OTHER", "other")
    open_store().set("ocr", "API_KEY", "second")
    assert open_store().get("ocr", "API_KEY") == "second"
    assert open_store().get("ocr", "OTHER") == "other"


def test_plugins_and_scopes_do_not_see_each_other(open_store: OpenStore) -> None:
    open_store().set("ocr", "API_KEY", "a")
    open_store().set("ner", "API_KEY", "b")
    open_store().set("ocr", "API_KEY", "c", scope="staging")
    assert open_store().get("ocr", "API_KEY") == "a"
    assert open_store().get("ner", "API_KEY") == "b"
    assert open_store().get("ocr", "API_KEY", scope="staging") == "c"
    assert open_store().find("ner", "API_KEY", scope="staging") is None


def test_a_missing_secret_is_none_to_find_and_an_error_to_get_and_delete(open_store: OpenStore) -> None:
    assert open_store().find("ocr", "API_KEY") is None
    for ask in (open_store().get, open_store().delete):
        with pytest.raises(NotFoundError) as caught:
            ask("ocr", "API_KEY")
        assert caught.value.code == "secret.not_found"
        assert "toft secret set ocr API_KEY" in caught.value.hint


def test_lists_name_keys_and_plugins_in_order_and_never_values(open_store: OpenStore) -> None:
    assert open_store().list_keys("ocr") == []
    open_store().set("ocr", "B_KEY", "value-b")
    open_store().set("ocr", "A_KEY", "value-a")
    open_store().set("ner", "TOKEN", "value-n")
    assert open_store().list_keys("ocr") == ["A_KEY", "B_KEY"]
    assert open_store().list_plugins() == ["ner", "ocr"]
    assert sorted(open_store().list_values()) == [
        ("A_KEY", "value-a"),
        ("B_KEY", "value-b"),
        ("TOKEN", "value-n"),
    ]


def test_delete_leaves_no_empty_plugin_or_scope_behind(open_store: OpenStore) -> None:
    open_store().set("ocr", "API_KEY", "a", scope="staging")
    open_store().delete("ocr", "API_KEY", scope="staging")
    assert open_store().list_plugins(scope="staging") == []
    assert open_store().list_values() == []


@pytest.mark.parametrize("plugin", ["../ocr", "ocr\nner", "", "Ocr", "a/b", "x" * 65])
def test_a_plugin_name_that_could_be_something_else_is_refused(open_store: OpenStore, plugin: str) -> None:
    for ask in (
        lambda: open_store().set(plugin, "API_KEY", "value"),
        lambda: open_store().find(plugin, "API_KEY"),
        lambda: open_store().list_keys(plugin),
    ):
        with pytest.raises(UsageError):
            ask()


@pytest.mark.parametrize("key", ["", "1KEY", "A KEY", "A=B", "A\n", "K" * 129, "Ä"])
def test_a_key_that_no_variable_can_have_is_refused(open_store: OpenStore, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store().set("ocr", key, "value")
    assert caught.value.code == "secret.bad_name"


@pytest.mark.parametrize("scope", ["", "__default", "A", "a/b", DEFAULT_SCOPE + "\n"])
def test_a_scope_that_is_reserved_or_no_name_is_refused(open_store: OpenStore, scope: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store().set("ocr", "API_KEY", "value", scope=scope)
    assert caught.value.code == "secret.bad_scope"


@pytest.mark.parametrize("value", ["", "a\0b", "\ud800", "x" * (LONGEST_VALUE_BYTES + 1)])
def test_a_value_that_cannot_be_carried_is_refused_and_not_quoted(open_store: OpenStore, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store().set("ocr", "API_KEY", value)
    assert caught.value.code == "secret.bad_value"
    assert not value or value not in str(caught.value.to_dict())
    assert open_store().find("ocr", "API_KEY") is None
