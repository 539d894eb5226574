"""What a plugin is, as data: the `code` section of its manifest, made from the class without an instance."""

from __future__ import annotations

import inspect
import platform
import types

from toft_sdk.actions import collect
from toft_sdk.discovery import find_class
from toft_sdk.errors import FatalError
from toft_sdk.plugin import EnvVar, Plugin
from toft_sdk.schema import config_defaults, config_schema, signature_schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from toft_sdk.actions import Action

# What every toft plugin implements, in the manifest's word for it.
INTERFACE = "toft_sdk.Plugin"


def describe(module: str, class_name: str | None = None) -> dict[str, Any]:
    """Describe the plugin class of a module.

    Args:
        module: Dotted name to import.
        class_name: Name of the class; None takes the only plugin the module has.

    Returns:
        `name, version, description, module, class, interface, resources, config_schema, config_defaults,
        worker_env, actions, main_thread, concurrency, fork_safe, python`, and `taxonomy` when declared. Each
        action has `input` (`parameters`, `required`, `additional`), `output`, `stream`, `description`, and
        `chunk` (the schema of one) when it streams.
    """
    kind = find_class(module, class_name)
    if issubclass(kind, Plugin):
        return describe_class(kind, module)
    # Only for classes of the reference system.
    from toft_sdk.reference import ReferenceHosted  # noqa: PLC0415

    described: dict[str, Any] = ReferenceHosted(kind, module).describe()
    return described


def describe_class(kind: type[Plugin], module: str) -> dict[str, Any]:
    """Describe a toft plugin class; see `describe`.

    Raises:
        FatalError: A class attribute is not what it must be.
    """
    if kind.Config is not None and not hasattr(kind.Config, "__dataclass_fields__"):
        raise _misdeclared(kind, f"Config is no dataclass; put @dataclass above {kind.Config!r}")
    taxonomy = {}
    if kind.domain or kind.role:
        taxonomy = {"domain": kind.domain, "role": kind.role or kind.__name__, "interface_fqcn": INTERFACE}
    return {
        "name": kind.name,
        "version": kind.version or _package_version(module),
        "description": kind.description or _summary(kind),
        "module": module,
        "class": kind.__qualname__,
        "interface": INTERFACE,
        **({"taxonomy": taxonomy} if taxonomy else {}),
        "resources": _resources(kind),
        "config_schema": config_schema(kind.Config),
        "config_defaults": config_defaults(kind.Config),
        "worker_env": _environment(kind),
        "actions": {name: _action(kind, action) for name, action in collect(kind).items()},
        "main_thread": bool(kind.main_thread),
        "concurrency": _concurrency(kind),
        "fork_safe": bool(kind.fork_safe),
        "python": platform.python_version(),
    }


def _action(kind: type[Plugin], action: Action) -> dict[str, Any]:
    schema = signature_schema(_bound(kind, action.method), kind)
    returns = schema.pop("returns")
    described = {
        "input": schema,
        "output": returns,
        "stream": action.stream_method is not None,
        "description": _summary(getattr(kind, action.method)),
    }
    if action.stream_method is not None:
        chunks = returns
        if action.stream_method != action.method:
            chunks = signature_schema(_bound(kind, action.stream_method), kind)["returns"]
        described["chunk"] = chunks.get("items", {})
    if action.is_stream and "items" not in returns:
        described["output"] = {"type": "array"}
    return described


def _bound(kind: type[Any], name: str) -> Any:
    """Return a method as callers see it, without self."""
    found = inspect.getattr_static(kind, name)
    if isinstance(found, (staticmethod, classmethod)):
        return getattr(kind, name)
    return types.MethodType(getattr(kind, name), kind)


def _summary(thing: Any) -> str:
    """Return the first paragraph of a docstring of the thing's own, on one line."""
    text = thing.__doc__ if isinstance(thing, type) else inspect.getdoc(thing)
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def _package_version(module: str) -> str:
    from importlib import metadata  # noqa: PLC0415 - 60 ms

    top = module.split(".")[0]
    for name in _distributions(top, metadata):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "0.0.0"


def _distributions(top: str, metadata: Any) -> Iterator[str]:
    """Yield the names a module's distribution may have, the ones that cost nothing to find first."""
    yield top
    yield top.replace("_", "-")
    # Reads the file list of everything that is installed; `packages_distributions` is there from 3.10 on.
    for found in metadata.distributions():
        if any(path.parts[:1] in ((top,), (top + ".py",)) for path in found.files or ()):
            yield found.metadata["Name"]


def _resources(kind: type[Plugin]) -> dict[str, Any]:
    known: dict[str, Any] = {"requires_gpu": bool, "platforms": (list, tuple), "accelerators": (list, tuple)}
    for name, value in kind.resources.items():
        if name not in known:
            raise _misdeclared(kind, f"resources has no {name!r}; it has {', '.join(known)}")
        if not isinstance(value, known[name]):
            raise _misdeclared(kind, f"resources[{name!r}] has the wrong type: {value!r}")
    declared = kind.resources
    return {
        "requires_gpu": bool(declared.get("requires_gpu", False)),
        "platforms": list(declared.get("platforms", ())),
        "accelerators": list(declared.get("accelerators", ())),
    }


def _environment(kind: type[Plugin]) -> list[dict[str, Any]]:
    for each in kind.environment:
        if not isinstance(each, EnvVar):
            raise _misdeclared(kind, f"environment takes EnvVar, not {each!r}")
    return [each.to_dict() for each in kind.environment]


def _concurrency(kind: type[Plugin]) -> int | None:
    value = kind.concurrency
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise _misdeclared(kind, f"concurrency is a number from 1 up or None, not {value!r}")
    if kind.main_thread and value != 1:
        raise _misdeclared(kind, "main_thread needs concurrency = 1: there is one main thread")
    return value


def _misdeclared(kind: type[Plugin], problem: str) -> FatalError:
    return FatalError(f"{kind.__name__}: {problem}", code="plugin.declaration")
