"""Write the reference pages that come from the code: the command line, the error codes, the settings.

`--check` writes nothing and fails when a page is not what the code says.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import document_reference
import face_reference
import http_reference
import typer

from toft.cli import app as toft_app
from toft.cli import hints
from toft.kernel import settings
from toft.managed import document

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
NOTE = "<!-- Written by tools/generate_docs.py; change the code, then run it. -->\n"


def cli_page() -> str:
    """Return the page of every command."""
    command = typer.main.get_command(toft_app.app)
    parts = [NOTE, "# Command line\n", _CLI_INTRODUCTION]
    parts += _commands(command, "toft", None)
    return "\n".join(parts)


_CLI_INTRODUCTION = """\
Results go to stdout, everything else to stderr. `--json` prints one JSON value on stdout; a failure is then
one object `{"error": {"code", "blame", "category", "message", "details", "hint"}}` on stderr, and warnings do
not disturb it. Text that comes from plugins cannot drive the terminal.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | failed; [the code](errors.md) says how |
| 2 | the command line cannot be right |
| 130 | cancelled with Ctrl-C; the call was cancelled, not only left alone |

"""


def _commands(command: Any, path: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=path.rpartition(" ")[2], parent=parent)
    yield from _command(command, path, context)
    for name, each in sorted(getattr(command, "commands", {}).items()):
        if not each.hidden:
            yield from _commands(each, f"{path} {name}", context)


def _command(command: Any, path: str, context: Any) -> Iterator[str]:
    pieces = command.collect_usage_pieces(context)
    yield f"## {path}\n"
    yield f"```text\n{path} {' '.join(pieces)}\n```\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    rows = [row for row in map(_row, command.get_params(context)) if row]
    if rows:
        yield "| | |\n|---|---|\n" + "\n".join(rows) + "\n"


def _row(parameter: Any) -> str:
    if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
        return ""
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    else:
        names = [each for each in (*parameter.opts, *parameter.secondary_opts)]
        name = ", ".join(names) + (f" {parameter.metavar}" if parameter.metavar else "")
    return f"| `{_cell(name)}` | {_cell(parameter.help or '')} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


@dataclasses.dataclass(frozen=True)
class Raised:
    """One place where a code is given to an error."""

    code: str
    message: str
    hint: str


def error_codes() -> dict[str, list[Raised]]:
    """Return every place in the packages that gives an error its code, by code."""
    found: dict[str, list[Raised]] = {}
    for package in ("sdk/src/toft_sdk", "node/src/toft"):
        for path in sorted((ROOT / "packages" / package).rglob("*.py")):
            for each in _raised(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(each.code, []).append(each)
    return found


def errors_page() -> str:
    """Return the page of every error code in the source, with the message and the next step."""
    found = error_codes()
    parts = [NOTE, "# Error codes\n", _ERRORS_INTRODUCTION]
    room = ""
    for code, places in sorted(found.items()):
        if code.partition(".")[0] != room:
            room = code.partition(".")[0]
            parts.append(f"\n## {room}\n\n| code | what happened | next |\n|---|---|---|")
        messages = list(dict.fromkeys(each.message for each in places if each.message))
        steps = list(dict.fromkeys(each.hint for each in places if each.hint)) or [hints.of(code, {})]
        parts.append(f"| `{code}` | {_cell('; '.join(messages[:3]))} | {_cell('; '.join(steps[:2]))} |")
    return "\n".join(parts) + "\n"


_ERRORS_INTRODUCTION = """\
An error has a `code` that stays, a `blame` (`caller`, `plugin`, `environment` or `node`), a `category`
(`user_input`, `transient`, `resource`, `fatal` or `cancelled`), a `message`, `details` as evidence and a
`hint`: the next step.
"""


def _raised(tree: ast.AST) -> Iterator[Raised]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from _class_code(node)
        elif isinstance(node, ast.Call):
            given = {each.arg: each.value for each in node.keywords if each.arg}
            code = given.get("code")
            if isinstance(code, ast.Constant) and isinstance(code.value, str) and _is_code(code.value):
                message = _text(node.args[0]) if node.args else ""
                yield Raised(code.value, message, _text(given["hint"]) if "hint" in given else "")


def _class_code(node: ast.ClassDef) -> Iterator[Raised]:
    for each in node.body:
        target: ast.expr | None = each.target if isinstance(each, ast.AnnAssign) else None
        if isinstance(each, ast.Assign):
            target = each.targets[0]
        value = getattr(each, "value", None)
        if isinstance(target, ast.Name) and target.id == "code" and isinstance(value, ast.Constant):
            code = str(value.value)
            if _is_code(code):
                yield Raised(code, (ast.get_docstring(node) or "").split("\n")[0], "")


def _is_code(text: str) -> bool:
    return re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", text) is not None


def _text(node: ast.expr) -> str:
    """Return a message as it is written, with `…` where a value goes."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "…" for each in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "…" if isinstance(node, ast.IfExp) else ""


def settings_page() -> str:
    """Return the page of every setting."""
    described = _attributes(settings.Settings.__doc__ or "")
    variables = {field: name for name, field in settings._ENVIRONMENT.items()}
    parts = [NOTE, "# Settings\n", inspect.cleandoc(settings.__doc__ or ""), ""]
    parts.append("| setting | default | environment | what it is |\n|---|---|---|---|")
    for field in dataclasses.fields(settings.Settings):
        default = "" if field.name == "home" else _default(field.default)
        variable = f"`{variables[field.name]}`" if field.name in variables else ""
        parts.append(f"| `{field.name}` | {default} | {variable} | {_cell(described.get(field.name, ''))} |")
    return "\n".join(parts) + "\n"


def _attributes(docstring: str) -> dict[str, str]:
    """Return what a Google docstring says of each attribute, continuation lines joined."""
    _, _, section = inspect.cleandoc(docstring).partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        begin = re.match(r" {4}(\w+): (.+)$", line)
        if begin:
            name, found[begin[1]] = begin[1], begin[2]
        elif line.startswith(" " * 8) and name:
            found[name] += " " + line.strip()
    return found


def _default(value: Any) -> str:
    if value is None or value == ():
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


GENERATED = {
    "central-openapi.json": http_reference.central_document,
    "cli.md": cli_page,
    "client.md": lambda: NOTE + face_reference.client_page(),
    "document.md": lambda: NOTE + document_reference.page(),
    "document.schema.json": document.schema_text,
    "errors.md": errors_page,
    "http.md": lambda: NOTE + http_reference.page(),
    "openapi.json": http_reference.document,
    "operations.md": lambda: NOTE + http_reference.operations_page(),
    "pages.md": lambda: NOTE + face_reference.pages_page(),
    "settings.md": settings_page,
}


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    is_check = parser.parse_args().check
    stale = []
    for name, write in GENERATED.items():
        path, text = PAGES / name, write()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if is_check:
            stale.append(str(path.relative_to(ROOT)))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"not what the code says: {', '.join(stale)}; run: python tools/generate_docs.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
