"""What users submit, by a seed: single jobs of every kind, and graphs."""

import random
from collections.abc import Sequence
from typing import Any

from tests.simulation import sim_backend

from toft.jobs import records


def request(
    chance: random.Random, models: Sequence[sim_backend.Model], known: Sequence[str], now: float
) -> records.Request:
    """Return a job; `known` are those it may have to wait for."""
    model, luck = chance.choice(models), chance.random()
    return records.Request(
        plugin=model.plugin,
        instance=model.name,
        arguments=b'{"n": %d}' % chance.getrandbits(16),
        priority=chance.choice((0, 0, 0, 1, -1, 5)),
        delay_s=chance.choice((0.5, 30.0)) if luck < 0.05 else None,
        ready_at=now + chance.choice((-5, 1, 60)) if 0.05 < luck < 0.08 else None,
        timeout_s=chance.choice((1.0, 5.0, 20.0)),
        deadline_s=chance.choice((0.5, 20.0)) if 0.1 < luck < 0.15 else None,
        idempotent=chance.random() < 0.3,
        retry=policy(chance) if chance.random() < 0.3 else None,
        after=tuple(chance.sample(known, min(2, len(known)))) if 0.2 < luck < 0.27 else (),
        needs=chance.choice(("completed", "ended")),
    )


def policy(chance: random.Random) -> records.RetryPolicy:
    on = chance.choice((("transient",), ("transient", "resource"), ("fatal",)))
    return records.RetryPolicy(max_attempts=chance.randint(1, 4), on=on, first_s=0.2, most_s=5.0)


def graph(chance: random.Random, models: Sequence[sim_backend.Model]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    for number in range(chance.randint(1, 6)):
        model = chance.choice(models)
        step: dict[str, Any] = {"id": f"s{number}", "plugin": model.plugin, "instance": model.name}
        step |= {"timeout_s": 5.0, "idempotent": chance.random() < 0.3}
        if steps and chance.random() < 0.6:
            step["after"] = [each["id"] for each in chance.sample(steps, min(2, len(steps)))]
        if chance.random() < 0.2:
            step["for_each"] = list(range(chance.randint(0, 4)))
        steps.append(step)
    return {"steps": steps, "mode": chance.choice(("fail_fast", "best_effort"))}
