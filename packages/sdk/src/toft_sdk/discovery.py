"""Which class of a module is the plugin: the one that was named, or the only one there is."""

from __future__ import annotations

import sys

from toft_sdk.errors import FatalError
from toft_sdk.plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_METADATA_FUNCTION = "get_plugin_metadata"
# Methods by which a class written for the reference system is known; it does not inherit from ours.
_REFERENCE_METHODS = ("initialize", "execute", "get_config_schema", "get_current_config")


def find_class(module: str, class_name: str | None = None) -> type[Any]:
    """Import a module and return its plugin class.

    Args:
        module: Dotted name to import.
        class_name: Name of the class; None takes the only plugin the module has.

    Returns:
        A subclass of `Plugin`, or a class that has the reference system's methods.

    Raises:
        FatalError: There is no such class, or several and none was named. What the module itself raises while
            it is imported comes through as it is.
    """
    loaded = _import(module)
    if not class_name and callable(getattr(loaded, _METADATA_FUNCTION, None)):
        # The reference system's way to say where the plugin is.
        told = getattr(loaded, _METADATA_FUNCTION)()
        module, class_name = str(told["module"]), str(told["class"])
        loaded = _import(module)
    if class_name:
        found = loaded
        for part in class_name.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type) and is_plugin(found):
            return found
        candidates = ", ".join(each.__name__ for each in _candidates(loaded)) or "none"
        problem = "is not there" if found is None else "is no plugin class"
        raise FatalError(
            f"{class_name} in {module} {problem} (plugin classes there: {candidates})",
            code="plugin.class_missing",
            details={"module": module, "class": class_name},
        )
    candidates_found = _candidates(loaded)
    if len(candidates_found) == 1:
        return candidates_found[0]
    names = [each.__name__ for each in candidates_found]
    what = (
        f"several plugin classes: {', '.join(names)}; name one" if names else "no subclass of toft_sdk.Plugin"
    )
    raise FatalError(
        f"{module} has {what}", code="plugin.class_missing", details={"module": module, "candidates": names}
    )


def is_plugin(found: type[Any]) -> bool:
    """Tell whether a class is a toft plugin or has the methods of a reference one."""
    return issubclass(found, Plugin) or all(
        callable(getattr(found, name, None)) for name in _REFERENCE_METHODS
    )


def _import(module: str) -> Any:
    if _has_metadata(module):
        from toft_sdk.reference_environment import prepare  # noqa: PLC0415 - only for the reference system's

        prepare(module)
    __import__(module)
    return sys.modules[module]


def _has_metadata(module: str) -> bool:
    """Tell by its files whether a module's package is described the reference system's way; imports nothing.

    Such a package reads its environment while it is imported, so that has to be there before.
    """
    package = module.split(".")[:-1] or [module]
    for directory in sys.path:
        path = "/".join([directory, *package, "meta.py"])
        try:
            with open(path, "rb") as file:
                return _METADATA_FUNCTION.encode() in file.read(1 << 20)
        except OSError:
            continue
    return False


def _candidates(module: Any) -> list[type[Any]]:
    """Return the plugin classes the module itself brings: no base classes it imported from elsewhere."""
    found = []
    for each in dict.fromkeys(value for value in vars(module).values() if isinstance(value, type)):
        home = each.__module__
        here = home == module.__name__ or home.startswith(module.__name__ + ".")
        if here and is_plugin(each) and not getattr(each, "__abstractmethods__", None):
            found.append(each)
    # A base and its only leaf in one module: the leaf is meant.
    return [
        each for each in found if not any(other is not each and issubclass(other, each) for other in found)
    ]
