"""The actions of a plugin class, and how a dictionary of arguments becomes a call of a method.

Runs in every worker, so it reads code objects instead of importing `inspect`, and looks at annotations only
when a value may have to be converted.
"""

from __future__ import annotations

from toft_sdk.errors import FatalError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Callable, Iterator, Mapping

_VAR_POSITIONAL, _VAR_KEYWORD, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x04, 0x08, 0x20, 0x80, 0x200

# Annotations made of these words alone never ask for a conversion.
_PLAIN_WORDS = frozenset(
    (
        "str",
        "int",
        "float",
        "bool",
        "bytes",
        "bytearray",
        "None",
        "Any",
        "object",
        "list",
        "dict",
        "List",
        "Dict",
    )
    + (
        "Optional",
        "Union",
        "Mapping",
        "Sequence",
        "Iterable",
        "Iterator",
        "Generator",
        "Literal",
        "typing",
        "t",
    )
)
_PLAIN_TYPES = (str, int, float, bool, bytes, bytearray, list, dict, object, type(None), None)


class Action:
    """One thing a plugin can be asked to do.

    Attributes:
        name: What callers say.
        method: Name of the method that does it.
        stream_method: Name of the method that yields chunks, or None when a stream is the result alone.
        is_stream: True when the method itself yields, so that a call collects the chunks into a list.
    """

    def __init__(self, kind: type[Any], name: str, method: str, is_stream: bool | None = None) -> None:
        self.name = name
        self.method = method
        self._kind = kind
        function = _unwrapped(getattr(kind, method))
        self._code: CodeType | None = getattr(function, "__code__", None)
        flags = self._code.co_flags if self._code is not None else 0
        if flags & _ASYNC_GENERATOR:
            raise FatalError(
                f"{kind.__name__}.{method} is an async generator; write a plain one",
                code="plugin.signature",
            )
        self.is_stream = bool(flags & _GENERATOR) if is_stream is None else is_stream
        self.is_coroutine = bool(flags & _COROUTINE)
        self.stream_method: str | None = method if self.is_stream else None
        self._function = function
        self._read_parameters(flags)
        self._converters: dict[str, Callable[[Any], Any]] | None = None
        if all(_is_plain(each) for each in getattr(function, "__annotations__", {}).values()):
            self._converters = {}

    def _read_parameters(self, flags: int) -> None:
        code = self._code
        self._positional_only: tuple[str, ...] = ()
        self._rest: str | None = None
        self._takes_any = True
        self._names: frozenset[str] = frozenset()
        self._required: frozenset[str] = frozenset()
        if code is None:
            return
        # A static method has no self; a class method's function has cls.
        skip = 0 if isinstance(_static(self._kind, self.method), staticmethod) else 1
        count = code.co_argcount
        positional = code.co_varnames[:count]
        keyword_only = code.co_varnames[count : count + code.co_kwonlyargcount]
        self._positional_only = positional[skip : code.co_posonlyargcount]
        if flags & _VAR_POSITIONAL:
            self._rest = code.co_varnames[count + code.co_kwonlyargcount]
            # What stands before *args must be passed by position, or *args could never be filled.
            self._positional_only = positional[skip:]
        self._takes_any = bool(flags & _VAR_KEYWORD)
        defaults = len(self._function.__defaults__ or ())
        optional = set(positional[count - defaults :]) | set(self._function.__kwdefaults__ or ())
        listed = positional[skip:] + keyword_only
        self._names = frozenset(listed) | ({self._rest} if self._rest else set())
        self._required = frozenset(name for name in listed if name not in optional)

    def bind(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and keyword arguments for the method.

        Raises:
            InputError: Arguments are missing, unknown or of no use; every field is named.
        """
        keywords = dict(arguments)
        if self._code is not None:
            self._check(keywords)
        converters = self._converters
        if converters is None:
            converters = self._converters = self._build_converters()
        if converters:
            self._convert(converters, keywords)
        if not self._positional_only and self._rest is None:
            return [], keywords
        return self._by_position(keywords), keywords

    def _check(self, keywords: dict[str, Any]) -> None:
        given = keywords.keys()
        if self._required <= given and (self._takes_any or given <= self._names):
            return
        fields = {name: "is missing" for name in sorted(self._required - given)}
        if not self._takes_any:
            accepted = ", ".join(sorted(self._names)) or "none"
            for name in sorted(map(str, given - self._names)):
                fields[name] = f"is not an argument; {self.name} takes: {accepted}"
        raise self._refusal(fields)

    def _refusal(self, fields: dict[str, str]) -> InputError:
        what = "; ".join(f"{name} {problem}" for name, problem in fields.items())
        return InputError(f"{self.name}: {what}", fields=fields, code="call.arguments")

    def _convert(self, converters: dict[str, Callable[[Any], Any]], keywords: dict[str, Any]) -> None:
        fields = {}
        for name, convert in converters.items():
            if name in keywords:
                try:
                    keywords[name] = convert(keywords[name])
                except (ValueError, TypeError) as error:
                    fields[name] = f"does not fit: {error}"
        if fields:
            raise self._refusal(fields)

    def _by_position(self, keywords: dict[str, Any]) -> list[Any]:
        rest = list(keywords.pop(self._rest, ())) if self._rest is not None else []
        if not rest and len(self._positional_only) == 0:
            return []
        values = []
        defaults = self._function.__defaults__ or ()
        first_default = self._code.co_argcount - len(defaults) if self._code is not None else 0
        names = self._code.co_varnames if self._code is not None else ()
        for name in self._positional_only:
            if name in keywords:
                values.append(keywords.pop(name))
            elif rest or any(later in keywords for later in self._positional_only):
                values.append(defaults[names.index(name) - first_default])
            else:
                break
        return values + rest

    def _build_converters(self) -> dict[str, Callable[[Any], Any]]:
        from toft_sdk.conversion import parameter_converters  # noqa: PLC0415 - imports typing (8 ms)

        return parameter_converters(self._function, self._kind)

    def call(self, plugin: Any, arguments: Mapping[str, Any]) -> Any:
        """Run the method; what it yields is collected into a list."""
        positional, keywords = self.bind(arguments)
        result = getattr(plugin, self.method)(*positional, **keywords)
        if self.is_coroutine:
            import asyncio  # noqa: PLC0415 - 60 ms that only a plugin with coroutines pays

            return asyncio.run(result)
        return list(result) if self.is_stream else result

    def stream(self, plugin: Any, arguments: Mapping[str, Any]) -> Iterator[Any]:
        """Run the method and yield its chunks, or its result as the only one."""
        if self.stream_method is None:
            yield self.call(plugin, arguments)
            return
        positional, keywords = self.bind(arguments)
        yield from getattr(plugin, self.stream_method)(*positional, **keywords)


def collect(kind: type[Any]) -> dict[str, Action]:
    """Return the actions of a class by name: `execute`, and the marked methods of all its bases.

    Raises:
        FatalError: The class can do nothing, or two methods claim one name.
    """
    found: dict[str, Action] = {}
    if callable(getattr(kind, "execute", None)):
        found["execute"] = Action(kind, "execute", "execute")
        if callable(getattr(kind, "execute_stream", None)):
            found["execute"].stream_method = "execute_stream"
    elif callable(getattr(kind, "execute_stream", None)):
        found["execute"] = Action(kind, "execute", "execute_stream", True)
    for base in reversed(kind.__mro__):
        for attribute, value in vars(base).items():
            mark = getattr(getattr(value, "__func__", value), "__toft_action__", None)
            if mark is None:
                continue
            name, is_stream = mark
            if name in found and found[name].method != attribute:
                raise FatalError(
                    f"{kind.__name__}: {found[name].method} and {attribute} are both the action {name!r}",
                    code="plugin.signature",
                )
            found[name] = Action(kind, name, attribute, is_stream)
    if not found:
        raise FatalError(
            f"{kind.__name__} has no execute(), no execute_stream() and no method marked with @action",
            code="plugin.signature",
        )
    return found


def _static(kind: type[Any], name: str) -> Any:
    for base in kind.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None


def _unwrapped(method: Any) -> Any:
    function = getattr(method, "__func__", method)
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _is_plain(annotation: Any) -> bool:
    if not isinstance(annotation, str):
        return any(annotation is each for each in _PLAIN_TYPES)
    text = annotation
    for mark in "[]|,.'\"":
        text = text.replace(mark, " ")
    return _PLAIN_WORDS.issuperset(text.split())
