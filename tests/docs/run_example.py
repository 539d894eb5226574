"""Runs the fenced examples of one page, in order, in one folder.

`file=NAME` writes the block to a file; `python run` runs it with this interpreter; `console run` runs each
line that starts with `$ ` in a shell and compares what it prints with the lines below it, where `...` stands
for anything; `page run` does each line in a browser (`tests/docs/page_examples.py`).
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.docs.pages import Example

LIMIT_S = 60


def environment() -> dict[str, str]:
    """Put this interpreter's commands first, as an activated environment would; plain output, one width."""
    folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }


def commands(body: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with the output written below it."""
    parts = re.split(r"^\$ ", body, flags=re.M)
    for part in parts[1:]:
        lines = part.splitlines(keepends=True)
        count = 1
        while count < len(lines) and lines[count - 1].rstrip().endswith("\\"):
            count += 1
        yield "".join(lines[:count]), "".join(lines[count:])


def fits(expected: str, printed: str) -> bool:
    pattern = re.escape(re.sub(r"[ \t]+$", "", expected.strip(), flags=re.M)).replace(re.escape("..."), ".*?")
    return re.fullmatch(pattern, re.sub(r"[ \t]+$", "", printed.strip(), flags=re.M), re.S) is not None


def run(command: list[str], folder: Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    # One stream, as a person at a terminal sees it.
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )


def run_examples(
    examples: Iterable[Example], folder: Path, browse: Callable[[str], object] | None = None
) -> None:
    for example in examples:
        if example.file:
            target = folder / example.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(example.body, encoding="utf-8")
        if "run" in example.words and example.language == "python":
            result = run(
                [sys.executable, example.file or "-"], folder, None if example.file else example.body
            )
            assert result.returncode == 0, f"line {example.line}: {result.stdout}"
        elif "run" in example.words and example.language == "page":
            assert browse is not None, f"line {example.line}: a page example says `run system`"
            browse(example.body)
        elif "run" in example.words:
            for command, expected in commands(example.body):
                result = run(["bash", "-c", command], folder)
                ended = f"line {example.line}: $ {command}ended with {result.returncode}:\n{result.stdout}"
                assert result.returncode == 0 or "fails" in example.words, ended
                assert not expected.strip() or fits(expected, result.stdout), (
                    f"{ended}\nexpected:\n{expected}"
                )
