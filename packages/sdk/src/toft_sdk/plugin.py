"""What an author writes against: `Plugin`, `action`, `EnvVar`, and the live choices of a field.

This module is imported at every start of a worker, so it imports nothing that costs more than itself.
"""

from __future__ import annotations

from toft_sdk.context import current
from toft_sdk.errors import CancelledError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, Protocol, Sequence, TypeVar, overload

    from typing_extensions import Self

    from toft_sdk.context import Call

    F = TypeVar("F", bound=Callable[..., Any])

    class Terminable(Protocol):
        """Anything that can be told to end, such as a `subprocess.Popen`."""

        def terminate(self) -> object:
            """Ask it to end."""


class EnvVar:
    """An environment variable the worker is to have.

    Args:
        name: Its name.
        secret: True takes the value from the secret store; it is never shown and never logged.
        required: True refuses to start the plugin without it.
        default: The value when nobody gave one; not for secrets.
        label: A few words for a form.
        description: What it is for.
    """

    __slots__ = ("default", "description", "label", "name", "required", "secret")

    def __init__(
        self,
        name: str,
        *,
        secret: bool = False,
        required: bool = True,
        default: str | None = None,
        label: str = "",
        description: str = "",
    ) -> None:
        if secret and default is not None:
            raise ValueError(f"secret {name} cannot have a default: it would stand in the source")
        self.name = name
        self.secret = secret
        self.required = required and default is None
        self.default = default
        self.label = label
        self.description = description

    def __repr__(self) -> str:
        return f"EnvVar({self.name!r}, secret={self.secret}, required={self.required})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-like values."""
        return {name: getattr(self, name) for name in sorted(self.__slots__)}


class Option:
    """One value a configuration field can take right now.

    Args:
        value: What the configuration would hold.
        label: What a person sees; the value itself when empty.
        metadata: Anything else worth showing, such as a size.
    """

    __slots__ = ("label", "metadata", "value")

    def __init__(self, value: Any, label: str = "", metadata: Mapping[str, Any] | None = None) -> None:
        self.value = value
        self.label = label or str(value)
        self.metadata = dict(metadata or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-like values."""
        return {"value": self.value, "label": self.label, "metadata": self.metadata}


class FieldOptions:
    """The values a configuration field can take right now, such as the models found on this machine.

    Args:
        options: The choices; a bare value stands for `Option(value)`.
        constraints: JSON Schema keywords that hold right now, such as `{"maximum": 4}`.
    """

    __slots__ = ("constraints", "options")

    def __init__(self, options: Sequence[Any] = (), constraints: Mapping[str, Any] | None = None) -> None:
        self.options = [each if isinstance(each, Option) else Option(each) for each in options]
        self.constraints = dict(constraints or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-like values."""
        return {"options": [each.to_dict() for each in self.options], "constraints": self.constraints}


if TYPE_CHECKING:

    @overload
    def action(name: F) -> F: ...
    @overload
    def action(name: str | None = None, *, stream: bool | None = None) -> Callable[[F], F]: ...


def action(name: Any = None, *, stream: bool | None = None) -> Any:
    """Make a method one of the plugin's named actions.

    Args:
        name: What callers say; the method's own name when left out.
        stream: True when the method returns an iterable of chunks. A generator method needs no telling.

    Returns:
        The method, marked. Works as `@action`, `@action("name")` and `@action("name", stream=True)`.
    """

    def mark(method: Any) -> Any:
        # A static method is a wrapper, on old Pythons one that takes no attributes.
        function = getattr(method, "__func__", method)
        function.__toft_action__ = (said or function.__name__, stream)
        return method

    said = name if isinstance(name, str) else None
    return mark if name is None or said is not None else mark(name)


def _words(name: str) -> str:
    """Turn `SpeechToText` into `speech-to-text`."""
    letters: list[str] = []
    for index, letter in enumerate(name):
        starts = letter.isupper() and index > 0
        if starts and (not name[index - 1].isupper() or name[index + 1 : index + 2].islower()):
            letters.append("-")
        letters.append(letter.lower())
    return "".join(letters).strip("_-")


class Plugin:
    """The base of a plugin: subclass it, write `execute` with annotated arguments, and it can be called.

    Class attributes an author may set:
        name: What callers say; the class name in lower-case words when left out.
        version: The version of the installed package when left out.
        description: The first line of the docstring when left out.
        Config: A dataclass; `self.config` is an instance of it.
        environment: The environment variables and secrets the worker is to have, as `EnvVar`.
        concurrency: How many calls may run at once, each in a thread; None for any number.
        main_thread: True when calls must run on the main thread of the process.
        fork_safe: True when the process may be forked after the plugin's module was imported.
        resources: `{"requires_gpu": bool, "platforms": [...], "accelerators": [...]}`.
        domain: The field of work, such as `text`.
        role: The part it plays there, such as `summary`.
        examples: `[{"action": ..., "arguments": {...}, "result": ...}]`, run by `toft plugin test`.
        cancel_within_s: How soon a call ends once it is cancelled; `toft plugin test` holds it to that.
    """

    name: str = ""
    version: str = ""
    description: str = ""
    Config: type[Any] | None = None
    environment: Sequence[EnvVar] = ()
    concurrency: int | None = 1
    main_thread: bool = False
    fork_safe: bool = False
    resources: Mapping[str, Any] = {}
    domain: str = ""
    role: str = ""
    examples: Sequence[Mapping[str, Any]] = ()
    cancel_within_s: float | None = None

    config: Any = None

    _is_named = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            cls._is_named = True
        elif not cls._is_named:
            cls.name = _words(cls.__name__)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Here and not in __init__, so that an author's __init__ finds `self.config` without calling ours.
        plugin = super().__new__(cls)
        if cls.Config is not None:
            plugin.config = _default_config(cls.Config)
        return plugin

    def __init__(self, config: Any = None) -> None:
        """Take a configuration: an instance of `Config`, or a dictionary of some of its fields."""
        if config is not None:
            self.config = _to_config(type(self), config)

    def __enter__(self) -> Self:
        self.initialize()
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    # What an author may override.

    def initialize(self) -> None:
        """Get ready to be called: load the model, open the file. Runs once, after construction."""

    def prefetch(self) -> None:
        """Fetch what a later `initialize` needs, such as a model file. Safe to repeat."""

    def reconfigure(self, old: Any, new: Any) -> None:
        """Go from one configuration to another; `self.config` is the old one until this says otherwise.

        The default lets go of what the changed fields name (`release_<reload>()`, once each), then calls
        `apply_config(new)` when the class has it, else `initialize()`, with `self.config` set to `new`.

        Args:
            old: The configuration until now.
            new: The configuration from now on.
        """
        from toft_sdk.reload import reconfigure  # noqa: PLC0415 - imports dataclasses, and few calls need it

        reconfigure(self, old, new)

    def get_config_options(self) -> Mapping[str, FieldOptions]:
        """Return the values each configuration field can take right now; leave out what the schema says."""
        return {}

    def health(self) -> str | None:
        """Say whether it can do its work, when a document asks for it; quick, beside whatever calls run.

        Returns:
            A few words for whoever looks, or nothing.

        Raises:
            Exception: It cannot; the message says why.
        """
        return None

    def on_disable(self) -> None:
        """Take note that no calls come until `on_enable`; a place to free memory."""

    def on_enable(self) -> None:
        """Take note that calls come again."""

    def cleanup(self) -> None:
        """Let go of everything; the process ends after this. Safe to repeat."""

    # What an author may call inside a call.

    def report_progress(self, fraction: float, message: str = "") -> None:
        """Say how far the call has come.

        Args:
            fraction: From 0 to 1, or -1 when there is no telling.
            message: A few words on what is going on.

        Raises:
            CancelledError: The call was cancelled.
        """
        call = current()
        call.progress(fraction if fraction < 0 else min(float(fraction), 1.0), message)
        if call.is_cancelled():
            raise CancelledError("the call was cancelled")

    def report_usage(self, **units: float) -> None:
        """Say what the call used, such as `tokens=120`; amounts of one unit add up."""
        current().usage(units)

    def check_cancel(self) -> None:
        """Raise `CancelledError` when the call was cancelled; call it between steps."""
        if current().is_cancelled():
            raise CancelledError("the call was cancelled")

    def register_cancel_callback(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have `callback` run when the call is cancelled, at once if it is already.

        It runs in another thread, so it should only tell the work to stop.

        Returns:
            What takes the callback back.
        """
        return current().add_cancel_callback(callback)

    def cancel_signal_to(self, target: Terminable | Callable[[], object]) -> CancelSignal:
        """End a subprocess when the call is cancelled, for as long as a `with` block lasts.

        Args:
            target: A process with `terminate()`, or what to call instead.

        Returns:
            A context manager. It raises `CancelledError` at its end when the call was cancelled meanwhile.
        """
        return CancelSignal(current(), getattr(target, "terminate", target))

    def log(self, event: str, /, level: str = "info", **fields: Any) -> None:
        """Write one structured line that belongs to the running call.

        Args:
            event: One word or two, the same each time, such as `page_done`.
            level: `debug`, `info`, `warning` or `error`.
            fields: What the line is about, such as `page=3`.
        """
        current().log(level, event, fields)


class CancelSignal:
    """Passes a cancel of the running call on to something that can be ended; made by `cancel_signal_to`."""

    def __init__(self, call: Call, end: Any) -> None:
        if not callable(end):
            raise TypeError("cancel_signal_to() takes a process with terminate(), or something to call")
        self._call = call
        self._end: Callable[[], object] = end
        self._forget: Callable[[], None] | None = None

    def __enter__(self) -> CancelSignal:
        self._forget = self._call.add_cancel_callback(self._end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._forget is not None:
            self._forget()
        if self._call.is_cancelled() and not isinstance(error, CancelledError):
            # Whatever the ended process made of it, the call did not finish its work.
            raise CancelledError("the call was cancelled") from error


def _default_config(kind: type[Any]) -> Any:
    """Make the configuration of a plugin nobody configured; None when it has required fields."""
    try:
        return kind()
    except TypeError:
        return None


def _to_config(plugin: type[Plugin], config: Any) -> Any:
    if plugin.Config is not None and isinstance(config, plugin.Config):
        return config
    from toft_sdk.schema import to_config  # noqa: PLC0415 - imports typing and dataclasses

    return to_config(plugin.Config, config)
