"""What this process holds in memory while something happens."""

from __future__ import annotations

import gc
import re
import threading
from pathlib import Path


class Memory:
    """The most this process held, more than before, looked at every few milliseconds."""

    def __enter__(self) -> Memory:
        gc.collect()
        self.most = 0
        self._before = self._now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _now(self) -> int:
        text = Path("/proc/self/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) << 10  # type: ignore[index]

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self.most = max(self.most, self._now() - self._before)
