"""Work that goes on for as long as its process, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from toft.kernel import log

_log = log.get_logger("kernel.lasting")
_AGAIN_S = 5.0


async def keep_on(work: Callable[[], Coroutine[Any, Any, None]], *, again_s: float = _AGAIN_S) -> None:
    """Do something until cancelled; what ends by what nobody thought of is logged, and begun again."""
    while True:
        doing = asyncio.create_task(work())
        try:
            await asyncio.wait({doing})
        finally:
            doing.cancel()
            await asyncio.wait({doing})
        error = None if doing.cancelled() else doing.exception()
        if error is None:
            return
        _log.error("work_failed", work=work.__qualname__, error=repr(error))
        await asyncio.sleep(again_s)
