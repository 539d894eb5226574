"""Opens a node on another machine, for programs that use asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from toft.client import target as targets
from toft.client.connection import Connection
from toft.client.node import RemoteNode
from toft.client.origins import NodeOrigin


@contextlib.asynccontextmanager
async def open_remote(
    url: str,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    insecure: bool = False,
) -> AsyncIterator[RemoteNode]:
    """Use a node at an address; leaving the block ends the session.

    Needs no home on this machine. See `toft.client.target.read` for the parameters.
    """
    target = await asyncio.to_thread(
        targets.read, url, token=token, token_file=token_file, ca_file=ca_file, insecure=insecure
    )
    async with Connection(NodeOrigin(target)) as asked:
        yield RemoteNode(asked)
