"""The checks find what they are for: each is shown one bad page."""

from pathlib import Path

import pytest
from tests.docs import pages
from tests.docs.run_example import fits, run_examples


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x](nowhere.md)", "nowhere.md: no such file"),
        ("# A b\n[x](#a-c)", "#a-c: no such heading"),
        ("# A `b`, c\n[x](#a-b-c)", ""),
        ("```\n[x](nowhere.md)\n```", ""),
        ("`[x](nowhere.md)`", ""),
    ],
)
def test_dead_links_are_found(text: str, said: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert list(pages.dead_links(page)) == ([said] if said else [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("`kernel/errors.py: NodeError.to_dict`", []),
        ("`toft_sdk/errors.py: classify`", []),
        ("`kernel/errors.py: Nothing`", ["kernel/errors.py: Nothing: the file has no such name"]),
        ("`kernel/gone.py: NodeError`", ["kernel/gone.py: NodeError: no such file"]),
    ],
)
def test_mentions_of_missing_symbols_are_found(text: str, said: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert list(pages.broken_mentions(page)) == said


def test_an_example_that_fails_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python run\nassert 1 == 2\n```\n")
    with pytest.raises(AssertionError, match="line 1"):
        run_examples(pages.examples(page), tmp_path)


def test_examples_of_a_page_share_a_folder_and_compare_output(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```text file=a/b.txt\nhello\n```\n\n```console run\n$ cat a/b.txt\nhel...\n$ echo $((1+1))\n2\n```\n"
    )
    run_examples(pages.examples(page), tmp_path)
    page.write_text("```console run\n$ echo 3\n2\n```\n")
    with pytest.raises(AssertionError, match="expected"):
        run_examples(pages.examples(page), tmp_path)


def test_dots_stand_for_anything() -> None:
    assert fits("a ... c\n...", "a b c\nd\ne\n")
    assert not fits("a ... c", "a b d")
