"""Results on stdout, everything else on stderr, and nothing that a plugin says can drive the terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from toft.kernel.visible import visible

if TYPE_CHECKING:
    from rich.console import Console


class Terminal:
    """The two streams of one command.

    Args:
        out: Results; nothing else is ever written there.
        err: Progress, warnings, logs and errors.
        environ: Looked at for NO_COLOR and TERM.
    """

    def __init__(
        self, out: TextIO | None = None, err: TextIO | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.out = out or sys.stdout or _nowhere()
        if isinstance(self.out, io.TextIOWrapper):
            # Half a character, or one that the locale does not have, is spelled out.
            self.out.reconfigure(errors="backslashreplace")
        self.err = err or sys.stderr or _nowhere()
        self.warnings: list[str] = []
        self.keeps_warnings = False
        self._environ = environ
        self._consoles: dict[bool, Console] = {}

    def be_quiet_for_scripts(self) -> None:
        """Keep stderr free for one error object, unless a person looks at it."""
        self.keeps_warnings = not _is_tty(self.err)

    @property
    def shows_results(self) -> bool:
        """A person reads the results, no program does."""
        return _is_tty(self.out)

    @property
    def shows_progress(self) -> bool:
        """A person watches what is going on."""
        return _is_tty(self.err) and self._environ.get("TERM") != "dumb"

    def console(self, *, err: bool = False) -> Console:
        """Return the rich console of a stream; it interprets no markup, because plugins write here too."""
        if err not in self._consoles:
            from rich.console import Console  # noqa: PLC0415 - 60 ms that a command without colour does not pay

            self._consoles[err] = Console(
                file=self.err if err else self.out, markup=False, highlight=False, emoji=False, soft_wrap=True
            )
        return self._consoles[err]

    def write(self, text: str) -> None:
        """Write text that is a result, exactly as it is when a program reads it."""
        self.out.write(visible(text) if self.shows_results else text)

    def line(self, text: str = "") -> None:
        """Write one line of a result."""
        self.write(text + "\n")

    def json(self, value: Any) -> None:
        """Write a value as JSON; it must be JSON-like."""
        indent = 2 if self.shows_results else None
        self.out.write(json.dumps(value, indent=indent, allow_nan=False) + "\n")
        self.out.flush()

    def json_line(self, value: Any) -> None:
        """Write a JSON-like value as one line, at once, whoever reads."""
        self.out.write(json.dumps(value, allow_nan=False) + "\n")
        self.out.flush()

    def highlighted_json(self, text: str) -> None:
        """Write JSON text in colour, for a person."""
        from rich import highlighter  # noqa: PLC0415 - 35 ms that only a person at a terminal pays
        from rich import text as texts  # noqa: PLC0415 - comes with the one before

        self.console().print(highlighter.JSONHighlighter()(texts.Text(visible(text))))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write rows under headings; plain columns when a program reads them."""
        if self.shows_results:
            from rich.table import Table  # noqa: PLC0415 - 44 ms that only a person at a terminal pays

            table = Table(*columns, box=None, pad_edge=False, header_style="bold")
            for row in rows:
                table.add_row(*map(visible, row))
            self.console().print(table)
            return
        cells = [
            [visible(cell).replace("\n", " ").replace("\t", " ") for cell in row] for row in (columns, *rows)
        ]
        widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
        for row in cells:
            self.out.write(
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
            )

    def note(self, text: str) -> None:
        """Say something about the work on stderr, quietly."""
        if not self.keeps_warnings:
            self._say(text, "dim")

    def warn(self, text: str) -> None:
        """Say on stderr what the person should know, and go on."""
        if self.keeps_warnings:
            self.warnings.append(text)
        else:
            self._say(f"warning: {text}", "yellow")

    def fail(self, text: str) -> None:
        """Say on stderr what went wrong."""
        self._say(text, "red")

    def log(self, text: str) -> None:
        """Pass on a line that a plugin printed, on stderr."""
        self.note(text)

    def flush_warnings(self) -> None:
        """Say the warnings that were kept, when no error object is to come."""
        for text in self.warnings:
            self._say(f"warning: {text}", "yellow")
        self.warnings.clear()

    def _say(self, text: str, style: str) -> None:
        # Whoever reads both streams in one place reads them in the order in which they were written. What
        # cannot be flushed is found when the command ends.
        with contextlib.suppress(OSError, ValueError):
            self.out.flush()
        if self.shows_progress:
            self.console(err=True).print(visible(text), style=style)
        else:
            self.err.write(visible(text) + "\n")
            self.err.flush()


def _nowhere() -> TextIO:
    """Stand in for a stream that the caller has closed; Python has None there."""
    return open(os.devnull, "w", encoding="utf-8")


def _is_tty(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
