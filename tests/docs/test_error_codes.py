"""Every error that can be met has a next step, and its code is of the one form."""

import re
import sys

import pytest
from tests.docs import pages

sys.path.insert(0, str(pages.ROOT / "tools"))
generate_docs = pytest.importorskip("generate_docs")

from toft.cli import hints  # noqa: E402 - the tools are found only now

CODES = generate_docs.error_codes()


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_code_has_a_next_step(code: str) -> None:
    assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", code)
    assert all(each.hint for each in CODES[code]) or hints.find(code)


def test_no_hint_is_for_codes_that_are_gone() -> None:
    rooms = {code.partition(".")[0] for code in CODES}
    assert [code for code in hints.BY_CODE if code not in CODES and code not in rooms] == []
