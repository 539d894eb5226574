"""What surrounds a plugin in its process, before and after, and a call that is cancelled on purpose."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time

from toft_sdk import context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable


class Surroundings:
    """What a plugin must leave as it was: directory, environment, threads, children."""

    def __init__(self) -> None:
        self.directory = os.getcwd()
        self.environment = dict(os.environ)
        self.threads = set(threading.enumerate())
        self.children = set(_children())

    def changes(self) -> list[str]:
        """Return what is different now."""
        found = []
        if os.getcwd() != self.directory:
            found.append(f"the working directory is {os.getcwd()}")
        changed = sorted(
            name
            for name in {*os.environ, *self.environment}
            if os.environ.get(name) != self.environment.get(name)
        )
        if changed:
            found.append(f"environment variables changed: {', '.join(changed)}")
        threads = [each for each in threading.enumerate() if each not in self.threads and each.is_alive()]
        if threads:
            found.append(f"threads run: {', '.join(each.name for each in threads)}")
        children = sorted(set(_children()) - self.children)
        if children:
            found.append(f"processes run: {', '.join(map(str, children))}")
        return found


def _children() -> list[int]:
    """Return this process's children; empty where there is no /proc to read."""
    found = []
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for name in names:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            # It ended meanwhile.
            continue
        if int(parent) == os.getpid() and state != b"Z":
            found.append(int(name))
    return found


class CapturedOutput:
    """Takes what goes to file descriptor 1 for a while, C code included."""

    def __enter__(self) -> CapturedOutput:
        self._stdout = sys.stdout
        if self._stdout is not None:
            self._stdout.flush()
        self._file = tempfile.TemporaryFile()
        self._saved = os.dup(1)
        os.dup2(self._file.fileno(), 1)
        # Somebody may have given Python another stdout than the descriptor.
        sys.stdout = open(os.dup(1), "w", encoding="utf-8", errors="replace")
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.close()
        sys.stdout = self._stdout
        os.dup2(self._saved, 1)
        os.close(self._saved)
        self._file.seek(0)
        self._text = self._file.read().decode("utf-8", "replace")
        self._file.close()

    def text(self) -> str:
        """Return what was written."""
        return self._text


class CancellingCall(context.Call):
    """A call that is cancelled at its first sign of life, or after a while."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._callbacks: list[Callable[[], object]] = []
        self.at = 0.0

    def cancel(self) -> None:
        """Cancel it now."""
        if not self._cancelled.is_set():
            self.at = time.monotonic()
            self._cancelled.set()
            for callback in list(self._callbacks):
                callback()

    def progress(self, fraction: float, message: str) -> None:
        """Cancel on the first progress: from here on the call is known to listen."""
        self.cancel()

    def is_cancelled(self) -> bool:
        """Tell whether it was cancelled."""
        return self._cancelled.is_set()

    def add_cancel_callback(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Run the callback on cancel."""
        if self.is_cancelled():
            callback()
            return lambda: None
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)
