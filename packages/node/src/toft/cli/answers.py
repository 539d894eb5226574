"""What a command has found out: JSON for a script, words for a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toft.cli.terminal import Terminal


@dataclass(frozen=True)
class Answer:
    """A JSON-like value that is told once, in the way that whoever asked wants.

    Attributes:
        terminal: Where it is told.
        value: What was found.
        as_json: A script reads it.
    """

    terminal: Terminal
    value: Any
    as_json: bool

    def show(self, words: Callable[[Terminal, Any], object]) -> None:
        """Tell it: as it is, or in these words."""
        if self.as_json:
            self.terminal.json(self.value)
        else:
            words(self.terminal, self.value)

    def note(self, words: Callable[[Any], str]) -> None:
        """Tell it as something that was done, which no program reads."""
        self.show(lambda terminal, value: terminal.note(words(value)))

    def table(self, columns: Sequence[str], row: Callable[[Any], Sequence[str]]) -> None:
        """Tell a list, each of it in a row."""
        self.show(lambda terminal, value: terminal.table(columns, [row(each) for each in value]))

    def difference(self, none: str) -> None:
        """Tell the lines of a `diff`, or that there are none."""
        if self.as_json or self.value["diff"]:
            self.show(lambda terminal, value: terminal.line(value["diff"]))
        else:
            self.terminal.note(none)
