"""Finds or opens a node for a program that does not use asyncio."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from toft.blocking.node import Node
from toft.client import choice
from toft.client import target as targets
from toft.kernel import errors
from toft.kernel import settings as node_settings
from toft.plugins.loop_thread import LoopThread


def connect(
    home: str | os.PathLike[str] | None = None,
    *,
    settings: node_settings.Settings | None = None,
    runs_jobs: bool = True,
    embedded: bool = False,
    url: str | None = None,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    **given: Any,
) -> Node:
    """Use the daemon of a home, or open a node in this process when there is none; or use a node at a URL.

    All behave alike. The node is opened here too when its settings are not the daemon's, and in a directory
    that has plugins of its own.

    Args:
        home: `TOFT_HOME`; what the settings say when None.
        settings: All settings; read from the environment and the settings file when None.
        runs_jobs: Without a daemon, run stored jobs in this process as soon as somebody asks for jobs; else
            they are only stored and looked at.
        embedded: Open the node in this process whether there is a daemon or not.
        url: Use the node that listens there, such as `https://gpu1.example:7433`; this machine needs no home.
        token: What `toft token create` printed there.
        token_file: A file that has the token.
        ca_file: Trusted instead of the authorities of this machine, for a certificate of your own.
        insecure: Send the token without TLS to another machine, where everybody on the way can read it.
        given: Single settings, as `toft.kernel.settings.Settings` names them.

    Returns:
        The node; use it as a context manager, or close it.
    """
    if url is not None:
        if home is not None or embedded or given:
            raise errors.UsageError(
                "with a url there is no home, no settings and no node in this process", code="remote.url"
            )
        return open_target(
            targets.read(url, token=token, token_file=token_file, ca_file=ca_file, insecure=insecure)
        )
    if token is not None or token_file is not None:
        raise errors.UsageError("a token is for a node at a url, and there is no url", code="remote.url")
    if settings is None:
        settings = node_settings.read(os.environ, home=home, **given)
    socket = None if embedded else choice.find(settings.home)
    if socket is not None:
        from toft.blocking import reaching  # noqa: PLC0415 - HTTP, for which an embedded node has no use

        found = reaching.daemon(socket, settings, partial(_open, settings, runs_jobs=False))
        if found is not None:
            return found
    return _open(settings, runs_jobs=runs_jobs)


def open_target(target: targets.Target) -> Node:
    """Use the node of a target."""
    from toft.blocking import reaching  # noqa: PLC0415 - HTTP, for which an embedded node has no use

    return reaching.target(target)


def _open(
    settings: node_settings.Settings, *, runs_jobs: bool = True, make: Callable[..., Node] = Node
) -> Node:
    """Open a node in this process; `make` is given its thread, what closes it, and the node."""
    from toft import wiring  # noqa: PLC0415 - a third of a second, for which only an embedded node has a use

    thread = LoopThread("toft-node")
    opening = wiring.open_node(settings=settings, runs_jobs=runs_jobs)
    try:
        return make(thread, opening, thread.run(opening.__aenter__()))
    except BaseException:
        thread.stop()
        raise
