"""A terminal for tests, and what a person at it sees and types."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time

from tests.command_line import CommandLine


class Screen:
    """A terminal, and a command whose every stream is on it."""

    def __init__(self, toft: CommandLine, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        environ = {**toft.environ, "TERM": "xterm", "COLUMNS": "100"}
        environ.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            toft.argv(*arguments),
            cwd=toft.directory,
            env=environ,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def read(self, until: str = "", within_s: float = 60) -> str:
        """Read until a text is there, or until the command has ended."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and not (until and until in self.shown):
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if not ready:
                continue
            try:
                data = os.read(self.master, 65536)
            except OSError:
                break
            if not data:
                break
            self.shown += data.decode("utf-8", "replace")
        assert not until or until in self.shown, self.shown
        return self.shown

    def end(self) -> int:
        """Return the status once the command has ended."""
        self.read()
        status = self.process.wait(30)
        os.close(self.master)
        return status

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())
