"""Sends a node elsewhere what it is to install from: files of this machine, each under its digest."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from toft.client import connection as connections
from toft.client.connection import Connection
from toft.kernel import errors
from toft.plugins import artifacts
from toft.plugins.environments import archives, artifact_names, environment_errors
from toft.plugins.environments.sources import Source
from toft.plugins.environments.wishes import Wish

_ADDRESSES = ("http://", "https://")


class Uploads:
    """What is sent.

    Args:
        asked: The session with the node.
        on_step: Told each step.
    """

    def __init__(self, asked: Connection, on_step: Callable[[str], None]) -> None:
        self._asked = asked
        self._on_step = on_step

    async def body(self, wish: Wish) -> dict[str, Any]:
        """Upload what a wish names of this machine; return it as the body of a request.

        Raises:
            SourceError: As when it is installed here; or it cannot be sent.
        """
        if wish.python is not None and ("/" in wish.python or "\\" in wish.python):
            raise errors.UsageError(
                f"{wish.python} is a path, and that machine has its own Pythons",
                code="remote.local_path",
                details={"url": self._asked.origin.base, "fields": {"python": wish.python}},
                hint="say which version: --python 3.12",
            )
        return {
            "source": await self._source(wish.source),
            "name": wish.name,
            "python": wish.python,
            "requirements": [await self._source(each) for each in wish.requirements] or None,
            "lock": None if wish.lock is None else await self._file(wish.lock, "lock.txt"),
            "env_file": wish.env_file
            if wish.env_file is None or wish.env_file.startswith(_ADDRESSES)
            else await self._file(wish.env_file.removeprefix("file://"), "environment.yml"),
            "offline": wish.offline,
            "env_vars": dict(wish.env_vars) or None,
            "env_name": wish.env_name or None,
            "origin": await asyncio.to_thread(_origin, wish.source),
        }

    async def _source(self, text: str) -> str:
        source = await asyncio.to_thread(Source.parse, text)
        if source.path is None:
            return text
        extras = f"[{','.join(source.extras)}]" if source.extras else ""
        if source.kind == "plugins_file":
            raise environment_errors.SourceError(f"{source.text} is a list of plugins, not one of them")
        if source.kind != "project":
            return await self._file(str(source.path), source.path.name) + extras
        self._on_step(f"packing {source.path.name}")
        with tempfile.TemporaryFile() as file:
            await asyncio.to_thread(archives.pack, source.path, file)
            return await self._send(file, f"{source.path.name or 'project'}.tar") + extras

    async def _file(self, path: str, name: str) -> str:
        try:
            file = await asyncio.to_thread(lambda: Path(path).expanduser().open("rb"))
        except (OSError, ValueError) as error:
            raise environment_errors.SourceError(f"{path} cannot be read: {error}") from error
        with file:
            return await self._send(file, name)

    async def _send(self, file: IO[bytes], name: str) -> str:
        digest, size = await asyncio.to_thread(_measured, file)
        route = connections.path("artifacts", digest)
        self._on_step(f"uploading {name}")
        await self._asked.upload(route, size, lambda: artifacts.pieces(file))
        return str(artifact_names.Named(digest, artifact_names.file_name(name)))


def _measured(file: Any) -> tuple[str, int]:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, file.tell()


def _origin(text: str) -> str:
    """Return where a source is, so that the same one replaces what was installed from it."""
    source = Source.parse(text)
    return source.text if source.path is None else f"{socket.gethostname()}:{source.text}"[-500:]
