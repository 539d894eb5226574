"""What a caller can write becomes what the annotation says; what has the right type is left alone."""

import collections.abc
import datetime
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NewType

import pytest

from toft_sdk.conversion import converter


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    place: Path | None = None
    inner: "Point | None" = None


DAY = datetime.date(2026, 3, 12)
NOON = datetime.datetime(2026, 3, 12, 12, tzinfo=datetime.timezone.utc)  # noqa: UP017 - 3.8 to 3.10 too


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (Path, "/tmp", Path("/tmp")),
        (Path | None, None, None),
        (Path | None, "/tmp", Path("/tmp")),
        (Annotated[Path, "where"], "/tmp", Path("/tmp")),
        (NewType("Place", Path), "/tmp", Path("/tmp")),
        (Colour, "red", Colour.RED),
        (Colour, Colour.RED, Colour.RED),
        (list[Colour], ["red"], [Colour.RED]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[Colour, int], ["red", 2], (Colour.RED, 2)),
        (tuple[Colour, int], ["red"], ("red",)),
        (tuple, [1], (1,)),
        (set[int], [1, 1], {1}),
        (frozenset, [1], frozenset([1])),
        (collections.abc.Set[int], [1], {1}),
        (dict[str, Colour], {"a": "red"}, {"a": Colour.RED}),
        (Point, {"x": 1, "place": "/tmp", "inner": {"x": 2}}, Point(1, Path("/tmp"), Point(2))),
        (Point, Point(3), Point(3)),
        (datetime.datetime, "2026-03-12T12:00:00Z", NOON),
        (datetime.datetime, NOON, NOON),
        (datetime.date, "2026-03-12", DAY),
        (datetime.timedelta, 1.5, datetime.timedelta(seconds=1.5)),
    ],
    ids=str,
)
def test_a_value_becomes_what_its_annotation_says(annotation: Any, value: Any, expected: Any) -> None:
    convert = converter(annotation)
    assert convert is not None
    made = convert(value)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    "annotation", [str, int, Any, None, list, list[int], dict[str, int], int | str, str | Path]
)
def test_what_needs_no_conversion_gets_none(annotation: Any) -> None:
    assert converter(annotation) is None


def test_a_value_that_cannot_become_it_says_so() -> None:
    convert = converter(Colour)
    assert convert is not None
    with pytest.raises(ValueError, match="blue"):
        convert("blue")
