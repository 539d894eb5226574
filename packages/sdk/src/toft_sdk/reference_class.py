"""What can be read off a class of the reference system without making one."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

_VAR_POSITIONAL = 0x04


def actions_of(kind: type[Any]) -> frozenset[str]:
    """Return the names a class's `execute` dispatches on, where it says them: marked methods, or a list."""
    found = {
        str(method._plugin_action)
        for base in kind.__mro__
        for method in vars(base).values()
        if getattr(method, "_plugin_action", None)
    }
    listed = getattr(kind, "supported_actions", None)
    return frozenset(found | (set(listed) if isinstance(listed, (set, frozenset, list, tuple)) else set()))


def concurrency_of(kind: type[Any]) -> int:
    """Return how many calls a class says may run at once, else 1."""
    declared = getattr(kind, "concurrency", None)
    return declared if isinstance(declared, int) and not isinstance(declared, bool) and declared > 0 else 1


def _code_of(kind: type[Any]) -> Any:
    return getattr(kind.execute, "__code__", None)


def rest_name(kind: type[Any]) -> str | None:
    """Return the name of `*args` of `execute`; None when it takes none."""
    code = _code_of(kind)
    if code is None or not code.co_flags & _VAR_POSITIONAL:
        return None
    name: str = code.co_varnames[code.co_argcount + code.co_kwonlyargcount]
    return name


def dispatch_name(kind: type[Any]) -> str:
    """Return the parameter of `execute` that says which action is meant."""
    code = _code_of(kind)
    names = code.co_varnames[1 : code.co_argcount] if code is not None else ()
    return "action" if "action" in names or not names else names[0]


def triggers(kind: type[Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what the changed fields say must be let go of, each once."""
    fields = getattr(getattr(kind, "config_class", None), "__dataclass_fields__", {})
    found: dict[str, None] = {}
    for name, field in fields.items():
        trigger = field.metadata.get("reload_trigger")
        if trigger and before.get(name) != after.get(name):
            found[str(trigger)] = None
    return list(found)
