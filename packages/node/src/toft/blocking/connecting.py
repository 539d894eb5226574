"""Finds or opens a node for a program that does not use asyncio."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from toft.blocking.node import Node
from toft.client import choice
from toft.kernel import errors, log
from toft.kernel import settings as node_settings
from toft.plugins.loop_thread import LoopThread

_log = log.get_logger("blocking")


def connect(
    home: str | os.PathLike[str] | None = None,
    *,
    settings: node_settings.Settings | None = None,
    runs_jobs: bool = True,
    embedded: bool = False,
    **given: Any,
) -> Node:
    """Use the daemon of a home, or open a node in this process when there is none.

    Both behave alike. The node is opened here too when its settings are not the daemon's, and in a directory
    that has plugins of its own.

    Args:
        home: `TOFT_HOME`; what the settings say when None.
        settings: All settings; read from the environment and the settings file when None.
        runs_jobs: Without a daemon, run stored jobs in this process as soon as somebody asks for jobs; else
            they are only stored and looked at.
        embedded: Open the node in this process whether there is a daemon or not.
        given: Single settings, as `toft.kernel.settings.Settings` names them.

    Returns:
        The node; use it as a context manager, or close it.
    """
    if settings is None:
        settings = node_settings.read(os.environ, home=home, **given)
    socket = None if embedded else choice.find(settings.home)
    if socket is not None:
        found = _daemon(socket, settings)
        if found is not None:
            return found
    return _open(settings, runs_jobs=runs_jobs)


def _open(settings: node_settings.Settings, *, runs_jobs: bool = True) -> Node:
    from toft import wiring  # noqa: PLC0415 - a third of a second, for which only an embedded node has a use

    thread = LoopThread("toft-node")
    opening = wiring.open_node(settings=settings, runs_jobs=runs_jobs)
    try:
        return Node(thread, opening, thread.run(opening.__aenter__()))
    except BaseException:
        thread.stop()
        raise


def _daemon(socket: Path, settings: node_settings.Settings) -> Node | None:
    """Return the daemon's node, or one beside it when a call would not be the same there."""
    from toft.blocking.remote import DaemonNode, NodeBesideDaemon  # noqa: PLC0415 - HTTP, for this only
    from toft.client.connection import Connection  # noqa: PLC0415 - as above

    thread = LoopThread("toft-client")
    asked = Connection(socket)
    try:
        thread.run(asked.__aenter__())
        reason = choice.differs(settings, asked.settings, directory=Path.cwd())
        if not reason:
            return DaemonNode(thread, asked, lambda: _open(settings, runs_jobs=False))
        _log.info("daemon_not_used", because=reason)
        return NodeBesideDaemon(_open(settings, runs_jobs=False), thread, asked)
    except errors.UnavailableError as error:
        thread.stop()
        if error.code not in ("daemon.no_answer", "daemon.gone"):
            raise
        # It ended in this moment.
        _log.info("daemon_not_used", because=error.message)
        return None
    except BaseException:
        thread.stop()
        raise
