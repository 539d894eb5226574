"""Which Python interpreters this machine has, for the tests that run a worker under each of them.

Looked for in `TOFT_TEST_PYTHONS` (paths, separated by `:`), under `PYENV_ROOT` (or `~/.pyenv`), and on PATH
as `python3.N`. What is missing is skipped by name.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


def _candidates() -> list[str]:
    found = [path for path in os.environ.get("TOFT_TEST_PYTHONS", "").split(":") if path]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    # Never the shims: each start of one costs 80 ms.
    found += sorted(str(path) for path in root.glob("versions/*/bin/python3"))
    found += [
        path for version in VERSIONS if (path := shutil.which(f"python{version}")) and "shims" not in path
    ]
    return found


@functools.cache
def interpreters() -> dict[str, str]:
    """Return the path of an interpreter for each version that is there."""
    found: dict[str, str] = {}
    for path in _candidates():
        try:
            run = subprocess.run(
                [path, "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        found.setdefault(run.stdout.strip(), path)
    return found


def interpreter(version: str) -> str:
    """Return the path of one version, or skip the test and say so."""
    path = interpreters().get(version)
    if path is None:
        pytest.skip(f"needs interpreters: there is no Python {version} here; name one in TOFT_TEST_PYTHONS")
    return path
