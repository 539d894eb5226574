"""A plugin that runs whatever it is given: the hostile tests bring their attempts along."""

from __future__ import annotations

from pathlib import Path

from tests.command_line import CommandLine
from tests.sample_packages import write_project

CODE = '''
    """Runs what it is given."""
    import ctypes, os, signal, socket, subprocess, sys, threading, time

    from toft_sdk import Plugin


    class Hostile(Plugin):
        """Run what you are given; `r` is the result."""

        name = "hostile"
        concurrency = 4

        def execute(self, code: str) -> object:
            """Run it."""
            return self._run(code)

        def execute_stream(self, code: str) -> object:
            """Run it and stream what it leaves in `r`."""
            yield from self._run(code)

        def _run(self, code):
            space = {**globals(), "self": self}
            exec(code, space)
            return space.get("r")
'''


def install(directory: Path) -> Path:
    """Install it into a home below a directory, and return the home."""
    toft = CommandLine(directory / "home", directory)
    write_project(directory / "hostile", "hostile", {"hostile.py": CODE})
    assert toft("plugin", "add", "./hostile", "--json").value[0]["name"] == "hostile"
    return toft.home
