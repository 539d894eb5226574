"""`plugin validate` names everything wrong with a file, whatever it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from toft.kernel.errors import UsageError
from toft.plugins.manifests import validation

GOOD = "plugins:\n  - name: ocr\n    env_name: ocr\n    package: ocr==1\n    python_version: '3.11'\n"


def test_a_good_list_has_no_problems(tmp_path: Path) -> None:
    (tmp_path / "plugins.yaml").write_text(GOOD)
    assert validation.problems(tmp_path / "plugins.yaml") == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plugins.yaml", "plugins: [{}]"),
        (
            "plugins.yaml",
            "plugins:\n  - name: ../evil\n    env_name: e\n    package: p\n    python_version: '3.11'\n",
        ),
        ("plugins.yaml", ": : :"),
        ("plugins.yml", ""),
        ("manifest.json", "{}"),
        ("manifest.json", "not json"),
        ("manifest.json", '{"format_version": "7"}'),
        ("missing.json", None),
        ("missing.yaml", None),
    ],
)
def test_a_bad_file_has_at_least_one_problem_in_words(name: str, content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    found = validation.problems(tmp_path / name)
    assert found
    assert all(isinstance(each, str) and each for each in found)


def test_the_format_can_be_said_and_must_exist(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(GOOD)
    assert validation.problems(tmp_path / "list.txt", "plugins_yaml") == []
    with pytest.raises(UsageError, match="no format"):
        validation.problems(tmp_path / "list.txt", "toml")
