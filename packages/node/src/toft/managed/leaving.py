"""The last thing a node tells its central: that it leaves. Nobody waits for the answer for long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from toft.kernel import clock as clocks
from toft.kernel.errors import NodeError
from toft.managed import belonging, connections, enrolling, generations, identity, protocol, transport

PATIENCE_S = 5.0
_AHEAD = 1000
"""A daemon that runs may send some reports more; this one has to be the last all the same."""


async def tell(engine: generations.Generations, *, clock: clocks.Clock = clocks.SYSTEM) -> bool:
    """Tell the central that this node is about to leave; call it before, while there is a credential.

    Returns:
        Whether a central has taken note; False as well where the node has none, or none answers.
    """
    files = identity.Files.at(engine.directory.parent)
    found = await asyncio.to_thread(files.read)
    if found.membership is None or found.identity is None or not found.identity.access_token:
        return False
    report = json.dumps(await asyncio.to_thread(_report, engine, clock.now())).encode()
    asks = connections.Connections(found.membership.trust, clock)
    facts = await asyncio.to_thread(enrolling.facts)
    credentials = enrolling.Credentials(asks, files, found, facts=facts, clock=clock)
    try:
        async with asyncio.timeout(PATIENCE_S):
            for url in found.membership.urls:
                with contextlib.suppress(NodeError):
                    headers = {"Content-Type": "application/json"}
                    answer = await credentials.ask(
                        "POST", url, protocol.REPORT, headers=headers, body=report, deadline_s=PATIENCE_S
                    )
                    if answer.status == 204:
                        return True
    except (TimeoutError, transport.TrustError):
        return False
    finally:
        await credentials.close()
        await asks.close()
    return False


def _report(engine: generations.Generations, now_s: float) -> Mapping[str, Any]:
    standing = engine.read()
    event = {"event": "left", "reason": "operator", "at": clocks.rfc3339(now_s)}
    return {
        "seq": _last_seq(engine) + _AHEAD,
        "boot_nonce": f"leave-{secrets.token_hex(8)}",
        "etag": standing.state.ok or None,
        "phase": "left",
        "history": [event],
    }


def _last_seq(engine: generations.Generations) -> int:
    try:
        value = json.loads(engine.operations.read(str(engine.directory / belonging.REPORTS)))
        return max(0, int(value["seq"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
