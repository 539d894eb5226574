"""Refuse files, functions, classes and constructors that have grown past what one reader can hold.

`tools/size_allowances.txt` names what is larger all the same, one `path: name: measure: number` a line. It
may only shrink: a number above what is written fails, and so does one below it, until the line is lowered or
removed.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tracked_files import ROOT, list_files

LIMITS = {
    "file lines": 700,
    "function lines": 80,
    "public methods": 20,
    "methods": 30,
    "constructor arguments": 8,
}
ALLOWANCES = ROOT / "tools" / "size_allowances.txt"
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Size:
    """One measured thing that is over its limit."""

    path: str
    name: str
    measure: str
    number: int

    @property
    def key(self) -> str:
        return f"{self.path}: {self.name}: {self.measure}"


def measure_class(path: str, node: ast.ClassDef) -> Iterator[Size]:
    methods = [child for child in node.body if isinstance(child, Function)]
    public = [method for method in methods if not method.name.startswith("_")]
    yield Size(path, node.name, "public methods", len(public))
    yield Size(path, node.name, "methods", len(methods))
    for method in methods:
        if method.name == "__init__":
            arguments = method.args
            count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs) - 1
            yield Size(path, node.name, "constructor arguments", count)


def measure(path: Path) -> Iterator[Size]:
    name = str(path.relative_to(ROOT))
    text = path.read_text(encoding="utf-8")
    yield Size(name, "-", "file lines", text.count("\n"))
    for node in ast.walk(ast.parse(text, name)):
        if isinstance(node, Function):
            yield Size(name, node.name, "function lines", (node.end_lineno or node.lineno) - node.lineno + 1)
        elif isinstance(node, ast.ClassDef):
            yield from measure_class(name, node)


def read_allowances() -> dict[str, int]:
    lines = ALLOWANCES.read_text(encoding="utf-8").splitlines() if ALLOWANCES.exists() else []
    pairs = (line.rpartition(": ") for line in lines if line.strip() and not line.startswith("#"))
    return {key: int(number) for key, _, number in pairs}


def main() -> int:
    allowed = read_allowances()
    complaints = []
    seen = set()
    for path in list_files("*.py"):
        for size in measure(path):
            if size.number <= LIMITS[size.measure]:
                continue
            seen.add(size.key)
            limit = allowed.get(size.key, LIMITS[size.measure])
            if size.number > limit:
                complaints.append(f"{size.key}: {size.number}, at most {limit}")
            elif size.number < limit:
                complaints.append(
                    f"{size.key}: {size.number} now; lower its line in {ALLOWANCES.name} from {limit}"
                )
    complaints += [
        f"{key}: within its limit now; remove its line from {ALLOWANCES.name}" for key in set(allowed) - seen
    ]
    for complaint in sorted(complaints):
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
