"""What a plugin is written against: standard library only, Python 3.8 and up, injected by path.

Importing this package costs next to nothing: a name is fetched from its module when it is first used.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toft_sdk.errors import (
        CancelledError,
        FatalError,
        InputError,
        PluginError,
        ResourceError,
        TransientError,
    )
    from toft_sdk.options import option
    from toft_sdk.plugin import EnvVar, FieldOptions, Option, Plugin, action
    from toft_sdk.standalone import run

__all__ = [
    "CancelledError",
    "EnvVar",
    "FatalError",
    "FieldOptions",
    "InputError",
    "Option",
    "Plugin",
    "PluginError",
    "ResourceError",
    "TransientError",
    "action",
    "option",
    "run",
]

_HOMES = {
    "CancelledError": "errors",
    "EnvVar": "plugin",
    "FatalError": "errors",
    "FieldOptions": "plugin",
    "InputError": "errors",
    "Option": "plugin",
    "Plugin": "plugin",
    "PluginError": "errors",
    "ResourceError": "errors",
    "TransientError": "errors",
    "action": "plugin",
    "option": "options",
    "run": "standalone",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'toft_sdk' has no attribute {name!r}")
    # Not importlib: it is not loaded in a fresh worker, the builtin is.
    value: object = getattr(__import__(f"{__name__}.{home}", fromlist=[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
