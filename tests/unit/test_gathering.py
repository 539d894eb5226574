import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from toft.daemon.gathering import Gathering


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def write(self, data: Any) -> None:
        self.told.append(bytes(data))

    def close(self) -> None:
        self.told.append("closed")

    def abort(self) -> None:
        self.told.append("aborted")


def one(use: Callable[[Gathering], None], wire: Wire) -> None:
    async def turn() -> None:
        gathering = Gathering(wire)
        use(gathering)

    asyncio.run(turn())


def say(*pieces: bytes) -> Callable[[Gathering], None]:
    def saying(gathering: Gathering) -> None:
        for piece in pieces:
            gathering.write(piece)

    return saying


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ([b"head", b"", b"body"], [b"headbody"]),
        ([b"alone"], [b"alone"]),
        ([b"x" * 40_000, b"y" * 40_000, b"z"], [b"x" * 40_000 + b"y" * 40_000, b"z"]),
    ],
)
def test_what_is_said_in_one_turn_is_written_at_once(pieces: list[bytes], told: list[bytes]) -> None:
    wire = Wire()
    one(say(*pieces), wire)
    assert wire.told == told


@pytest.mark.parametrize(("end", "told"), [("close", [b"last", "closed"]), ("abort", ["aborted"])])
def test_closing_writes_what_is_held_and_aborting_drops_it(end: str, told: list[Any]) -> None:
    def ending(gathering: Gathering) -> None:
        gathering.write(b"last")
        getattr(gathering, end)()

    wire = Wire()
    one(ending, wire)
    assert wire.told == told
