"""The page of the document of a node, from its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from toft.managed import document

_INTRODUCTION = """\
# The document of a node

One document says what a node is to be. It is written as TOML, YAML or JSON and kept as JSON; its name
(`etag`) is `sha256-` and the hash of its bytes, at most {most} of them. A name that stands in no table is
refused, with the nearest one that does; a name that starts with `x-` is yours and never looked at.
[document.schema.json](document.schema.json) is the same as a JSON Schema, version {version}.

```toml
schema_version = 1

[settings]
lanes = 2

jobs_keep_s = 604800
```

`toft config validate FILE` names everything wrong with a document and changes nothing; `toft config apply
FILE` puts it beside the running one and tries it ([how](../explanation/staged-apply.md)).
"""

_NOT_SERVED = """\
## Not served yet

The schema has room for these; a document that uses one is valid, and is not applied here.

| what | why |
|---|---|
"""


def page() -> str:
    """Return the page."""
    schema = document.schema()
    parts = [_INTRODUCTION.format(most=document.MAX_BYTES, version=document.SCHEMA_VERSION)]
    parts += _tables("The whole", schema, schema)
    for name, node in schema["$defs"].items():
        parts += _tables(f"A {name}", node, schema)
    rows = "".join(f"| `{name}` | {why} |\n" for name, why in sorted(document.NOT_SERVED.items()))
    parts.append(_NOT_SERVED + rows)
    return "\n".join(parts)


def _tables(title: str, node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of an object, then those of the objects in it."""
    required = node.get("required", ())
    yield f"## {title}\n\n{node['description']}\n\n| name | what it is | type | |\n|---|---|---|---|"
    for name, each in node["properties"].items():
        mark = "required" if name in required else ""
        if "default" in each:
            mark = f"default `{json.dumps(each['default'])}`"
        yield f"| `{name}` | {each['description']} | {_type(each)} | {mark} |"
    yield ""
    for name, each in node["properties"].items():
        if each.get("properties"):
            yield from _tables(f"`{name}`", each, schema)


def _type(node: Mapping[str, Any]) -> str:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return f"[{name}](#a-{name})"
    if "enum" in node:
        return ", ".join(f"`{each}`" for each in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if isinstance(node.get("additionalProperties"), Mapping) and node["additionalProperties"]:
        return f"by name: {_type(node['additionalProperties'])}"
    return f"{node['type']}{_limits(node)}"


def _limits(node: Mapping[str, Any]) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    return "" if low is None else f", {low:,} to {high:,}"
