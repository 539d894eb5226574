"""The scheduling policies by name: what is looked at before a job gets a lane, and how long it may wait."""

from __future__ import annotations

from dataclasses import dataclass

from toft.kernel import errors

QUEUE_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What one policy looks at; lanes and the caps of instances hold under each of them.

    Attributes:
        name: What it is called in the settings.
        checks: Look at memory at all.
        packs: Count what running jobs will still take, and run an instance that was never measured alone.
        patience_s: Seconds a job that does not fit may wait before it fails; None is for ever.
    """

    name: str
    checks: bool = True
    packs: bool = False
    patience_s: float | None = None


PERMISSIVE = Policy("permissive", checks=False)
SAFETY = Policy("safety", patience_s=0.0)
QUEUE = Policy("queue", patience_s=QUEUE_TIMEOUT_S)
MEASURE = Policy("measure", packs=True)

POLICIES = {each.name: each for each in (MEASURE, PERMISSIVE, SAFETY, QUEUE)}


def get(name: str) -> Policy:
    """Return a policy.

    Raises:
        UsageError: There is none of that name.
    """
    found = POLICIES.get(name)
    if found is None:
        raise errors.UsageError(
            f"there is no scheduling policy {name[:80]!r}",
            code="settings.invalid",
            details={"known": list(POLICIES)},
        )
    return found
