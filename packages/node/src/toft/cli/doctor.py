"""`toft doctor`: what the node stands on, with evidence and what to do about it."""

from __future__ import annotations

from typing import Any

import typer

from toft.cli import session as sessions
from toft.cli.session import JsonOption, Session


def doctor(context: typer.Context, as_json: JsonOption = False) -> None:
    """Look at what the node stands on.

    Exits with 1 when something is wrong, and says what to do.
    """
    import asyncio  # noqa: PLC0415 - 20 ms that `toft --help` does not pay

    session = sessions.of(context)
    sessions.show_checks(session, asyncio.run(_examine(session)), as_json=as_json)


async def _examine(session: Session) -> list[dict[str, Any]]:
    from toft.plugins import doctor as doctors  # noqa: PLC0415 - a third of a second that --help does not pay

    return [check.to_dict() async for check in doctors.examine(session.settings(), session.environ)]
