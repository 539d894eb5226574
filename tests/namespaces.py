"""When a test may be skipped for want of namespaces: only where another program does not get them either."""

import shutil
import subprocess
from functools import cache
from typing import NoReturn

import pytest


@cache
def _are_possible(user: int | None) -> bool:
    """Ask `unshare`, which shares nothing with our own code."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    command = [unshare, "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, user=user, group=user, cwd="/").returncode == 0


def skip_without(reason: str, user: int | None = None) -> NoReturn:
    """Skip the test, or fail it when this machine does allow what our own code did not get."""
    if _are_possible(user):
        pytest.fail(f"this machine allows namespaces, and yet: {reason}")
    pytest.skip(f"needs namespaces: {reason}")
