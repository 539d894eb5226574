"""The plugin that misbehaves on request does what other tests ask of it, and only that."""

import pytest

from toft_sdk import errors, hosting
from toft_sdk.misbehaving import MisbehavingPlugin


@pytest.fixture
def plugin() -> hosting.Hosted:
    found: hosting.Hosted = hosting.load("toft_sdk.misbehaving", "MisbehavingPlugin")
    found.initialize({"label": "probe"})
    return found


def test_each_misbehaviour_can_be_called_by_itself_and_through_execute(plugin: hosting.Hosted) -> None:
    assert plugin.call("echo", {"value": (1, 2)}) == (1, 2)
    assert plugin.call("execute", {"do": "echo", "value": 3}) == 3
    assert plugin.call("execute", {"do": "chunks", "count": 2}) == [0, 1]
    assert list(plugin.stream("chunks", {"count": 2, "size_bytes": 3})) == [b"\0\0\0", b"\0\0\0"]
    with pytest.raises(errors.InputError, match="no misbehaviour"):
        plugin.call("execute", {"do": "initialize"})


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("InputError", errors.InputError),
        ("TransientError", errors.TransientError),
        ("ResourceError", errors.ResourceError),
        ("SystemExit", SystemExit),
        ("KeyError", KeyError),
        ("unheard of", RuntimeError),
    ],
)
def test_any_kind_of_exception_can_be_asked_for(
    plugin: hosting.Hosted, kind: str, raised: type[BaseException]
) -> None:
    with pytest.raises(raised):
        plugin.call("raise_error", {"kind": kind})


def test_what_it_sees_includes_its_environment_and_the_files_it_was_asked_for(plugin: hosting.Hosted) -> None:
    seen = plugin.call("look", {"paths": ["/nowhere/at/all"]})
    assert seen["files"] == {"/nowhere/at/all": "FileNotFoundError: No such file or directory"}
    assert "PATH" in seen["environ"]


def test_it_is_the_only_plugin_of_its_module() -> None:
    described = hosting.load("toft_sdk.misbehaving").describe()
    assert described["class"] == MisbehavingPlugin.__name__
    assert described["actions"]["chunks"]["stream"] is True
