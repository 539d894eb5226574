"""What happens to an instance, as its page hears it: lines that it prints, and that it stands another way."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from toft.api.service import Service, State
from toft.kernel import errors
from toft.plugins import activity as activities
from toft.plugins import configuring
from toft.plugins.log_reading import Piece, Place
from toft.plugins.logs import InstanceLog
from toft.web import rendering, settings

LINES = 200
"""The most of a log that a page holds."""
_LONGEST = 2000
_PAUSE_S = 0.1
_LOOK_S = 1.0
_WHEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that is told.

    Attributes:
        cursor: Where in the log the reader stands after it.
        type: `log` or `state`.
        told: What is said of it.
    """

    cursor: str
    type: str
    told: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return self.told


def log_of(serves: Service, subject: settings.Subject) -> InstanceLog:
    """Return the log of an instance, loaded or not."""
    return serves.node.rooms.loader.log_of(subject.instance)


def rows(lines: Sequence[str]) -> list[dict[str, str]]:
    """Return the last of some lines, each taken apart; one of another form is all text."""
    return [_row(each[:_LONGEST]) for each in lines[-LINES:]]


async def watch(
    serves: Service, subject: settings.Subject, after: Place | None
) -> AsyncGenerator[Happening, None]:
    """Yield what happens to an instance until the node ends, or the name is not this instance's any more.

    A flood is told in pieces, at most ten a second, and what is more than a page holds is left out of them.
    """
    log = log_of(serves, subject)
    now = asyncio.get_running_loop().time
    seen: tuple[Any, ...] | None = None
    look_at = now()
    with log.listening() as stirred:
        stirred.set()
        while serves.state is not State.DRAINING:
            if not await _is_still_its_own(serves, subject):
                if serves.node.find(subject.instance) is None:
                    yield Happening(str(after or Place()), "state", {"instance": subject.instance})
                return
            if stirred.is_set():
                stirred.clear()
                piece = await log.read_after(after)
                # Asked after the reading too: what was read is told only if it was its own to the end.
                if not await _is_still_its_own(serves, subject):
                    continue
                after = piece.place
                if piece.lines or piece.is_cut:
                    yield Happening(str(after), "log", {"html": _html(piece), "is_cut": _is_cut(piece)})
            loaded = serves.node.find(subject.instance)
            stands = () if loaded is None else activities.standing(loaded)
            if now() >= look_at and stands != seen:
                seen, look_at = stands, now() + _LOOK_S
                yield Happening(str(after or Place()), "state", {"instance": subject.instance})
            await asyncio.sleep(_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await stirred.wait()


async def _is_still_its_own(serves: Service, subject: settings.Subject) -> bool:
    """Say whether what is printed under the name is the instance's: a name that it gave up is anybody's."""
    node = serves.node
    try:
        await configuring.check_owner(node, subject.plugin, subject.instance)
    except errors.NotFoundError:
        return False
    if not subject.is_known or subject.plugin == subject.instance or node.find(subject.instance) is not None:
        return True
    return await node.rooms.records.find(subject.instance) is not None


def _is_cut(piece: Piece) -> bool:
    return piece.is_cut or len(piece.lines) > LINES


def _html(piece: Piece) -> str:
    return rendering.part("plugin.lines.html", lines=rows(piece.lines), is_cut=_is_cut(piece))


def _row(text: str) -> dict[str, str]:
    at, _, rest = text.partition(" ")
    stream, _, rest = rest.partition(" ")
    call, _, said = rest.partition(" ")
    if not _WHEN.fullmatch(at):
        return {"at": "", "stream": "", "source": "", "text": text}
    source = stream if call == "-" else f"{stream}, call {call}"
    return {"at": at, "stream": stream, "source": source, "text": said}
