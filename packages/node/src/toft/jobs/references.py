"""References inside the arguments of a step: what another step gave, or the item of a fan-out.

In JSON a reference is `{"$from": "ocr", "path": ["lines", 0]}` or `{"$item": ["text"]}`; `{"$literal": ...}`
keeps what is inside as it is. In Python `step("ocr").output["lines"][0]` and `item()["text"]` make the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from toft.kernel import errors

FROM = "$from"
ITEM = "$item"
LITERAL = "$literal"
_WORDS = (FROM, ITEM, LITERAL)
MAX_PATH = 32
MAX_DEPTH = 90
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """What a step gives, or a part of it.

    Attributes:
        step: The step.
        path: The way into it.
    """

    step: str
    path: Path = ()

    def __getitem__(self, part: str | int) -> Ref:
        """Return a part of it."""
        return Ref(self.step, (*self.path, part))

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a reference has no items before its step has run; use for_each")

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in a file."""
        return {FROM: self.step, "path": list(self.path)} if self.path else {FROM: self.step}


@dataclass(frozen=True, slots=True)
class Item:
    """What a part of a fan-out works on, or a part of that."""

    path: Path = ()

    def __getitem__(self, part: str | int) -> Item:
        """Return a part of it."""
        return Item((*self.path, part))

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("an item has no items before its step has run")

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in a file."""
        return {ITEM: list(self.path)}


@dataclass(frozen=True, slots=True)
class StepRef:
    """A step, to refer to."""

    id: str

    @property
    def output(self) -> Ref:
        """Return what it gives."""
        return Ref(self.id)


def step(name: str) -> StepRef:
    """Return a step of the same graph, to refer to what it gives."""
    return StepRef(name)


def item() -> Item:
    """Return what a part of a fan-out works on."""
    return Item()


class BadReferenceError(errors.UsageError, ValueError):
    """An object starts like a reference and is none."""

    code = "graph.reference"


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value with its references as they stand in a file; other objects stay.

    Raises:
        BadReferenceError: It is nested too deeply, or contains itself.
    """
    if isinstance(value, (Ref, Item)):
        return value.to_json()
    if depth > MAX_DEPTH:
        raise BadReferenceError(f"arguments are nested more than {MAX_DEPTH} levels deep")
    kind = type(value)
    if kind is dict:
        return {key: plain(each, depth + 1) for key, each in value.items()}
    if kind is list:
        return [plain(each, depth + 1) for each in value]
    if kind is tuple:
        return tuple(plain(each, depth + 1) for each in value)
    return value


def read(value: Any) -> Ref | Item | None:
    """Return the reference that an object is, or None.

    Raises:
        BadReferenceError: It has the word of a reference and is none.
    """
    if type(value) is not dict:
        return None
    if FROM in value:
        if not value.keys() <= {FROM, "path"} or type(value[FROM]) is not str:
            raise BadReferenceError('a reference is {"$from": step, "path": [...]}')
        return Ref(value[FROM], _path(value.get("path", [])))
    if ITEM in value:
        if len(value) != 1:
            raise BadReferenceError('an item is {"$item": [...]}')
        return Item(_path(value[ITEM]))
    return None


def _path(parts: Any) -> Path:
    if type(parts) not in (list, tuple) or len(parts) > MAX_PATH:
        raise BadReferenceError(f"a path is a list of at most {MAX_PATH} names and numbers")
    if any(type(part) not in (str, int) for part in parts):
        raise BadReferenceError("a path holds names and numbers")
    return tuple(parts)


def is_literal(value: Any) -> bool:
    """Say whether an object keeps what is inside as it is."""
    return type(value) is dict and len(value) == 1 and LITERAL in value


def find(value: Any, where: Path = ()) -> Iterator[tuple[Path, Ref | Item]]:
    """Return the references in a value, each with the place it stands at.

    Raises:
        BadReferenceError: Something starts like a reference and is none; its message says where.
    """
    kind = type(value)
    if kind is dict:
        if is_literal(value):
            return
        try:
            found = read(value)
        except BadReferenceError as error:
            raise BadReferenceError(f"{shown(where)}: {error}") from None
        if found is not None:
            yield where, found
            return
        for key, each in value.items():
            yield from find(each, (*where, key))
    elif kind is list or kind is tuple:
        for number, each in enumerate(value):
            yield from find(each, (*where, number))


def replace(value: Any, by: Callable[[Ref | Item], Any]) -> Any:
    """Return a value in which every reference is replaced, and every literal is what is inside it."""
    kind = type(value)
    if kind is dict:
        if is_literal(value):
            return value[LITERAL]
        found = read(value)
        if found is not None:
            return by(found)
        return {key: replace(each, by) for key, each in value.items()}
    if kind is list:
        return [replace(each, by) for each in value]
    if kind is tuple:
        return tuple(replace(each, by) for each in value)
    return value


def with_item(value: Any, by: Callable[[Item], Any]) -> Any:
    """Return the arguments of one part of a fan-out; other references and literals stay as they stand."""
    kind = type(value)
    if kind is dict:
        if is_literal(value):
            return value
        found = read(value)
        if isinstance(found, Item):
            return by(found)
        return value if found is not None else {key: with_item(each, by) for key, each in value.items()}
    if kind is list:
        return [with_item(each, by) for each in value]
    if kind is tuple:
        return tuple(with_item(each, by) for each in value)
    return value


def shown(path: Path) -> str:
    """Return a path as a person writes it."""
    text = ""
    for part in path:
        text += f"[{part}]" if not isinstance(part, str) else f".{part}" if text else part
    return text or "$"
