"""Reaches a node that runs already, for a program that does not use asyncio."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from toft.blocking.node import Node
from toft.blocking.remote import DaemonNode, NodeBesideDaemon, NodeElsewhere
from toft.client import choice
from toft.client import target as targets
from toft.client.connection import Connection
from toft.client.origins import HomeOrigin, NodeOrigin
from toft.kernel import errors, log
from toft.kernel import settings as node_settings
from toft.plugins.loop_thread import LoopThread

_log = log.get_logger("blocking")


def target(found: targets.Target) -> Node:
    """Use the node of a target."""
    thread = LoopThread("toft-client")
    asked = Connection(NodeOrigin(found))
    try:
        thread.run(asked.__aenter__())
    except BaseException:
        thread.stop()
        raise
    return NodeElsewhere(thread, asked)


def daemon(socket: Path, settings: node_settings.Settings, open_here: Callable[..., Node]) -> Node | None:
    """Use the daemon of a home, or a node beside it when a call would not be the same there.

    Args:
        socket: Where the daemon listens.
        settings: Of this program.
        open_here: Opens a node in this process; `make` is given its thread, what closes it, and the node.

    Returns:
        The node; None when the daemon has just ended.
    """
    thread = LoopThread("toft-client")
    asked = Connection(HomeOrigin(socket))
    try:
        thread.run(asked.__aenter__())
        reason = choice.differs(settings, asked.settings, directory=Path.cwd())
        if not reason:
            return DaemonNode(thread, asked, open_here)
        _log.info("daemon_not_used", because=reason)
        return open_here(make=partial(NodeBesideDaemon, asking=thread, asked=asked))
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
