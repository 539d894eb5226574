"""Does what a page example says, in a real browser: one step a line, with the words that stand on the page.

`open PATH`, `see TEXT`, `follow LINK`, `press BUTTON`, `write LABEL: TEXT`, `choose LABEL: OPTION`,
`tick LABEL`, `untick LABEL`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from playwright import sync_api
from tests import browsers
from tests.command_line import CommandLine


class Reader:
    """Somebody who follows a page of the documentation with a browser beside it.

    Args:
        home: Of the node that the page is about.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._open = contextlib.ExitStack()
        self._visitor: browsers.Visitor | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *what: object) -> None:
        self._open.__exit__(None, None, None)

    def follow(self, body: str) -> None:
        """Do every step of an example."""
        visitor = self._visitor or self._visit()
        for line in filter(None, map(str.strip, body.splitlines())):
            word, _, rest = line.partition(" ")
            try:
                _STEPS[word](visitor, rest)
            except sync_api.Error as error:
                seen = visitor.page.locator("body").inner_text()
                raise AssertionError(f"{line}: {error}\nthe page says:\n{seen}") from error

    def _visit(self) -> browsers.Visitor:
        # As a reader gets there: by the link, which makes a session of it.
        link = CommandLine(self._home, self._home.parent)("open", "--json").value["url"]
        self._visitor = self._open.enter_context(browsers.visiting(link.partition("/sign-in")[0]))
        self._visitor.page.goto(link)
        # What the link opens goes on to the overview by itself, which would undo a step taken before.
        self._visitor.page.wait_for_selector("html[data-ready]")
        return self._visitor


def _labelled(visitor: browsers.Visitor, label: str) -> sync_api.Locator:
    return visitor.page.get_by_label(label, exact=True)


def _fill(visitor: browsers.Visitor, rest: str) -> None:
    label, _, text = rest.partition(": ")
    _labelled(visitor, label).fill(text)


def _choose(visitor: browsers.Visitor, rest: str) -> None:
    label, _, text = rest.partition(": ")
    _labelled(visitor, label).select_option(label=text)


_STEPS: dict[str, Callable[[browsers.Visitor, str], object]] = {
    "open": lambda visitor, path: visitor.go(path),
    "see": lambda visitor, text: visitor.see(text),
    "follow": lambda visitor, name: visitor.page.get_by_role("link", name=name, exact=True).first.click(),
    "press": lambda visitor, name: visitor.page.get_by_role("button", name=name, exact=True).first.click(),
    "write": _fill,
    "choose": _choose,
    "tick": lambda visitor, label: _labelled(visitor, label).check(),
    "untick": lambda visitor, label: _labelled(visitor, label).uncheck(),
}
