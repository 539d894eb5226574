"""Homes that are measured: with the plugins of the benchmarks, and a daemon for the length of a measure."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import toft
from toft.client import place as places

ECHO, MANY, BLOCKS = "bench-echo", "bench-many", "bench-blocks"
_PLUGINS = Path(__file__).parent / "plugins"


def project(plugin: str) -> str:
    """Return the directory a plugin of the benchmarks is installed from."""
    return str(_PLUGINS / plugin.removeprefix("bench-"))


def make(home: Path, *plugins: str) -> Path:
    """Install plugins into a home, and return it."""
    with toft.connect(home=home) as node:
        for plugin in plugins:
            node.installed.add(project(plugin))
    return home


@contextlib.contextmanager
def daemon(home: Path) -> Iterator[places.Record]:
    """Run the daemon of a home for the length of a block; yields what it says of itself."""
    command = [sys.executable, "-m", "toft", "--home", str(home)]
    subprocess.run([*command, "up", "--detach"], check=True, capture_output=True)
    try:
        found = places.Place(home).find()
        assert found is not None
        yield found
    finally:
        subprocess.run([*command, "down"], check=True, capture_output=True)
