"""A plugin that does next to nothing, so that what is measured is toft."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from toft_sdk import Plugin, action


class Echo(Plugin):
    """Echoes, streams, waits, hangs."""

    name = "bench-echo"
    fork_safe = True

    def execute(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return what came."""
        return payload

    @action(stream=True)
    def chunks(self, count: int) -> Iterator[dict[str, Any]]:
        """Yield small chunks."""
        for number in range(count):
            yield {"n": number, "text": "chunk"}

    @action
    def wait(self) -> None:
        """Wait to be cancelled, as a plugin does that listens."""
        told = threading.Event()
        self.register_cancel_callback(told.set)
        self.report_progress(0.0, "waiting")
        told.wait()
        self.check_cancel()

    @action
    def tick(self, count: int, pause_s: float) -> None:
        """Report the clock that all processes of a machine share, again and again."""
        for number in range(count):
            self.report_progress(number / count, repr(time.monotonic()))
            time.sleep(pause_s)

    @action
    def hang(self) -> None:
        """Hear nothing and hold the interpreter, as a call in C does."""
        self.report_progress(0.0, "hanging")
        pow(3, 1 << 33)

    @action
    def scatter(self) -> list[int]:
        """Leave children behind that have left the session, and say who they are."""
        found = []
        for _ in range(3):
            read, write = os.pipe()
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.write(write, b"%d\n" % os.getpid())
                    time.sleep(600)
                os._exit(0)
            os.wait()
            found.append(int(os.read(read, 20)))
        return found
