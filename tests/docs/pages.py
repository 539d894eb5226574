"""Reads the repository's Markdown pages: links, anchors, fenced examples, `file: Symbol` mentions."""

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = (
    ROOT,
    ROOT / "packages/node/src/toft",
    ROOT / "packages/sdk/src/toft_sdk",
    ROOT / "packages/sdk/src",
)

FENCE = re.compile(
    r"^(?P<indent> *)(?P<mark>`{3,}|~{3,})(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)(?P=mark) *$",
    re.M | re.S,
)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6} (.+?)#*\s*$", re.M)
MENTION = re.compile(r"`([\w./-]+\.(?:py|sql|js|sh)): ([A-Za-z_][\w.]*)`")


@dataclass(frozen=True)
class Example:
    """One fenced block whose first line has the word `run`, or `file=NAME`."""

    language: str
    words: tuple[str, ...]
    body: str
    line: int

    @property
    def file(self) -> str:
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), "")


def list_pages() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=20).stdout.decode()
    paths = (ROOT / name for name in sorted(set(filter(None, names.split("\0")))))
    return [path for path in paths if path.is_file() and "fixtures" not in path.parts]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as the usual renderers make them."""
    found: dict[str, int] = {}
    names = set()
    for title in HEADING.findall(prose(path.read_text(encoding="utf-8"))):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names


def dead_links(path: Path) -> Iterator[str]:
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(path.read_text(encoding="utf-8")))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        if not page.exists():
            yield f"{target}: no such file"
        elif anchor and page.suffix == ".md" and anchor not in anchors(page):
            yield f"{target}: no such heading"


def examples(path: Path) -> Iterator[Example]:
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        language, *words = match["info"].split() or [""]
        if "run" in words or any(word.startswith("file=") for word in words):
            body = (
                re.sub(rf"^{match['indent']}", "", match["body"], flags=re.M)
                if match["indent"]
                else match["body"]
            )
            yield Example(language, tuple(words), body, text[: match.start()].count("\n") + 1)


def symbols(source: Path) -> set[str]:
    """Return every dotted name a Python file defines at any depth, or the query names of an SQL file."""
    text = source.read_text(encoding="utf-8")
    if source.suffix != ".py":
        return set(re.findall(r"[A-Za-z_]\w*", text))
    names: set[str] = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(prefix + child.name)
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.Assign | ast.AnnAssign):
                targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))
            else:
                visit(child, prefix)

    visit(ast.parse(text), "")
    return names


def broken_mentions(path: Path) -> Iterator[str]:
    for file, symbol in MENTION.findall(path.read_text(encoding="utf-8")):
        source = next((base / file for base in SOURCES if (base / file).is_file()), None)
        if source is None:
            yield f"{file}: {symbol}: no such file"
        elif symbol not in symbols(source):
            yield f"{file}: {symbol}: the file has no such name"
