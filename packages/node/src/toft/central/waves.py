"""When a rollout goes on and when it stops: what people may choose, and what is chosen for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toft.central import layers
from toft.kernel.errors import UsageError

MOST_WAVES = 32
MOST_BAKE_S = 30 * 86_400.0


@dataclass(frozen=True)
class Wave:
    """One step.

    Attributes:
        percent: Of the nodes it is about, how many have the revision once it is open.
        bake_s: Seconds it must be open before it is judged.
        selector: Labels of the nodes it is about; empty for all.
    """

    percent: float
    bake_s: float
    selector: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        told: dict[str, Any] = {"percent": self.percent, "bake_s": self.bake_s}
        return {**told, "selector": dict(self.selector)} if self.selector else told


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When a rollout goes on, and when it stops.

    Attributes:
        waves: One after the other; the last one is everybody.
        min_success: The share of a wave that must have applied.
        abort_count: So many that went back or failed abort it...
        abort_ratio: ...or this share of all that were reached, whichever is more.
    """

    waves: tuple[Wave, ...]
    min_success: float = 0.95
    abort_count: int = 2
    abort_ratio: float = 0.05

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON."""
        return {
            "waves": [each.to_dict() for each in self.waves],
            "min_success": self.min_success,
            "abort_count": self.abort_count,
            "abort_ratio": self.abort_ratio,
        }

    def most_bad(self, reached: int) -> float:
        """Return how many nodes that went back or failed end it."""
        return max(float(self.abort_count), self.abort_ratio * reached)


def default_waves(poll_interval_s: float, window_s: float, settle_s: float) -> tuple[Wave, ...]:
    """Return the waves of a rollout for which nobody chose others.

    Args:
        poll_interval_s: Of the document: within it, and a tenth, every node that is there has asked.
        window_s: The longest a node tries a document before it goes back.
        settle_s: What its gates must stay green for.

    The first wave is 2 %: what fails everywhere stays away from 98 nodes of 100, and of 200 nodes four are
    witnesses where 1 % would give two. One node is the least, of however few. Each wave lasts until every
    node that is there must have given its verdict.
    """
    bake_s = float(math.ceil(1.1 * poll_interval_s + window_s + settle_s))
    return tuple(Wave(percent, bake_s) for percent in (2, 10, 50, 100))


def rules(value: Mapping[str, Any], otherwise: Sequence[Wave]) -> Rules:
    """Return the rules that somebody wants.

    Args:
        value: Some of `waves`, `min_success`, `abort_count`, `abort_ratio`.
        otherwise: The waves, when they name none.

    Raises:
        UsageError: They make no sense; says which one and why.
    """
    unknown = sorted(set(value) - {"waves", "min_success", "abort_count", "abort_ratio"})
    if unknown:
        raise _bad(f"there is no rule {unknown[0][:80]!r}")
    listed = value.get("waves")
    waves = tuple(otherwise) if listed is None else _waves(listed)
    count = value.get("abort_count", 2)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 1_000_000:
        raise _bad("abort_count is a number of nodes, 1 at least")
    return Rules(
        waves=waves,
        min_success=_number(value.get("min_success", 0.95), "min_success", 0.0, 1.0, is_above=True),
        abort_count=count,
        abort_ratio=_number(value.get("abort_ratio", 0.05), "abort_ratio", 0.0, 1.0),
    )


def _waves(value: Any) -> tuple[Wave, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_WAVES:
        raise _bad(f"waves is a list of 1 to {MOST_WAVES} objects")
    found: list[Wave] = []
    for index, each in enumerate(value):
        if not isinstance(each, dict) or not set(each) <= {"percent", "bake_s", "selector"}:
            raise _bad(f"wave {index + 1} is not an object of percent, bake_s and, if it must be, selector")
        found.append(
            Wave(
                _number(each.get("percent"), f"percent of wave {index + 1}", 0, 100, is_above=True),
                _number(each.get("bake_s"), f"bake_s of wave {index + 1}", 0, MOST_BAKE_S),
                layers.check_selector(each.get("selector", {})),
            )
        )
        earlier = [wave.percent for wave in found[:-1] if wave.selector == found[-1].selector]
        if earlier and found[-1].percent < earlier[-1]:
            raise _bad(f"wave {index + 1} is smaller than the one before: waves hold those before them")
    if found[-1].percent != 100 or found[-1].selector:
        raise _bad("the last wave must be 100 % of all: a rollout that is done is everybody's")
    return tuple(found)


def _number(value: Any, name: str, least: float, most: float, *, is_above: bool = False) -> float:
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_one or not least <= value <= most or (is_above and value == least):
        raise _bad(f"{name} is a number {'above' if is_above else 'from'} {least:g} and up to {most:g}")
    return float(value)


def _bad(message: str) -> UsageError:
    return UsageError(
        message,
        code="rollout.rules",
        hint='such as {"waves": [{"percent": 2, "bake_s": 1260}, {"percent": 100, "bake_s": 1260}]}',
    )
