"""Every environment variable of ours that a program reads is on the page, and no other."""

import re

from tests.docs import pages

PAGE = (pages.ROOT / "docs" / "reference" / "variables.md").read_text(encoding="utf-8")
NAME = re.compile(r"\bTOFT_[A-Z0-9_]*[A-Z0-9]")


def test_the_page_has_the_variables_that_the_sources_name() -> None:
    sources = [*(pages.ROOT / "packages").rglob("*.py"), *(pages.ROOT / "tests").glob("*.py")]
    sources += (pages.ROOT / "tests" / "system").glob("test_*_chaos.py")
    sources += (pages.ROOT / "tests" / "simulation").glob("test_*_lives.py")
    named = {name for path in sources for name in NAME.findall(path.read_text(encoding="utf-8"))}
    assert set(NAME.findall(PAGE)) == named
