"""Runs the examples that need real plugins: those that say `run system`, with what stands around them."""

from pathlib import Path

import pytest
from tests.docs import pages
from tests.docs.run_example import run_examples

PAGES = [path for path in pages.list_pages() if any("system" in one.words for one in pages.examples(path))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(pages.ROOT)))
def test_examples_run(page: Path, tmp_path: Path) -> None:
    run_examples(pages.examples(page), tmp_path)
