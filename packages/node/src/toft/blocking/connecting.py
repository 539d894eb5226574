"""Opens a node for a program that does not use asyncio."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from toft.blocking.node import Node
from toft.plugins.loop_thread import LoopThread

if TYPE_CHECKING:
    from toft.kernel import settings as node_settings


def connect(
    home: str | os.PathLike[str] | None = None,
    *,
    settings: node_settings.Settings | None = None,
    runs_jobs: bool = True,
    **given: Any,
) -> Node:
    """Open a node in this process.

    Args:
        home: `TOFT_HOME`; what the settings say when None.
        settings: All settings; read from the environment and the settings file when None.
        runs_jobs: Run stored jobs in this process as soon as somebody asks for jobs; else they are only
            stored and looked at.
        given: Single settings, as `toft.kernel.settings.Settings` names them.

    Returns:
        The node; use it as a context manager, or close it.
    """
    from toft import wiring  # noqa: PLC0415 - a third of a second, for which only an embedded node has a use

    thread = LoopThread("toft-node")
    opening = wiring.open_node(home, settings=settings, runs_jobs=runs_jobs, **given)
    try:
        return Node(thread, opening, thread.run(opening.__aenter__()))
    except BaseException:
        thread.stop()
        raise
