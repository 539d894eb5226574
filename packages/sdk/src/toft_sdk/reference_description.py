"""What a plugin of the reference system is, as data: the `code` section of its manifest."""

from __future__ import annotations

import inspect
import os
import platform
import types

from toft_sdk import hints
from toft_sdk.reference_class import actions_of, concurrency_of
from toft_sdk.reference_environment import is_template, variables_of
from toft_sdk.reference_values import plain
from toft_sdk.schema import signature_schema, type_schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping

# The bases every plugin of that system has; what stands between them and the plugin is its interface.
_ROOTS = ("PluginInterface", "ToolCapability", "ABC", "object", "Protocol", "Generic")
_PACKAGES = ("cjm_plugin_system", "cjm_substrate")
# What a plugin's constructor raises on a machine that lacks what it needs; its description goes on without.
_UNAVAILABLE = (RuntimeError, OSError, ValueError, TypeError, AttributeError, LookupError, ImportError)
_JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")


def describe(
    kind: type[Any], module: str, told: Mapping[str, Any], make: Callable[[], Any]
) -> dict[str, Any]:
    """Describe a class of the reference system; the same fields as `introspect.describe`.

    Args:
        kind: The class.
        module: The module it was imported from.
        told: What its package says about itself.
        make: Constructs it, for what only an instance can say.
    """
    interface = _interface(kind, told.get("interface"))
    schema = _config_schema(kind, told, make)
    properties = schema.get("properties", {})
    described = {
        "name": str(told.get("name") or _said(kind, "name", make) or kind.__name__),
        "version": str(told.get("version") or _said(kind, "version", make) or "0.0.0"),
        "description": str(told.get("description") or _summary(kind)),
        "module": module,
        "class": kind.__qualname__,
        "interface": interface,
        "taxonomy": _taxonomy(interface),
        "resources": _resources(told.get("resources")),
        "config_schema": schema,
        "config_defaults": {name: each["default"] for name, each in properties.items() if "default" in each},
        "worker_env": [_variable(each) for each in variables_of(kind)],
        "actions": _actions(kind),
        "main_thread": False,
        "concurrency": concurrency_of(kind),
        "fork_safe": False,
        "hosting": "reference",
        "python": platform.python_version(),
    }
    if told.get("category"):
        described["category"] = str(told["category"])
    return described


def _interface(kind: type[Any], named: Any) -> str:
    """Return the interface a package names if there is one, else the one its class has."""
    bases = {f"{base.__module__}.{base.__qualname__}": base for base in kind.__mro__[1:]}
    if isinstance(named, str) and named in bases:
        return named
    for full, base in bases.items():
        if base.__name__ not in _ROOTS and getattr(base, "__abstractmethods__", None):
            return full
    for full, base in bases.items():
        if base.__name__ in _ROOTS[:2]:
            return full
    return named if isinstance(named, str) and "." in named else f"{kind.__module__}.{kind.__qualname__}"


def _taxonomy(interface: str) -> dict[str, str]:
    root, _, rest = interface.partition(".")
    inner = root[len("cjm_") : -len("_plugin_system")] if root.endswith("_plugin_system") else ""
    domain = inner if root.startswith("cjm_") and inner else root
    return {"domain": domain, "role": rest.rpartition(".")[2] or rest, "interface_fqcn": interface}


def _said(kind: type[Any], name: str, make: Callable[[], Any]) -> Any:
    value = getattr(kind, name, None)
    if not isinstance(value, property):
        return value
    try:
        return getattr(make(), name)
    except _UNAVAILABLE:
        return None


def _resources(told: Any) -> dict[str, Any]:
    given = told if isinstance(told, dict) else {}
    return {
        "requires_gpu": bool(given.get("requires_gpu", False)),
        "platforms": [str(each) for each in given.get("platforms") or ()],
        "accelerators": [str(each) for each in given.get("accelerators") or ()],
    }


def _variable(each: dict[str, Any]) -> dict[str, Any]:
    # What has places to fill in means nothing to the host; the worker fills it in itself.
    if each["default"] is not None and is_template(each["default"]):
        return {**each, "default": None}
    return each


def _actions(kind: type[Any]) -> dict[str, Any]:
    schema = signature_schema(types.MethodType(kind.execute, kind), kind)
    returns = schema.pop("returns")
    parameters = {name: _loosened(each) for name, each in schema["parameters"].items()}
    given = {**schema, "parameters": parameters, "x-toft-file-backed": True}
    streams = _streams(kind)
    main = {
        "input": given,
        "output": returns if returns.get("type") in _JSON_TYPES else {},
        "stream": streams,
        "description": _summary(kind.execute),
    }
    found = {"execute": main}
    dispatched = {name: each for name, each in parameters.items() if name not in ("action", "command")}
    required = [name for name in schema["required"] if name in dispatched]
    for name, method in sorted(actions_of(kind).items()):
        inner = {**given, "parameters": {**_of_method(kind, method), **dispatched}, "required": required}
        about = _summary(method) if method is not None else ""
        found[name] = {"input": inner, "output": {}, "stream": streams, "description": about}
    return found


def _of_method(kind: type[Any], method: Any) -> dict[str, Any]:
    """Return the parameters of the method behind an action; `execute` takes them by name."""
    if method is None or not hasattr(method, "__code__"):
        return {}
    parameters = signature_schema(types.MethodType(method, kind), kind)["parameters"]
    named = {name: each for name, each in parameters.items() if each["kind"] != "var_positional"}
    return {name: {**_loosened(each), "kind": "keyword_only"} for name, each in named.items()}


def _loosened(schema: dict[str, Any]) -> dict[str, Any]:
    """Keep of a parameter's schema what that system's callers kept to: the plain types, nothing inside."""
    kept: dict[str, Any] = {
        word: schema[word] for word in ("kind", "default", "description") if word in schema
    }
    kinds = schema.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    if {each.get("type") for each in schema.get("anyOf", ())} == {"string"}:
        # Text or a path: a path is given as text anyway.
        return {**kept, "type": "string"}
    if "x-toft-type" not in schema and all(each in _JSON_TYPES for each in listed):
        kept["type"] = kinds
    return kept


def _streams(kind: type[Any]) -> bool:
    method = getattr(kind, "execute_stream", None)
    return method is not None and getattr(method, "__module__", "").split(".")[0] not in _PACKAGES


def _config_schema(kind: type[Any], told: Mapping[str, Any], make: Callable[[], Any]) -> dict[str, Any]:
    found = told.get("config_schema")
    if not isinstance(found, dict):
        try:
            found = make().get_config_schema()
        except _UNAVAILABLE:
            found = None
    schema = _jsonlike(found) if isinstance(found, dict) else {}
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return schema
    annotations = _annotations(kind)
    mended = {
        name: _mended(_portable(each), annotations.get(name)) if isinstance(each, dict) else each
        for name, each in properties.items()
    }
    return {"type": "object", **schema, "properties": mended}


def _annotations(kind: type[Any]) -> dict[str, Any]:
    config = getattr(kind, "config_class", None)
    return hints.of_class(config) if isinstance(config, type) else {}


def _portable(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out a default inside the data directory, which is another for each worker."""
    data = os.environ.get("CJM_DATA_DIR")
    if data and isinstance(schema.get("default"), str) and data in schema["default"]:
        return {word: value for word, value in schema.items() if word != "default"}
    return schema


def _mended(schema: dict[str, Any], annotation: Any) -> dict[str, Any]:
    """Correct the type of a field: that system writes `string` for everything it does not know."""
    if annotation is not None and "enum" not in schema:
        real = type_schema(annotation)
        if "type" in real:
            schema = {**schema, "type": real["type"]}
        elif not set(real) & {"enum", "x-toft-type"}:
            schema = {word: value for word, value in schema.items() if word != "type"}
    kinds = schema.get("type")
    if "default" in schema and schema["default"] is None and isinstance(kinds, str) and kinds != "null":
        schema = {**schema, "type": [kinds, "null"]}
        if "enum" in schema and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
    return schema


def _jsonlike(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _jsonlike(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_jsonlike(each) for each in value]
        return sorted(items, key=repr) if isinstance(value, (set, frozenset)) else items
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    flat = plain(value)
    return flat if isinstance(flat, dict) else str(getattr(value, "value", value))


def _summary(thing: Any) -> str:
    text = thing.__doc__ if isinstance(thing, type) else inspect.getdoc(thing)
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())
