"""The journal on disk: the last state and the one before it, each with its own checksum."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from toft.managed import phases
from toft.store import durable

SCHEMA = 1
_NAME = "journal.json"
_PREVIOUS = "journal.prev"


@dataclass(frozen=True)
class Found:
    """What there was to read.

    Attributes:
        state: The last one that is whole.
        is_older: It may not be the last one: that one is damaged.
        problems: What was wrong, as sentences.
    """

    state: phases.State
    is_older: bool = False
    problems: tuple[str, ...] = ()


class Journal:
    """The two files.

    Args:
        directory: Where they are.
        operations: The steps of a durable write.
    """

    def __init__(self, directory: Path, operations: durable.Operations = durable.SYSTEM) -> None:
        self._path = directory / _NAME
        self._previous = directory / _PREVIOUS
        self._operations = operations

    def read(self) -> Found:
        """Return the last whole state, else an empty one; never raises for what the files hold."""
        problems: list[str] = []
        for path in (self._path, self._previous):
            try:
                state = decode(self._operations.read(str(path)))
            except FileNotFoundError:
                if path == self._path:
                    continue
                break
            except (OSError, ValueError) as error:
                problems.append(f"{path.name} is damaged: {error}")
                continue
            return Found(state, is_older=path != self._path, problems=tuple(problems))
        return Found(phases.State(), problems=tuple(problems))

    def write(self, state: phases.State) -> None:
        """Keep a state.

        Durability: It is on disk when this returns; at every moment before the one or the other can be read.
        """
        try:
            last = self._operations.read(str(self._path))
            decode(last)
        except (OSError, ValueError):
            pass  # a damaged one does not take the place of what can still be read
        else:
            durable.write_file(self._previous, last, mode=0o600, operations=self._operations)
        durable.write_file(self._path, encode(state), mode=0o600, operations=self._operations)


def encode(state: phases.State) -> bytes:
    """Return a state as the text that is kept."""
    body = json.dumps(dataclasses.asdict(state), sort_keys=True)
    return json.dumps({"schema": SCHEMA, "sha256": _checksum(body), "state": body}).encode()


def decode(data: bytes) -> phases.State:
    """Return the state that such a text says.

    Raises:
        ValueError: It was not written whole by this program.
    """
    try:
        outer = json.loads(data)
        if outer["schema"] != SCHEMA:
            raise ValueError(f"its schema is {outer['schema']!r}, not {SCHEMA}")
        if _checksum(outer["state"]) != outer["sha256"]:
            raise ValueError("its checksum does not fit")
        state: phases.State = _load(phases.State, json.loads(outer["state"]))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it has not the form of a journal: {error!r}") from error
    return state


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _load(kind: Any, value: Any) -> Any:
    """Build a value of an annotated type from JSON; strict, because somebody may have edited the file."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return (
            None
            if value is None
            else _load(next(each for each in arguments if each is not type(None)), value)
        )
    if origin is tuple:
        return tuple(_load(arguments[0], each) for each in value)
    if origin is Mapping:
        return {str(name): _load(arguments[1], each) for name, each in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: _load(hints[name], each) for name, each in value.items()})
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{value!r:.40} is no {kind}")
    return value
