"""What a worker drives: one plugin class, loaded, configured and called, whatever it was written for."""

from __future__ import annotations

from toft_sdk.actions import collect
from toft_sdk.checkup import answer
from toft_sdk.discovery import find_class
from toft_sdk.errors import FatalError, InputError, PluginError
from toft_sdk.plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Mapping

    from toft_sdk.actions import Action

_MONITOR_METHODS = {"status": "get_system_status", "processes": "list_processes"}


class Hosted:
    """A plugin written for toft, as the worker sees it.

    Attributes:
        main_thread: True when every call must run on the main thread.
        concurrency: How many calls may run at once; None for any number.
        fork_safe: True when a process that imported the plugin may be forked.
    """

    def __init__(self, kind: type[Plugin], module: str) -> None:
        self.main_thread = bool(kind.main_thread)
        self.concurrency = kind.concurrency
        self.fork_safe = bool(kind.fork_safe)
        self._kind = kind
        self._module = module
        self._actions = collect(kind)
        self._plugin: Plugin | None = None

    def describe(self) -> dict[str, Any]:
        """Return the `code` section of the manifest; see `toft_sdk.introspect.describe`."""
        from toft_sdk.introspect import describe_class  # noqa: PLC0415 - imports inspect and typing (20 ms)

        return describe_class(self._kind, self._module)

    def initialize(self, config: Mapping[str, Any] | None = None) -> None:
        """Construct the plugin, give it its configuration, and let it get ready.

        Raises:
            InputError: The configuration does not fit; every field is named.
        """
        plugin = self._make()
        plugin.config = self._config(config)
        plugin.initialize()

    def reconfigure(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        """Go from one configuration to another; on failure `config` is the old one again."""
        plugin = self._ready()
        before, after = self._config(old), self._config(new)
        plugin.config = before
        try:
            plugin.reconfigure(before, after)
        except BaseException:
            plugin.config = before
            raise
        plugin.config = after

    def call(self, action: str, arguments: Mapping[str, Any]) -> Any:
        """Run one action to its end and return its result; chunks come as a list."""
        return self._action(action).call(self._ready(), arguments)

    def stream(self, action: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
        """Run one action and yield its chunks, or its result as the only one."""
        return self._action(action).stream(self._ready(), arguments)

    def prefetch(self) -> None:
        """Let the plugin fetch what it will need."""
        self._make().prefetch()

    def config_options(self) -> dict[str, Any]:
        """Return the values each configuration field can take right now, as JSON-like values."""
        return {field: options.to_dict() for field, options in self._make().get_config_options().items()}

    def health(self) -> dict[str, Any]:
        """Ask the plugin whether it can do its work; `is_well` is None when it has no `health()`."""
        plugin = self._make()
        return answer(plugin.health) if type(plugin).health is not Plugin.health else answer(None)

    def enable(self) -> None:
        """Tell the plugin that calls come again."""
        self._make().on_enable()

    def disable(self) -> None:
        """Tell the plugin that no calls come for now."""
        self._make().on_disable()

    def cleanup(self) -> None:
        """Let the plugin release everything; nothing to do when it was never made."""
        if self._plugin is not None:
            self._plugin.cleanup()

    def monitor(self, what: str) -> Any:
        """Return what a system monitor plugin measures.

        Args:
            what: `status` or `processes`.
        """
        method = getattr(self._make(), _MONITOR_METHODS.get(what, ""), None)
        if method is None:
            raise PluginError(f"{self._kind.__name__} does not measure {what}", code="plugin.not_supported")
        return method()

    def _config(self, config: Mapping[str, Any] | None) -> Any:
        if self._kind.Config is None:
            if config:
                fields = {name: "is unknown; this plugin has no configuration" for name in sorted(config)}
                raise InputError("the plugin has no configuration", fields=fields, code="config.invalid")
            return None
        if not _beside_defaults(self._kind.Config, config or {}):
            try:
                # A host sends every field; defaults need no check, and no 10 ms to import what checks.
                return self._kind.Config()
            except TypeError:
                pass
        from toft_sdk.schema import to_config  # noqa: PLC0415 - imports typing and dataclasses

        return to_config(self._kind.Config, dict(config or {}))

    def _make(self) -> Plugin:
        if self._plugin is None:
            self._plugin = self._kind()
        return self._plugin

    def _ready(self) -> Plugin:
        if self._plugin is None:
            raise FatalError("the plugin was not initialized before its first call", code="plugin.not_ready")
        return self._plugin

    def _action(self, name: str) -> Action:
        found = self._actions.get(name)
        if found is None:
            raise InputError(
                f"{self._kind.__name__} has no action {name!r}; it has: {', '.join(self._actions)}",
                fields={"action": f"must be one of {', '.join(self._actions)}"},
                code="call.action_unknown",
            )
        return found


def _beside_defaults(kind: type[Any], config: Mapping[str, Any]) -> list[str]:
    """Return the fields that are given and do not hold their default."""
    fields: Mapping[str, Any] = getattr(kind, "__dataclass_fields__", {})
    return [
        name for name, value in config.items() if name not in fields or not _is_default(fields[name], value)
    ]


def _is_default(field: Any, value: Any) -> bool:
    default = field.default_factory() if callable(field.default_factory) else field.default
    # True equals 1, and a list is no tuple: only the same type is the same value.
    return type(value) is type(default) and bool(value == default)


def load(module: str, class_name: str | None = None) -> Any:
    """Import a module and return what hosts its plugin: `Hosted`, or a `ReferenceHosted` of the same shape.

    Args:
        module: Dotted name of the module.
        class_name: Name of the class; None takes the only plugin the module has.
    """
    kind = find_class(module, class_name)
    if issubclass(kind, Plugin):
        return Hosted(kind, module)
    # Only for classes of the reference system.
    from toft_sdk.reference import ReferenceHosted  # noqa: PLC0415

    return ReferenceHosted(kind, module)
