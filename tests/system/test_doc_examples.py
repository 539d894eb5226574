"""Runs the examples that need real plugins: those that say `run system`, with what stands around them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import browsers
from tests.docs import page_examples, pages
from tests.docs.run_example import run_examples

PAGES = [path for path in pages.list_pages() if any("system" in one.words for one in pages.examples(path))]


@pytest.fixture(autouse=True)
def no_daemon_is_left(toft_home: Path) -> Iterator[None]:
    """End the daemon that an example started, also when the example failed before it did so itself."""
    yield
    command = [sys.executable, "-m", "toft", "--home", str(toft_home), "down", "--now"]
    subprocess.run(command, env=os.environ, check=True, capture_output=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(pages.ROOT)))
def test_examples_run(page: Path, tmp_path: Path, toft_home: Path) -> None:
    if any(one.language == "page" for one in pages.examples(page)):
        browsers.binary()
    with page_examples.Reader(toft_home) as reader:
        run_examples(pages.examples(page), tmp_path, reader.follow)
