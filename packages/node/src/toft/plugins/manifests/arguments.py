"""Arguments of a call, checked against the action's signature before the call leaves the host.

An action's schema is what `toft_sdk.schema.signature_schema` gives: `{"parameters": {name: schema},
"required": [...], "additional": bool}`. An argument may have any name.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toft.kernel import schemas, suggestions
from toft.plugins.manifests import checks, scalars, unseen
from toft_sdk import errors


class Binder:
    """Checks the arguments of one action; made once, used for every call.

    Args:
        schema: The action's input schema; None accepts anything.
    """

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        described: Mapping[str, Any] = {"additional": True} if schema is None else schema
        _refuse_malformed(described)
        parameters = _parameters(described)
        self._described = described
        self._checks = {
            name: checks.compile_check(_value_schema(each), described) for name, each in parameters.items()
        }
        self._required = frozenset(described.get("required", ()))
        self._additional = bool(described.get("additional", False))
        self._file_backed = bool(described.get("x-toft-file-backed", False))

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments, converted where their type leaves no doubt.

        Raises:
            toft_sdk.errors.InputError: Nothing was sent; `fields` has every problem, path to message.
        """
        known = self._checks
        bound: dict[str, Any] = {}
        if self._file_backed:
            arguments = {name: _as_file(value) for name, value in arguments.items()}
        try:
            for name, value in arguments.items():
                bound[name] = known[name](value)
        except (KeyError, scalars.Misfit):
            return self._bind_slowly(arguments)
        if not self._required <= arguments.keys():
            return self._bind_slowly(arguments)
        return bound

    def _careful_checks(self) -> dict[str, Callable[[Any], Any]]:
        """Return checks that also know values which are not looked at; most binders never need them."""
        return {
            name: checks.compile_check(_value_schema(each), self._described, meets_unseen=True)
            for name, each in _parameters(self._described).items()
        }

    def _bind_slowly(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Look at everything although something is wrong, so that the caller hears it all at once."""
        bound: dict[str, Any] = {}
        fields: dict[str, str] = {}
        careful = self._careful_checks()
        for name, value in arguments.items():
            if not isinstance(name, str):
                fields[repr(name)] = "the name of an argument must be text"
            elif name in careful:
                try:
                    bound[name] = careful[name](value)
                except scalars.Misfit as misfit:
                    fields.update(_fields(name, misfit))
            elif self._additional:
                bound[name] = value
            else:
                fields[name] = suggestions.unknown(name, self._checks)
        fields.update((name, "missing") for name in sorted(self._required - arguments.keys()))
        if fields:
            raise misfit_error(fields)
        return bound


def _as_file(value: Any) -> Any:
    """Replace what stands for a file by the file's path as text; only where the plugin asked for it."""
    if isinstance(value, pathlib.PurePath):
        return str(value)
    to_file = getattr(value, "to_temp_file", None)
    return to_file() if callable(to_file) else value


def _refuse_malformed(described: Mapping[str, Any]) -> None:
    """A manifest can be written by anybody: what follows relies on its shapes."""
    schemas.refuse_hostile(described)
    parameters = described.get("parameters", {})
    required = described.get("required", [])
    if not isinstance(parameters, Mapping) or not all(
        isinstance(each, Mapping) for each in parameters.values()
    ):
        raise schemas.SchemaError("the parameters of an action must be an object of schemas")
    if not isinstance(required, (list, tuple)) or not all(isinstance(each, str) for each in required):
        raise schemas.SchemaError("the required parameters of an action must be a list of names")
    definitions = described.get("$defs", {})
    schemas.refuse_malformed({"properties": dict(parameters), "$defs": definitions})


def misfit_error(fields: Mapping[str, str]) -> errors.InputError:
    """Make the one error that names every bad argument."""
    listed = "; ".join(f"{place}: {message}" for place, message in fields.items())
    count = "1 argument does" if len(fields) == 1 else f"{len(fields)} arguments do"
    return errors.InputError(f"{count} not fit: {listed}", fields=fields, code="call.bad_arguments")


def parse_cli(
    schema: Mapping[str, Any] | None,
    words: Sequence[str],
    input_json: str | None = None,
    *,
    directory: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Read arguments from a command line, typed by the action's schema.

    `name=value` is read as the parameter's type says: text stays text, numbers and truth values are
    read, lists and objects are JSON. `name=@file` takes the file's content, `name:=json` is JSON whatever the
    type.

    Args:
        schema: The action's input schema; None reads JSON where it parses and text where it does not.
        words: Each `name=value`, `name=@file` or `name:=json`.
        input_json: All arguments as one JSON object, or `@file` that has it; words win over it.
        directory: What relative files and paths are relative to; the current one when None.

    Returns:
        Arguments that the schema accepts.

    Raises:
        toft_sdk.errors.InputError: Every bad word and value at once, in `fields`.
    """
    reader = _Reader(schema, directory or pathlib.Path.cwd())
    arguments = reader.object(input_json) if input_json is not None else {}
    for word in words:
        reader.word(word, arguments)
    try:
        bound = Binder(schema).bind(arguments)
    except errors.InputError as error:
        # A word that could not be read is already named; it is not missing as well.
        new = {name: message for name, message in error.fields.items() if name not in reader.fields}
        raise misfit_error({**reader.fields, **new}) from None
    if reader.fields:
        raise misfit_error(reader.fields)
    return bound


def read_cli(
    schema: Mapping[str, Any] | None,
    words: Sequence[str],
    input_json: str | None = None,
    *,
    directory: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Read values from a command line as `parse_cli` does, but leave it to others whether they fit.

    Raises:
        toft_sdk.errors.InputError: A word or a file cannot be read at all.
    """
    reader = _Reader(schema, directory or pathlib.Path.cwd())
    values = reader.object(input_json) if input_json is not None else {}
    for word in words:
        reader.word(word, values)
    if reader.fields:
        raise misfit_error(reader.fields)
    return values


class _Reader:
    """Reads words one by one and keeps what it could not read."""

    def __init__(self, schema: Mapping[str, Any] | None, directory: pathlib.Path) -> None:
        _refuse_malformed(schema or {})
        self._parameters = _parameters(schema or {})
        self._directory = directory
        self.fields: dict[str, str] = {}

    def object(self, text: str) -> dict[str, Any]:
        source = self._file_text("input", text[1:]) if text.startswith("@") else text
        if source is None:
            return {}
        value = self._json("input", source)
        if value is None or isinstance(value, dict):
            return value or {}
        self.fields["input"] = f"expected a JSON object, got {scalars.describe_value(value)}"
        return {}

    def word(self, word: str, arguments: dict[str, Any]) -> None:
        name, equals, text = word.partition("=")
        if not equals or not name.rstrip(":"):
            self.fields[word] = "expected name=value, name=@file or name:=json"
            return
        explicit = name.endswith(":") and name not in self._parameters
        name = name[:-1] if explicit else name
        before = len(self.fields)
        value = self._json(name, text) if explicit else self._value(name, text)
        if len(self.fields) == before:
            arguments[name] = value

    def _value(self, name: str, text: str) -> Any:
        schema = self._parameters.get(name, {})
        kinds = _kinds(schema)
        if "path" in kinds:
            return self._directory / text.removeprefix("@")
        if text.startswith("@@"):
            text = text[1:]
        elif text.startswith("@") and len(text) > 1:
            return self._from_file(name, text[1:], kinds)
        return self._typed(name, text, kinds)

    def _from_file(self, name: str, file: str, kinds: set[str]) -> Any:
        if "bytes" in kinds:
            return self._file(name, file, pathlib.Path.read_bytes)
        text = self._file_text(name, file)
        if text is None or kinds & _TEXT:
            return text
        return self._typed(name, text.strip(), kinds)

    def _typed(self, name: str, text: str, kinds: set[str]) -> Any:
        if text == "null" and "null" in kinds:
            return None
        for kind, read in _READERS.items():
            if kind in kinds:
                try:
                    return read(text)
                except ValueError:
                    continue
        if kinds & _TEXT or not kinds:
            return _json_or_text(text) if not kinds else text
        if kinds & {"array", "object"}:
            return self._json(name, text)
        if "bytes" in kinds:
            return text.encode()
        return text

    def _json(self, name: str, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            self.fields[name] = f"not JSON: {error}"
        except RecursionError:
            self.fields[name] = "not JSON: nested too deeply"
        return None

    def _file_text(self, name: str, file: str) -> str | None:
        text: str | None = self._file(name, file, lambda path: path.read_text(encoding="utf-8"))
        return text

    def _file(self, name: str, file: str, read: Callable[[pathlib.Path], Any]) -> Any:
        try:
            return read(self._directory / file)
        except OSError as error:
            self.fields[name] = f"cannot read {file}: {error.strerror}"
        except ValueError:
            self.fields[name] = f"cannot read {file}: it is not UTF-8 text"
        return None


def _truth(text: str) -> bool:
    words = {
        "true": True,
        "yes": True,
        "1": True,
        "on": True,
        "false": False,
        "no": False,
        "0": False,
        "off": False,
    }
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


# In this order: a parameter that takes a number or text gets the number when the word is one.
_READERS: dict[str, Callable[[str], Any]] = {
    "integer": int,
    "number": float,
    "timedelta": float,
    "complex": complex,
    "boolean": _truth,
}
_TEXT = {"string", "datetime", "date", "time", "path"}


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """Return the words for what a parameter takes: JSON types and markers."""
    found: set[str] = set()
    for word in ("anyOf", "oneOf"):
        for each in schema.get(word, ()):
            found |= _kinds(each) if isinstance(each, Mapping) else set()
    kinds = schema.get("type")
    listed = set(kinds) if isinstance(kinds, (list, tuple)) else {kinds} if isinstance(kinds, str) else set()
    marker = schema.get("x-toft-type")
    if not isinstance(marker, str):
        marker = None
    if marker in unseen.MARKED_KINDS:
        return found | {unseen.MARKED_KINDS[marker]} | (listed & {"null"})
    if marker is not None and marker != "enum":
        return found | {marker} | (listed & {"null"})
    if "enum" in schema and not listed:
        listed = {unseen.JSON_KINDS.get(type(each), "string") for each in schema["enum"]}
    return found | listed


def _parameters(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    parameters = schema.get("parameters", {})
    return {name: each for name, each in parameters.items() if each.get("kind") != "var_keyword"}


def _value_schema(parameter: Mapping[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in parameter.items() if word not in ("kind", "default")}


def _fields(name: str, misfit: scalars.Misfit) -> dict[str, str]:
    return {schemas.path_text((name, *path)): message for path, message in misfit.problems}


__all__ = ["Binder", "misfit_error", "parse_cli", "read_cli"]
