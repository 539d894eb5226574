"""Whether a failed attempt is followed by another one, when, and with what said about why."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toft.jobs import errors
from toft.jobs.records import RetryPolicy

Randomness = Callable[[int], bytes]


class Origin(enum.StrEnum):
    """Where a fault comes from; it says whether the attempt may have had effects."""

    PLUGIN = "plugin"  # the plugin raised it: it knows what it did
    WORKER = "worker"  # the process is gone, in the middle of it
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    UNBEGUN = "unbegun"  # the call was never handed to a worker
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt.

    Attributes:
        delay_s: Seconds until it may start.
        because: A stable word.
        makes_room: Idle instances go and the worker is replaced before it.
    """

    delay_s: float
    because: str
    makes_room: bool = False


def again(
    error: Mapping[str, Any],
    origin: Origin,
    *,
    attempt: int,
    policy: RetryPolicy,
    idempotent: bool,
    randomness: Randomness,
) -> Again | None:
    """Return whether and when a job is tried again.

    Args:
        error: What the attempt failed with, as the errors' `to_dict` gives it.
        origin: Where that comes from.
        attempt: Which attempt it was, from 1.
        policy: What the job says.
        idempotent: Whether it may be repeated although it may have had effects.
        randomness: Returns random bytes.
    """
    if origin is Origin.CANCELLED:
        return None
    if origin is Origin.UNBEGUN:
        return Again(0.0, "not_started")
    category = str(error.get("category", "fatal"))
    by_plugin = origin is Origin.PLUGIN
    if by_plugin and category == "resource" and attempt < max(policy.max_attempts, 2):
        # It said itself that it could not; with a fresh worker and more room it may.
        return Again(pause_s(error, attempt, policy, randomness), "resource", makes_room=True)
    if attempt >= policy.max_attempts or category not in policy.on:
        return None
    if not (by_plugin or idempotent):
        return None
    because = (
        "timeout" if origin is Origin.TIMEOUT else "worker_lost" if origin is Origin.WORKER else category
    )
    return Again(pause_s(error, attempt, policy, randomness), because, makes_room=category == "resource")


def pause_s(error: Mapping[str, Any], attempt: int, policy: RetryPolicy, randomness: Randomness) -> float:
    """Return the pause before the next attempt: longer each time, and never the same for all."""
    grown = min(policy.most_s, policy.first_s * policy.factor ** min(attempt - 1, 64))
    chance = int.from_bytes(randomness(4), "big") / 2**32
    pause = grown * (1.0 - policy.jitter * chance)
    asked = error.get("retry_after_s")
    return max(pause, float(asked)) if isinstance(asked, (int, float)) else pause


def read_policy(given: Any) -> RetryPolicy | None:
    """Return a policy as people and programs say it: a number of attempts, or some of its fields.

    Raises:
        UsageError: It is neither; numbers are checked where a job is stored.
    """
    if given is None or isinstance(given, RetryPolicy):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return RetryPolicy(max_attempts=given)
    known = sorted(field.name for field in dataclasses.fields(RetryPolicy))
    if not isinstance(given, Mapping):
        raise errors.bad_request("retry", f"is a number of attempts, or has {', '.join(known)}")
    unknown = sorted(map(str, given.keys() - set(known)))
    if unknown:
        raise errors.bad_request("retry", f"has no {', '.join(unknown)[:80]}; it has {', '.join(known)}")
    if not isinstance(given.get("on", ()), (list, tuple)):
        raise errors.bad_request("retry", "on is a list of categories")
    return RetryPolicy.from_dict(dict(given))
