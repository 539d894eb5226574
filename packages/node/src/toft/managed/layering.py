"""Which layer of a node's configuration wins: the document, the command line, a variable, a file.

The document locks every key that it names; a local value of such a key is dropped, and told as dropped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toft.kernel import errors, settings, suggestions
from toft.kernel.settings import Layer, Settings
from toft.managed import document, generations, hiding
from toft.managed.document import Document
from toft.managed.hiding import SET, Schemas

_SECRET_SETTINGS = frozenset({"tracing_endpoint"})
"""Settings whose values can hold a password in an address."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local:
    """What a node is told on its own machine.

    Attributes:
        layers: Of its settings, the strongest first.
        settings: All of them together, before the document.
    """

    layers: tuple[Layer, ...]
    settings: Settings

    @classmethod
    def of(cls, environ: Mapping[str, str], chosen: Settings, directory: Path | None = None) -> Local:
        """Return it for a process whose settings are known; what no layer says came by its command line."""
        caller, *others = settings.layers(environ, directory=directory, home=chosen.home)
        known: dict[str, Any] = {}
        for layer in reversed(others):
            known |= layer.values
        known.setdefault("home", settings.default_home(environ))
        said = {
            each.name: getattr(chosen, each.name)
            for each in dataclasses.fields(Settings)
            if getattr(chosen, each.name) != known.get(each.name, each.default)
        }
        return cls(layers=(dataclasses.replace(caller, values=said), *others), settings=chosen)


def explain(
    key: str, running: Document, local: Local, schema_of: Schemas = hiding.nothing_known
) -> dict[str, Any]:
    """Return which layer says what of a key, and which one wins.

    Args:
        key: A setting, such as `lanes`, or a place in the document, such as `instances.ocr.config.size`.
        running: What runs.
        local: What this machine says.
        schema_of: What plugins say is secret.

    Raises:
        NotFoundError: There is no such key.
    """
    name = key.removeprefix("settings.")
    known = {each.name: each for each in dataclasses.fields(Settings)}
    if name not in known:
        return _of_document(key, running, schema_of)
    found = [
        _layer("document", running.etag, running.section("settings"), name),
        *(_layer(each.name, each.where.get(name, ""), each.values, name) for each in local.layers),
    ]
    layers = [each for each in found if each is not None]
    default = None if known[name].default is dataclasses.MISSING else known[name].default
    layers.append({"layer": "default", "where": "", "value": _shown(name, default)})
    return {
        "key": f"settings.{name}",
        "won": layers[0]["layer"],
        "value": layers[0]["value"],
        "layers": layers,
    }


def overrides(running: Document, local: Local) -> list[dict[str, Any]]:
    """Return the local values that the document has dropped because it names their keys."""
    dropped = []
    for name, value in running.section("settings").items():
        for layer in local.layers:
            if name in layer.values and layer.values[name] != value:
                dropped.append(
                    {
                        "section": "settings",
                        "key": name,
                        "layer": layer.name,
                        "where": layer.where.get(name, ""),
                        "value": _shown(name, layer.values[name]),
                        "reason": "the document names it",
                    }
                )
    return dropped


def effective(running: Document, local: Local, schema_of: Schemas = hiding.nothing_known) -> dict[str, Any]:
    """Return what a node is with its document and what it is told locally; `<set>` for what is secret."""
    merged = {**dataclasses.asdict(local.settings), **running.own("settings")}
    body = {name: value for name, value in running.value.items() if name != "settings"}
    body = {
        "settings": {name: _shown(name, value) for name, value in sorted(merged.items())},
        **redacted(body, schema_of),
    }
    text = json.dumps(body, sort_keys=True, default=str, separators=(",", ":"))
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "body": json.loads(text)}


def redacted(value: Any, schema_of: Schemas = hiding.nothing_known, path: tuple[str, ...] = ()) -> Any:
    """Return a document without what is nobody's to read.

    That is where secrets are, the hashes of tokens, and what a plugin says is secret of its configuration.
    """
    if isinstance(value, Mapping):
        if path[:1] == ("instances",) and len(path) == 2 and "config" in value:
            schema = schema_of(str(value.get("plugin", path[1])))
            value = {**value, "config": hiding.masked(value["config"], schema or {})}
        if path[-1:] == ("secrets",):
            return dict.fromkeys(value, SET)
        return {name: redacted(each, schema_of, (*path, name)) for name, each in value.items()}
    if path[-1:] == ("sha256",) and path[:2] == ("access", "tokens"):
        return SET
    return [redacted(each, schema_of, path) for each in value] if isinstance(value, list) else value


def drift(
    standing: generations.Standing, dropped: Sequence[Mapping[str, Any]], changed: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Return how this machine differs from what its document says.

    Args:
        standing: What lies on disk.
        dropped: What `overrides` returns.
        changed: What is different in the code that belongs to the document.
    """
    found = [{"kind": "file", "key": "journal", "detail": each} for each in standing.problems]
    # The other slot too: it is what one would go back to.
    for slot in standing.slots.values():
        if slot.problem and not slot.is_absent:
            found.append({"kind": "file", "key": f"slot {slot.name}", "detail": slot.problem})
    for each in dropped:
        where = each.get("where") or each.get("layer", "")
        detail = f"{each['reason']}; {where} says {each['value']}" if "value" in each else str(each["reason"])
        found.append({"kind": "override", "key": f"{each['section']}.{each['key']}", "detail": detail})
    return found + [{"kind": "artifact", "key": "plugins", "detail": each} for each in changed]


def running_document(standing: generations.Standing) -> Document:
    """Return the document that counts; an empty one where there is none that can be read."""
    slot = standing.slots.get(standing.active or "")
    try:
        return document.parse(slot.document) if slot and not slot.problem and slot.document else _empty()
    except document.DocumentError:
        return _empty()


def _empty() -> Document:
    return document.parse(document.encode({"schema_version": document.SCHEMA_VERSION}))


def _of_document(key: str, running: Document, schema_of: Schemas) -> dict[str, Any]:
    steps = key.split(".")
    value: Any = redacted(running.value, schema_of)
    described: Any = document.schema()
    is_set = True
    for step in steps:
        described = _below(described, step)
        if described is None:
            raise _unknown(key)
        is_set = is_set and isinstance(value, Mapping) and step in value
        value = value[step] if is_set else None
    layers = [{"layer": "document", "where": running.etag, "value": value}] if is_set else []
    layers.append({"layer": "default", "where": "", "value": described.get("default")})
    return {"key": key, "won": layers[0]["layer"], "value": layers[0]["value"], "layers": layers}


def _below(described: Mapping[str, Any], step: str) -> Any:
    """Return what the schema says of a member; None when there can be none of this name."""
    if "$ref" in described:
        described = document.schema()["$defs"][described["$ref"].rpartition("/")[2]]
    found = described.get("properties", {}).get(step)
    if found is None and step.startswith("x-"):
        found = {}
    if found is None:
        further = described.get("additionalProperties", "type" in described and described["type"] == "object")
        found = {} if further is True else further or None
    return found


def _unknown(key: str) -> errors.NotFoundError:
    names = [each.name for each in dataclasses.fields(Settings)] + sorted(document.schema()["properties"])
    near = suggestions.nearest(key.partition(".")[0] if "." in key else key, names)
    return errors.NotFoundError(
        f"nothing in the configuration is called {key!r:.200}",
        code="configuration.unknown_key",
        details={"key": key[:200]},
        hint=f"did you mean {near}?"
        if near
        else "a setting, such as lanes, or a place such as health.settle_s",
    )


def _layer(name: str, where: str, values: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    return {"layer": name, "where": where, "value": _shown(key, values[key])} if key in values else None


def _shown(name: str, value: Any) -> Any:
    if value is not None and name in _SECRET_SETTINGS:
        return SET
    return json.loads(json.dumps(value, default=str))
