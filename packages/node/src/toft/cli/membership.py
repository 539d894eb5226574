"""What `toft join` and `toft leave` do: a home is made to belong to a central, or to nobody.

Imported when one of them runs, and not before: it brings the room of documents along.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from toft.cli.session import Session
from toft.client.place import Place
from toft.daemon import control, keeping
from toft.managed import generations, identity, joining
from toft.managed.generations import Generations

_LOOK_S = 0.05


def join(
    session: Session,
    url: str,
    token: str,
    *,
    server_key: str,
    starts: bool,
    is_users: bool,
    wait_s: float | None,
    **trust: Any,
) -> dict[str, Any]:
    """Make a home belong to a central, and say what there is then.

    Args:
        session: Of the command.
        url: Of the central.
        token: That lets this node in.
        server_key: Who must sign documents: a key, a root, a file of one; empty for whom the central says.
        starts: A daemon is started, or told.
        is_users: Its service is the user's own.
        wait_s: For the first document that proves itself.
        **trust: As `joining.seed` takes it.

    Raises:
        NodeError: As `joining.join` and `keeping.ensure` raise it.
    """
    if server_key:
        from toft.managed import keys  # noqa: PLC0415 - 10 MB that a join without a key goes without

        server_key = keys.text_of(server_key)
    wanted = joining.seed(url, token, server_key=server_key, **trust)
    began = time.monotonic()
    engine = generations.Generations.at(session.settings().home)
    joined = joining.join(engine, wanted)
    found: dict[str, Any] = {"action": joined.action, "url": wanted.url, "node_id": joined.node_id or None}
    found |= {"daemon": None, "unit": None, "outcome": None}
    if starts:
        kept = keeping.ensure(session.settings(), session.environ, is_users=is_users)
        found |= {"daemon": kept.how, "unit": kept.unit or None}
    if wait_s is not None:
        found |= _outcome(engine, began + wait_s)
        found["waited_s"] = round(time.monotonic() - began, 3)
    return found


def leave(session: Session) -> dict[str, Any]:
    """Give a home back to nobody; say whether it belonged to somebody, and who has heard of it.

    Raises:
        NodeError: As `joining.leave` raises it.
    """
    home = session.settings().home
    engine = generations.Generations.at(home)
    has_heard = False
    if joining.is_member(engine) and identity.Files(engine.directory).read().enrollment is not None:
        from toft.managed import leaving  # noqa: PLC0415 - 90 ms that a node of nobody does not pay

        has_heard = asyncio.run(leaving.tell(engine))
    has_left = joining.leave(engine)
    is_told = has_left and control.tell_generation(Place(home))
    return {"left": has_left, "daemon": "told" if is_told else None, "central": has_heard}


def _outcome(engine: Generations, until: float) -> dict[str, Any]:
    """Wait for the first document that has proven itself; tell what there is when the time is over."""
    files = identity.Files(engine.directory)
    while True:
        state, lying = engine.read().state, files.read()
        known = lying.identity
        found = {"node_id": known.node_id or None if known else None, "etag": state.ok or None}
        is_late = time.monotonic() >= until
        # The token goes a moment after the proof is written down.
        if state.is_proven and state.ok and (lying.seed is None or is_late):
            return {**found, "outcome": "confirmed"}
        if is_late:
            stage = "on trial" if state.trial else "enrolled" if known and known.access_token else "enrolling"
            return {**found, "outcome": stage}
        time.sleep(_LOOK_S)
