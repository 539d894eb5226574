"""Writes what comes from the Python client and the pages: every method, and every page."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import toft
from toft import blocking
from toft.api import operations
from toft.blocking import looking
from toft.web import app as web

_CLIENT: tuple[tuple[str, str, type], ...] = (
    ("node", "what `connect` gives", blocking.Node),
    ("node.installed", "plugins that need not run", blocking.Installed),
    ("node.jobs", "durable jobs, sequences and graphs", blocking.Jobs),
    ("job", "what `submit` and `get` give", blocking.Job),
    ("instance", "what `load` gives", blocking.Instance),
    ("call", "what `start` gives", blocking.Call),
    ("chunks", "what `stream` gives", blocking.Chunks),
    ("node.secrets", "of a node elsewhere", looking.Secrets),
    ("node.configuration", "of a node elsewhere", looking.Configuration),
    ("node.documents", "of a node elsewhere", looking.Documents),
)


def client_page() -> str:
    """Return the page of every method of the Python client."""
    parts = ["# Python client, method by method\n", _CLIENT_INTRODUCTION]
    parts += ["## toft\n", *_row_head(), _method("connect", toft.connect), ""]
    for name, what, kind in _CLIENT:
        parts += [f"## {name}\n", f"{what[0].upper()}{what[1:]}.\n", *_row_head()]
        parts += [_method(each, found) for each, found in sorted(_members(kind))]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _row_head() -> tuple[str, str]:
    return "| | |", "|---|---|"


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    for name, found in inspect.getmembers(kind):
        if not name.startswith("_") and (inspect.isfunction(found) or isinstance(found, property)):
            yield name, found


def _method(name: str, found: Any) -> str:
    if isinstance(found, property):
        return f"| `{name}` | {_first(found.fget)} |"
    parameters = inspect.signature(found).parameters.values()
    taken = ", ".join(_parameter(each) for each in parameters if each.name != "self")
    return f"| `{name}({_cell(taken)})` | {_first(found)} |"


def _parameter(each: inspect.Parameter) -> str:
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    bare = stars.get(each.kind, "") + each.name
    return bare if each.default is inspect.Parameter.empty else f"{bare}={each.default!r}"


def _first(found: Any) -> str:
    """Return the first paragraph of a docstring."""
    return _cell(inspect.cleandoc(found.__doc__ or "").partition("\n\n")[0])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


_CLIENT_INTRODUCTION = """\
Every word of the client that blocks; `toft.open_node` and `toft.open_remote` have the same, awaited.
[The guide](python-api.md) says how they go together, [the operations](operations.md) what each is called
elsewhere.
"""


def pages_page() -> str:
    """Return the page of every page."""
    parts = ["# Pages\n", _PAGES_INTRODUCTION, "| page | what it is | what one does there |", "|---|---|---|"]
    for route in web.ROUTES:
        if "GET" in (route.methods or ()) and not route.path.startswith("/static"):
            told = _first(route.endpoint)
            there = ", ".join(f"`{each.name}`" for each in operations.OPERATIONS if each.page == route.path)
            parts.append(f"| `{route.path}` | {told} | {there} |")
    return "\n".join(parts) + "\n"


_PAGES_INTRODUCTION = """\
`toft open` prints a link that signs a browser in. The pages work without a network, on a phone and by
keyboard: `/` goes to the search, `g` and a letter to a page, `?` shows all keys. What each operation is
called elsewhere stands in [the operations](operations.md).
"""
