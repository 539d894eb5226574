"""A new plugin's folder is whole, is valid, and is made only where nothing is."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from toft.kernel.errors import ConflictError, NodeError, UsageError
from toft.plugins import scaffold
from toft_sdk.introspect import describe


@pytest.mark.parametrize(
    "name", ["ocr", "speech-to-text", "json", "class", "9lives", "a_b", "x--y", "import"]
)
def test_any_allowed_name_gives_a_plugin_that_says_what_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = scaffold.write(name, tmp_path)
    folder = tmp_path / name
    assert sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) == files
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    ((entry, target),) = project["project"]["entry-points"]["toft.plugins"].items()
    module, _, class_name = target.partition(":")
    assert entry == name
    for path in folder.rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 8))
    monkeypatch.syspath_prepend(str(folder / "src"))
    described = describe(module, class_name)
    sys.modules.pop(module)
    assert described["name"] == name
    assert described["actions"]["execute"]["input"]["required"] == []


@pytest.mark.parametrize("name", ["../ocr", "a\nb", "Ocr", "", "a/b", "-x"])
def test_a_name_that_could_be_a_path_makes_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        scaffold.write(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_is_there_is_not_touched(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "ocr"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to("nowhere")
    with pytest.raises(ConflictError) as caught:
        scaffold.write("ocr", tmp_path)
    assert str(target) in caught.value.message
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError) as caught:
        scaffold.write("ocr", tmp_path / "file")
    assert caught.value.code == "plugin.not_scaffolded"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
