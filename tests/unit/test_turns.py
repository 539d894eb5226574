"""Long lists give others their turn."""

from __future__ import annotations

import asyncio

from toft.kernel import turns


def test_every_item_comes_in_order_and_others_have_turns_between_them() -> None:
    async def run() -> tuple[list[int], list[int]]:
        seen: list[int] = []
        met: list[int] = []

        async def other() -> None:
            while len(seen) < 1000:
                met.append(len(seen))
                await asyncio.sleep(0)

        beside = asyncio.ensure_future(other())
        async for number in turns.sharing(range(1000)):
            seen.append(number)
        await beside
        return seen, met

    seen, met = asyncio.run(run())
    assert seen == list(range(1000))
    assert met == [200, 400, 600, 800]
