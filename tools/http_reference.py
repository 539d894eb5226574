"""Writes what comes from the routes: the OpenAPI document, and the pages of routes and operations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from toft.api import app as applications
from toft.api import operations
from toft.api.central import app as central_applications

_METHODS = ("get", "head", "post", "put", "patch", "delete")


def document() -> str:
    """Return the OpenAPI document as it is checked in."""
    return json.dumps(applications.routes().openapi(), indent=1, sort_keys=True) + "\n"


def central_document() -> str:
    """Return the OpenAPI document of a central as it is checked in."""
    return json.dumps(central_applications.routes().openapi(), indent=1, sort_keys=True) + "\n"


def page() -> str:
    """Return the page of every route."""
    rooms: dict[str, list[str]] = {}
    for path, methods in applications.routes().openapi()["paths"].items():
        for method in _METHODS:
            if method in methods:
                route = methods[method]
                room = str((route.get("tags") or ["other"])[0])
                rooms.setdefault(room, []).extend(_section(f"{method.upper()} {path}", route))
    parts = ["# HTTP\n", _INTRODUCTION]
    for room, lines in rooms.items():
        parts += [f"\n## {room}\n", *lines]
    return "\n".join(parts).rstrip() + "\n"


def _section(name: str, route: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    yield route.get("description", "").strip() + "\n"
    rows = [
        _row(each["name"], each["in"], each.get("schema", {}), is_required=each.get("required", False))
        for each in route.get("parameters", ())
    ]
    body = route.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        schema = body["schema"]
        rows += [
            _row(each, "body", told, is_required=each in schema["required"])
            for each, told in schema["properties"].items()
        ]
    if rows:
        yield "| | in | kind | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    if body is not None:
        yield f"```json\n{json.dumps(body['example'])}\n```\n"
    yield _answers(route["responses"]) + _needs(route)


def _needs(route: Mapping[str, Any]) -> str:
    if route.get("security") == []:
        return "Nobody is asked for a token.\n"
    scope = route.get("x-toft-scope")
    return f"A token needs the scope `{scope}`.\n" if scope else "Any token will do.\n"


def _row(name: str, where: str, schema: Mapping[str, Any], *, is_required: bool) -> str:
    told = str(schema.get("description", ""))
    choices = next((each["enum"] for each in _choices(schema) if "enum" in each), None)
    if choices:
        told = (
            (told + " " if told else "")
            + "One of "
            + ", ".join(f"`{each}`" for each in choices if each)
            + "."
        )
    return f"| `{name}`{'' if is_required else '?'} | {where} | {_kind(schema)} | {_cell(told)} |"


def _choices(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    yield from schema.get("anyOf", ())


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(filter(None, map(_kind, schema["anyOf"])))
    named = schema.get("type", "any")
    return " or ".join(each for each in ([named] if isinstance(named, str) else named) if each != "null")


def _answers(responses: Mapping[str, Any]) -> str:
    done = next(status for status in responses if status.startswith("2"))
    content = responses[done].get("content", {})
    shapes = [_kind(each.get("schema", {})) for each in content.values() if each.get("schema")]
    told = f" {', '.join(shapes)}" if shapes else ""
    kinds = ", ".join(f"`{each}`" for each in content if each != "application/json")
    refused = ", ".join(status for status in responses if status != done)
    return f"Answers {done}{told}{f' as {kinds}' if kinds else ''}; refuses with {refused}.\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


_INTRODUCTION = """\
The daemon answers HTTP/1.1 on the Unix socket `run/toft.sock` in its home, to its owner alone:

```console
$ curl --silent --unix-socket ~/.local/state/toft/run/toft.sock http://localhost/v1/status
```

Every route is described in [OpenAPI](openapi.json), which a node also gives at `/v1/openapi.json`; what the
same thing is called on the other faces stands in [the operations](operations.md).

Bodies are JSON. What JSON cannot say (bytes, tuples, arrays) travels as `application/vnd.toft.value`: the
text of the tree with tags, and buffers behind it (`plugins/packed.py: Packed`). Calls answer with a stream of
frames: a length of 8 bytes, most significant first, then such a value. An error is
`application/problem+json`: `type`, `title`, `status`, `detail`, and the fields of [its code](errors.md). A
client that goes away cancels its call; a job goes on.

`POST /v1/sessions` names a session in its first frame. Requests that carry it as `toft-session` see the
instances that were loaded in it with settings of their own; they end with that answer.
"""


def operations_page() -> str:
    """Return the page of every operation and where each face has it."""
    parts = ["# Operations\n", _OPERATIONS_INTRODUCTION]
    parts.append("| operation | HTTP | command | Python client | page |\n|---|---|---|---|---|")
    for each in operations.OPERATIONS:
        faces = " | ".join(map(_face, (each.route, each.cli, each.client, each.page)))
        parts.append(f"| {each.name} | {faces} |")
    parts.append("\n## Commands beside them\n\n| command | why |\n|---|---|")
    parts += [f"| `{name}` | {_face(why)} |" for name, why in operations.COMMANDS_APART.items()]
    return "\n".join(parts) + "\n"


def _face(text: str) -> str:
    if text.startswith("-"):
        return _cell(text.removeprefix("-").strip())
    return f"`{_cell(text)}`"


_OPERATIONS_INTRODUCTION = """\
What one can ask of a node, and how on each of its faces. A refusal has the same [code](errors.md) on all of
them. Words instead of a name say why a face does without.

"""
