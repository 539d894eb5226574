"""Asks the resolver whether two of the plugins could share one environment, and keeps what it says."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import uv

from toft.demo.cast import Part
from toft.host import commands
from toft.plugins.environments.tool_environment import trusted

_LIMIT_S = 60


async def refusal(parts: tuple[Part, ...], python: str) -> str:
    """Return why the resolver cannot put the plugins together, shortened.

    Empty when it can, or when it cannot tell because it needs a network that is not there.

    Args:
        parts: Whose requirements to put into one environment.
        python: The interpreter it would be for.
    """
    wanted = [requirement for part in parts for requirement in part.requirements()]
    with tempfile.TemporaryDirectory(prefix="toft-demo-") as name:
        folder = Path(name)
        (folder / "all.in").write_text("\n".join(wanted) + "\n")
        command = [
            uv.find_uv_bin(),
            "pip",
            "compile",
            "--quiet",
            "--no-config",
            "--no-build",
            "--python",
            python,
            "all.in",
        ]
        environ = {**trusted(), **os.environ, "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}
        # What was just installed is in the cache, so the network is asked only where the cache was cleared.
        for offline in (["--offline"], []):
            result = await commands.run([*command, *offline], env=environ, cwd=folder, timeout_s=_LIMIT_S)
            if result.code == 0 or "network was disabled" not in result.stderr:
                break
    return shortened(result.stderr) if "No solution found" in result.stderr else ""


def shortened(text: str) -> str:
    """Return the resolver's reason without its marks and line breaks."""
    reason = text[text.find("Because") :] if "Because" in text else text
    return re.sub(r"\s+", " ", reason).strip()
