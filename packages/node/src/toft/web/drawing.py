"""Draws a graph of steps as an SVG: each step stands right of what it waits for.

Pure, and bounded: what is too large to be read as a picture is refused, and the page shows its table alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_STEPS = 120
MOST_LINES = 360
"""More than that nobody reads as a picture, and drawing it would hold up the event loop."""
_WIDTH, _HEIGHT = 168, 44
_ACROSS, _DOWN = 64, 18
_MARGIN = 8
_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Box:
    """One step in the picture.

    Attributes:
        step: Its name.
        x: Of its left edge.
        y: Of its upper edge.
    """

    step: str
    x: int
    y: int
    width: int = _WIDTH
    height: int = _HEIGHT


@dataclass(frozen=True, slots=True)
class Line:
    """What one step waits for.

    Attributes:
        path: As SVG writes it.
        is_loose: The step before may end in whatever way.
    """

    path: str
    is_loose: bool
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole graph."""

    width: int
    height: int
    boxes: Sequence[Box] = field(default_factory=tuple)
    lines: Sequence[Line] = field(default_factory=tuple)


def draw(steps: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Return the picture of a graph; None when nobody could read it.

    Args:
        steps: Each with `id` and `needs`, as a sequence tells them: each behind those it waits for.
    """
    if not steps or len(steps) > MOST_STEPS:
        return None
    needs = {str(step["id"]): dict(step.get("needs") or {}) for step in steps}
    if sum(map(len, needs.values())) > MOST_LINES:
        return None
    columns = _columns(needs)
    _untangle(columns, needs)
    tallest = max(map(len, columns))
    boxes: dict[str, Box] = {}
    for across, column in enumerate(columns):
        # Each column is centred, so that a lone step stands beside the middle of what it joins.
        above = (tallest - len(column)) * (_HEIGHT + _DOWN) // 2
        for down, name in enumerate(column):
            boxes[name] = Box(
                name,
                _MARGIN + across * (_WIDTH + _ACROSS),
                _MARGIN + above + down * (_HEIGHT + _DOWN),
            )
    lines = [
        _line(boxes[source], boxes[target], is_loose=how != "completed")
        for target, sources in needs.items()
        for source, how in sources.items()
        if source in boxes
    ]
    return Picture(
        width=2 * _MARGIN + len(columns) * _WIDTH + (len(columns) - 1) * _ACROSS,
        height=2 * _MARGIN + tallest * _HEIGHT + (tallest - 1) * _DOWN,
        boxes=tuple(boxes.values()),
        lines=tuple(lines),
    )


def _columns(needs: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Return the steps by how many others have to come before them."""
    depth: dict[str, int] = {}
    for name, sources in needs.items():  # each stands behind those it waits for
        depth[name] = 1 + max((depth.get(source, -1) for source in sources), default=-1)
    columns: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name, at in depth.items():
        columns[at].append(name)
    return columns


def _untangle(columns: list[list[str]], needs: Mapping[str, Mapping[str, str]]) -> None:
    """Order each column by where its neighbours stand, forwards and backwards a few times."""
    follows: dict[str, list[str]] = {name: [] for name in needs}
    for name, sources in needs.items():
        for source in sources:
            follows.setdefault(source, []).append(name)
    for sweep in range(_SWEEPS):
        is_forward = sweep % 2 == 0
        place = {name: at for column in columns for at, name in enumerate(column)}
        for column in columns if is_forward else reversed(columns):

            def middle(name: str, is_forward: bool = is_forward, place: dict[str, int] = place) -> float:
                beside = [each for each in (needs[name] if is_forward else follows[name]) if each in place]
                return sum(place[each] for each in beside) / len(beside) if beside else place[name]

            column.sort(key=middle)
            place.update((name, at) for at, name in enumerate(column))


def _line(source: Box, target: Box, *, is_loose: bool) -> Line:
    x1, y1 = source.x + source.width, source.y + source.height // 2
    x2, y2 = target.x, target.y + target.height // 2
    bend = max((x2 - x1) // 2, 24)
    path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    return Line(path, is_loose, source.step, target.step)
