"""Write docs/decisions/README.md from the decision records beside it; `--check` only compares.

A record is `NNNN-title.md` with a first line `# NNNN: title`, a line `Status: ...`, and the sections Context,
Choice and Consequences.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tracked_files import ROOT

FOLDER = ROOT / "docs" / "decisions"
INDEX = FOLDER / "README.md"
SECTIONS = ("Context", "Choice", "Consequences")
HEAD = """# Decisions

What was chosen, why, and what follows from it. One record a choice; a record is not rewritten when it is
overtaken, a newer one says so. Made by `make fix` from the records; do not edit.

| record | status |
| --- | --- |
"""


def list_records() -> list[Path]:
    return sorted(FOLDER.glob("[0-9][0-9][0-9][0-9]-*.md"))


def complaints_about(records: list[Path]) -> Iterator[str]:
    numbers: dict[str, str] = {}
    for record in records:
        text = record.read_text(encoding="utf-8")
        number = record.name[:4]
        if number in numbers:
            yield f"{record.name}: number {number} is taken by {numbers[number]}"
        numbers[number] = record.name
        if not re.match(rf"# {number}: \S", text):
            yield f"{record.name}: the first line is not `# {number}: title`"
        if not re.search(r"^Status: \S", text, re.MULTILINE):
            yield f"{record.name}: no `Status: ...` line"
        for section in SECTIONS:
            if not re.search(rf"^## {section}$", text, re.MULTILINE):
                yield f"{record.name}: no section `## {section}`"


def render(records: list[Path]) -> str:
    rows = []
    for record in records:
        text = record.read_text(encoding="utf-8")
        title = text.splitlines()[0].removeprefix("# ")
        status = re.search(r"^Status: (.+)$", text, re.MULTILINE)
        rows.append(f"| [{title}]({record.name}) | {status.group(1) if status else ''} |\n")
    return HEAD + "".join(rows)


def main() -> int:
    records = list_records()
    found = list(complaints_about(records))
    text = "" if found else render(records)
    if not found and "--check" not in sys.argv[1:]:
        INDEX.write_text(text, encoding="utf-8")
    elif not found and (not INDEX.exists() or INDEX.read_text(encoding="utf-8") != text):
        found.append("docs/decisions/README.md is not what the records give; run `make fix`")
    for complaint in found:
        print(complaint)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
