"""Installs the other systems, each into an environment of its own, when somebody asks to compare."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import uv

from toft.host import commands
from toft.kernel import errors
from toft.plugins.environments import interpreters
from toft.plugins.environments.tool_environment import trusted

# Name to the Pythons it runs on, and what to install.
PEERS = {
    "ray": (">=3.11,<3.14", ("ray==2.60.0", "numpy>=2")),
    "appose": (">=3.11", ("appose==0.12.0", "numpy>=2")),
    "huey": (">=3.11", ("huey==3.5.4",)),
    "reference": (">=3.12,<3.14", ("cjm-plugin-system==0.0.34",)),
}
_LIMIT_S = 600
_STAMP = ".complete"


async def install(
    names: Sequence[str], home: Path, say: Callable[[str], None]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the interpreter of each system, and why any is missing.

    Args:
        names: Which of `PEERS`.
        home: Where their environments are kept for the next time.
        say: Told which one is being installed.
    """
    found, missing = {}, {}
    pythons = interpreters.Interpreters()
    for name in names:
        range_, requirements = PEERS[name]
        try:
            python = (await pythons.find(range_)).path
            key = hashlib.sha256("\n".join((python, *requirements)).encode()).hexdigest()[:12]
            folder = home / f"{name}-{key}"
            if not (folder / _STAMP).exists():
                say(f"installing {', '.join(requirements)}")
                await _make(folder, python, requirements)
            found[name] = str(folder / "bin" / "python")
        except errors.NodeError as error:
            missing[name] = error.message
    return found, missing


async def _make(folder: Path, base: str, requirements: tuple[str, ...]) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)  # an interrupted one
    await asyncio.to_thread(os.makedirs, folder.parent, exist_ok=True)
    python = str(folder / "bin" / "python")
    program = uv.find_uv_bin()
    environ = {**trusted(), **os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    for command in (
        (program, "venv", "--quiet", "--no-project", "--python", base, str(folder)),
        (program, "pip", "install", "--quiet", "--link-mode", "copy", "--python", python, *requirements),
    ):
        result = await commands.run(command, env=environ, cwd=folder.parent, timeout_s=_LIMIT_S)
        if result.code != 0:
            reason = " ".join(result.stderr.split())[-300:]
            raise errors.UnavailableError(f"cannot be installed: {reason}", code="bench.peer_missing")
    (folder / _STAMP).touch()  # last
