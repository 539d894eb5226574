"""What can be read off a class of the reference system without making one."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

_VAR_POSITIONAL = 0x04


def actions_of(kind: type[Any]) -> dict[str, Any]:
    """Return what a class's `execute` dispatches on, each with the method that does it where there is one.

    A class says so with marked methods or with a list. One that does neither compares the argument with texts
    in the body of `execute`; those that are the name of one of its methods are actions.
    """
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        for method in vars(base).values():
            mark = getattr(method, "_plugin_action", None)
            if mark:
                found.setdefault(str(mark), method)
    listed = getattr(kind, "supported_actions", None)
    if isinstance(listed, (set, frozenset, list, tuple)):
        for name in sorted(map(str, listed)):
            found.setdefault(name, _method(kind, name))
    if not found and _DISPATCH & set(_parameters(kind)):
        for name in _texts(_code_of(kind).co_consts):
            if name not in _OF_EVERY_PLUGIN and _method(kind, name) is not None:
                found.setdefault(name, _method(kind, name))
    return found


# Parameters of `execute` that choose an action, and methods that every plugin has.
_DISPATCH = {"action", "command"}
_OF_EVERY_PLUGIN = {"execute", "execute_stream", "initialize", "cleanup", "cancel", "prefetch", "reconfigure"}


def _method(kind: type[Any], name: str) -> Any:
    for spelling in (name, "_" + name):
        method = getattr(kind, spelling, None)
        if callable(method) and hasattr(method, "__code__"):
            return method
    return None


def _texts(constants: Any) -> list[str]:
    found: list[str] = []
    for each in constants:
        if isinstance(each, str) and each.isidentifier():
            found.append(each)
        elif isinstance(each, (tuple, frozenset)):
            found += _texts(sorted(each, key=repr))
    return found


def _parameters(kind: type[Any]) -> tuple[str, ...]:
    code = _code_of(kind)
    return code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount] if code is not None else ()


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
