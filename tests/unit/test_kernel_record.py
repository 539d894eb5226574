"""Records: made by position or by name, equal by what they hold, without room for anything else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from toft.kernel.record import record


@record()
class Place:
    x: int
    y: int = 0


@record(kw_only=True)
class Named:
    name: str


def test_records_are_what_they_hold() -> None:
    assert Place(1) == Place(1, 0) != Place(1, 1)
    assert {Place(1, 2): "there"}[Place(1, 2)] == "there"
    assert repr(Named(name="a")) == "Named(name='a')"


def test_a_record_has_no_other_fields_and_takes_names_only_when_told_so() -> None:
    place: Any = Place(1)
    with pytest.raises(AttributeError):
        place.z = 3
    wrong: Any = Named
    with pytest.raises(TypeError):
        wrong("a")
    assert [field.name for field in dataclasses.fields(wrong)] == ["name"]
