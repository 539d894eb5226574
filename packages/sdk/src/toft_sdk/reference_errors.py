"""Errors of the reference system as errors of this one, known by name: its package is never imported here."""

from __future__ import annotations

from toft_sdk.errors import (
    CancelledError,
    FatalError,
    InputError,
    PluginError,
    ResourceError,
    TransientError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

# The package that defines them, under its two names.
_PACKAGES = ("cjm_plugin_system", "cjm_substrate")
_MEGABYTE = 1 << 20


def translate(error: BaseException) -> BaseException:
    """Return the typed error for an error of the reference system; any other comes back as it is."""
    if isinstance(error, PluginError):
        return error
    for base in type(error).__mro__:
        if base.__module__.split(".")[0] not in _PACKAGES:
            continue
        # Later versions say Capability where earlier ones said Plugin.
        build = _KINDS.get(base.__name__.replace("Capability", "Plugin"))
        if build is not None:
            return build(error, str(error))
    return error


def _cancelled(error: Any, text: str) -> PluginError:
    return CancelledError(text)


def _input(error: Any, text: str) -> PluginError:
    fields = [str(each) for each in getattr(error, "fields_invalid", None) or ()]
    return InputError(text, fields=fields)


def _config(error: Any, text: str) -> PluginError:
    typed = InputError(
        text,
        fields=[str(each) for each in getattr(error, "fields_invalid", None) or ()],
        code="config.invalid",
    )
    if getattr(error, "config_class_name", ""):
        typed.details["config_class"] = str(error.config_class_name)
    return typed


def _transient(error: Any, text: str) -> PluginError:
    after = getattr(error, "retry_after_seconds", None)
    return TransientError(text, retry_after_s=float(after) if isinstance(after, (int, float)) else None)


def _timeout(error: Any, text: str) -> PluginError:
    typed = _transient(error, text)
    typed.code = "plugin.timeout"
    return typed


def _resource(error: Any, text: str) -> PluginError:
    shortfall = getattr(error, "resource_shortfall", None)
    if shortfall is None:
        return ResourceError(text)
    named = {"gpu_vram_mb": "gpu_ram", "system_ram_mb": "system_ram", "disk_mb": "disk"}
    resource = str(getattr(shortfall, "resource", ""))
    return ResourceError(
        text,
        resource=named.get(resource, resource),
        needed_bytes=_size_bytes(getattr(shortfall, "needed", None)),
        available_bytes=_size_bytes(getattr(shortfall, "available", None)),
    )


def _size_bytes(megabytes: Any) -> int | None:
    return int(megabytes * _MEGABYTE) if isinstance(megabytes, (int, float)) else None


def _fatal(error: Any, text: str) -> PluginError:
    return FatalError(text)


def _disabled(error: Any, text: str) -> PluginError:
    return InputError(text, code="plugin.disabled")


_KINDS: dict[str, Callable[[Any, str], PluginError]] = {
    "PluginCancelledError": _cancelled,
    "PluginTimeoutError": _timeout,
    "PluginTransientError": _transient,
    "PluginConfigError": _config,
    "PluginDisabledError": _disabled,
    "PluginInputError": _input,
    "PluginResourceError": _resource,
    "PluginFatalError": _fatal,
    "PluginError": _fatal,
}
