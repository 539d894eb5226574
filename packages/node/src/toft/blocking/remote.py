"""The node of a home that a daemon has, for programs that do not use asyncio; the same words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from toft.blocking.installed import Installed
from toft.blocking.instance import Instance
from toft.blocking.jobs import Jobs
from toft.blocking.looking import Configuration, Documents, Secrets
from toft.blocking.node import Node
from toft.blocking.remote_installed import DaemonInstalled
from toft.blocking.remote_instance import DaemonInstance
from toft.client import faults
from toft.client.connection import Connection
from toft.client.jobs import RemoteJobs
from toft.client.node import RemoteNode
from toft.plugins.loop_thread import LoopThread

if TYPE_CHECKING:
    from toft.dispatch import node as nodes
    from toft.plugins.environments import provisioning
    from toft.plugins.manifests.manifest import Manifest
    from toft.plugins.node import Rooms


class DaemonNode(Node):
    """A node that runs in the daemon.

    Installing is done by this process, in a node that is opened for it: it does not touch what is loaded.

    Args:
        thread: Where the connection lives.
        asked: The connection.
        open_here: Opens the node of this process.
    """

    def __init__(self, thread: LoopThread, asked: Connection, open_here: Callable[[], Node]) -> None:
        self._thread = thread
        self._opening = asked
        self._remote = RemoteNode(asked)
        self._node: Any = self._remote
        self._open_here = open_here
        self._here: Node | None = None
        self._guard = threading.Lock()
        self.jobs = Jobs(thread, self._remote.jobs)
        self.installed: Installed = DaemonInstalled(thread, self._remote, lambda: self.here.installed)
        self.is_embedded = False

    def close(self) -> None:
        """End the session, and what was loaded for it alone; a second close does nothing."""
        here, self._here = self._here, None
        if here is not None:
            here.close()
        super().close()

    @property
    def here(self) -> Node:
        """Return the node of this process, for what is not about what is loaded."""
        with self._guard:  # threads that install side by side share one
            if self._here is None:
                self._here = self._open_here()
            return self._here

    @property
    def rooms(self) -> Rooms:
        """Return what the node of this process is composed of."""
        return self.here.rooms

    def refresh(self, plugin: str, *, on_step: provisioning.Progress | None = None) -> Manifest:
        """Build a plugin's environment anew and swap; what is loaded is replaced when it is next loaded."""
        return self.here.refresh(plugin, on_step=on_step)

    def instances(self) -> list[Instance]:
        """Return what is loaded there, by name."""
        return [self._handle(each) for each in self._thread.run(self._remote.instances())]

    def instance(self, name: str) -> Instance:
        """Return a loaded instance."""
        return self._handle(self._thread.run(self._remote.instance(name)))

    def _handle(self, loaded: Any) -> Instance:
        return DaemonInstance(self._thread, loaded)


class NodeElsewhere(DaemonNode):
    """A node on another machine: nothing that is asked of it is done by this process.

    Args:
        thread: Where the connection lives.
        asked: The connection.

    Attributes:
        secrets: See `toft.client.secrets.RemoteSecrets`.
        configuration: See `toft.client.configuration.RemoteConfiguration`.
        documents: See `toft.client.documents.RemoteDocuments`.
    """

    def __init__(self, thread: LoopThread, asked: Connection) -> None:
        super().__init__(thread, asked, self._nothing_here)
        self._asked = asked
        self._url = asked.origin.base
        self.secrets = Secrets(thread, self._remote.secrets)
        self.configuration = Configuration(thread, self._remote.configuration)
        self.documents = Documents(thread, self._remote.documents)
        # What needs this machine is refused there.
        self.installed = Installed(thread, self._remote.installed)

    def refresh(self, plugin: str, *, on_step: provisioning.Progress | None = None) -> Manifest:
        """Build a plugin's environment anew and swap."""
        return self._thread.run(self._remote.refresh(plugin, on_step=on_step))

    def status(self) -> dict[str, Any]:
        """Return what the node is doing: its process, the queue, memory, GPUs, what is loaded."""
        return self._thread.run(self._remote.status())

    def ask(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask a route that has no method here; see docs/reference/http.md."""
        return self._thread.run(self._asked.ask(method, route, body))

    def _nothing_here(self) -> Node:
        raise faults.local_only("what needs the node's own files", self._url)


class NodeBesideDaemon(Node):
    """A node of this process, with settings of its own, where a daemon runs the jobs of the home.

    Args:
        thread: Where the node lives.
        opening: Closes it.
        node: The open node.
        asking: Where the connection lives.
        asked: The connection.
    """

    def __init__(
        self,
        thread: LoopThread,
        opening: AbstractAsyncContextManager[nodes.Node],
        node: nodes.Node,
        *,
        asking: LoopThread,
        asked: Connection,
    ) -> None:
        super().__init__(thread, opening, node)
        self.is_embedded = False
        self.jobs = Jobs(asking, RemoteJobs(asked))
        self._asking = asking
        self._asked: Connection | None = asked

    def close(self) -> None:
        """End everything the node started, and the session; a second close does nothing."""
        asked, self._asked = self._asked, None
        try:
            super().close()
        finally:
            if asked is not None:
                self._asking.run(asked.aclose())
                self._asking.stop()
