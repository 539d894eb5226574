"""Hosts a class written for the reference system, by its methods; the same shape as `hosting.Hosted`.

Nothing here imports that system: its package is in the plugin's own environment, or the plugin's class could
not be imported either. Calls run one at a time unless the class says otherwise.
"""

from __future__ import annotations

from toft_sdk import reference_environment
from toft_sdk.checkup import answer
from toft_sdk.context import current
from toft_sdk.errors import FatalError, InputError, PluginError
from toft_sdk.reference_class import actions_of, concurrency_of, dispatch_name, rest_name, triggers
from toft_sdk.reference_errors import translate
from toft_sdk.reference_state import CallState, entered, hosted_class
from toft_sdk.reference_values import as_text, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Mapping

_MONITOR_METHODS = {"status": "get_system_status", "processes": "list_processes"}


class ReferenceHosted:
    """A plugin of the reference system, as the worker sees it.

    Attributes:
        main_thread: Always False; with one call at a time, calls run on the main thread anyway.
        concurrency: 1, or what the class declares: plugins that keep a connection open expect one thread.
        fork_safe: Always False: nobody declared it.
    """

    def __init__(self, kind: type[Any], module: str) -> None:
        self.main_thread = False
        self.concurrency: int | None = concurrency_of(kind)
        self.fork_safe = False
        self._told = reference_environment.prepare(module)
        reference_environment.declare(kind, self._told)
        self._kind = kind
        self._module = module
        self._actions = actions_of(kind)
        self._plugin: Any = None

    def describe(self) -> dict[str, Any]:
        """Return the `code` section of the manifest."""
        from toft_sdk.reference_description import describe  # noqa: PLC0415 - imports inspect and typing

        # Asked for through the package's metadata, the class is somewhere else.
        is_told = self._told.get("class") == self._kind.__qualname__
        module = str(self._told.get("module") or self._module) if is_told else self._module
        return describe(self._kind, module, self._told, self._made)

    def initialize(self, config: Mapping[str, Any] | None = None) -> None:
        """Construct the plugin and give it its configuration."""
        with self._running():
            self._made().initialize(dict(config or {}))

    def reconfigure(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        """Go from one configuration to another, by its own method or else by a new `initialize`."""
        before, after = dict(old or {}), dict(new or {})
        with self._running():
            plugin = self._ready()
            if callable(getattr(plugin, "reconfigure", None)):
                plugin.reconfigure(before, after)
                return
            for trigger in triggers(self._kind, before, after):
                release = getattr(plugin, f"_release_{trigger}", None)
                if callable(release):
                    release()
            apply = getattr(plugin, "_apply_config", None)
            (apply if callable(apply) else plugin.initialize)(after)

    def call(self, action: str, arguments: Mapping[str, Any]) -> Any:
        """Run `execute` to its end and return its result; dataclasses come as dictionaries."""
        with self._running() as state:
            forget = self._tell_of_cancel(state)
            try:
                positional, keywords = self._bind(action, arguments)
                return plain(self._ready().execute(*positional, **keywords))
            finally:
                forget()

    def stream(self, action: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
        """Run `execute_stream` and yield its chunks, or the result of `execute` as the only one."""
        with self._running() as state:
            forget = self._tell_of_cancel(state)
            try:
                positional, keywords = self._bind(action, arguments)
                method = getattr(self._ready(), "execute_stream", None)
                if method is None:
                    yield plain(self._plugin.execute(*positional, **keywords))
                    return
                for chunk in method(*positional, **keywords):
                    yield plain(chunk)
            finally:
                forget()

    def prefetch(self) -> None:
        """Let the plugin fetch what it will need."""
        self._hook("prefetch")

    def config_options(self) -> dict[str, Any]:
        """Return the values each configuration field can take right now."""
        found = self._hook("get_config_options") or {}
        return {str(field): plain(options) for field, options in dict(found).items()}

    def health(self) -> dict[str, Any]:
        """Ask the plugin whether it can do its work; `is_well` is None when it has no `health()`."""
        has_one = callable(getattr(self._made(), "health", None))
        return answer((lambda: self._hook("health")) if has_one else None)

    def enable(self) -> None:
        """Tell the plugin that calls come again."""
        self._hook("on_enable")

    def disable(self) -> None:
        """Tell the plugin that no calls come for now."""
        self._hook("on_disable")

    def cleanup(self) -> None:
        """Let the plugin release everything; nothing to do when it was never made."""
        if self._plugin is not None:
            self._hook("cleanup")

    def monitor(self, what: str) -> Any:
        """Return what a system monitor plugin measures.

        Args:
            what: `status` or `processes`.
        """
        name = _MONITOR_METHODS.get(what, "")
        method = getattr(self._made(), name, None)
        if not callable(method):
            raise PluginError(f"{self._kind.__name__} does not measure {what}", code="plugin.not_supported")
        with self._running():
            try:
                return plain(method())
            except NotImplementedError:
                # Older monitors answer the name of the question.
                return plain(self._plugin.execute(name))

    def _hook(self, name: str) -> Any:
        method = getattr(self._made(), name, None)
        if not callable(method):
            return None
        with self._running():
            return method()

    def _running(self) -> _Running:
        return _Running(CallState(current()))

    def _tell_of_cancel(self, state: CallState) -> Callable[[], None]:
        def cancel() -> None:
            # In another thread, but about this call: what the plugin's own `cancel` touches is this call's.
            with entered(state):
                method = getattr(self._plugin, "cancel", None)
                if callable(method):
                    method()

        return state.call.add_cancel_callback(cancel)

    def _bind(self, action: str, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        keywords = {name: as_text(value) for name, value in arguments.items()}
        if action and action != "execute":
            if action not in self._actions:
                raise InputError(
                    f"{self._kind.__name__} has no action {action!r}, but execute{_listed(self._actions)}",
                    fields={"action": "is not an action of this plugin"},
                    code="call.action_unknown",
                )
            keywords[dispatch_name(self._kind)] = action
        rest = rest_name(self._kind)
        return (list(keywords.pop(rest, ())) if rest else []), keywords

    def _made(self) -> Any:
        if self._plugin is None:
            with self._running():
                self._plugin = hosted_class(self._kind)()
        return self._plugin

    def _ready(self) -> Any:
        if self._plugin is None:
            raise FatalError("the plugin was not initialized before its first call", code="plugin.not_ready")
        return self._plugin


class _Running(entered):
    """A block in which the plugin's own code runs: its errors leave as errors of this system."""

    def __exit__(self, *raised: object) -> None:
        super().__exit__()
        error = raised[1]
        if isinstance(error, BaseException):
            typed = translate(error)
            if typed is not error:
                raise typed from error


def _listed(actions: Mapping[str, Any]) -> str:
    return "".join(f", {each}" for each in sorted(actions))
