"""The installed plugins of a home that a daemon has, for programs that do not use asyncio."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from toft.blocking.installed import Installed
from toft.client.node import RemoteNode
from toft.plugins.loop_thread import LoopThread
from toft.plugins.manifests import manifest

if TYPE_CHECKING:
    from toft.plugins.manifests.manifest import Manifest


class DaemonInstalled(Installed):
    """Asks the daemon what a plugin is, which every call wants to know; the rest is done in this process.

    Args:
        thread: Where the connection lives.
        remote: The daemon's node.
        open_here: Gives the installed plugins of a node in this process, opened when it is first needed.
    """

    def __init__(self, thread: LoopThread, remote: RemoteNode, open_here: Callable[[], Installed]) -> None:
        self._client = thread
        self._remote = remote
        self._open_here = open_here

    def __getattr__(self, name: str) -> Any:
        # `_thread` and `_installed`: the base class would have set them, but then the node would be open.
        return getattr(self._open_here(), name)

    def get(self, name: str) -> Manifest:
        """Return what is known of a plugin."""
        return manifest.parse(self._client.run(self._remote.manifest(name)), what=f"the manifest of {name}")
