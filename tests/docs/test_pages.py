"""Every page's links lead somewhere, every name it mentions exists, and what it says runs does run."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs import pages
from tests.docs.run_example import run_examples

ALL = pages.list_pages()
NAMES = [str(path.relative_to(pages.ROOT)) for path in ALL]


@pytest.mark.parametrize("page", ALL, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(pages.dead_links(page)) == []


@pytest.mark.parametrize("page", ALL, ids=NAMES)
def test_mentioned_symbols_exist(page: Path) -> None:
    assert list(pages.broken_mentions(page)) == []


WITH_EXAMPLES = [path for path in ALL if any("run" in example.words for example in pages.examples(path))]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(pages.ROOT)))
def test_examples_run(page: Path, tmp_path: Path, toft_home: Path) -> None:
    run_examples([example for example in pages.examples(page) if "system" not in example.words], tmp_path)


@pytest.mark.parametrize("tool", ["check_sizes.py", "check_text.py", "decision_index.py", "docs_index.py"])
def test_repository_check_passes(tool: str) -> None:
    command = [sys.executable, str(pages.ROOT / "tools" / tool), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "")


def test_generated_pages_are_current() -> None:
    tool = pages.ROOT / "tools" / "generate_docs.py"
    if not tool.exists():
        return
    result = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_decision_numbers_are_shown_in_the_index() -> None:
    folder = pages.ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in sorted(folder.glob("0*.md")) if path.name not in index] == []


def test_unreleased_changes_are_written_for_the_user() -> None:
    folder = pages.ROOT / "changelog" / "unreleased"
    first_lines = {
        path.name: path.read_text(encoding="utf-8").splitlines()[0] for path in folder.glob("*.md")
    }
    kinds = ("Added: ", "Changed: ", "Fixed: ", "Removed: ", "Security: ")
    assert [name for name, line in first_lines.items() if not line.startswith(kinds)] == []
