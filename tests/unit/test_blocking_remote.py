"""The node of a daemon, as far as it needs none."""

import threading
from types import SimpleNamespace
from typing import Any

from toft.blocking.remote import DaemonNode

THREADS = 4


def test_threads_that_install_side_by_side_share_the_node_of_this_process() -> None:
    opened: list[Any] = []
    arrived = threading.Semaphore(0)

    def open_here() -> Any:
        # Long enough for all to be here: each of them has asked before the first one is answered.
        for _ in range(THREADS):
            arrived.acquire(timeout=1)
        opened.append(SimpleNamespace(installed=object()))
        return opened[-1]

    nothing: Any = SimpleNamespace()
    node = DaemonNode(nothing, nothing, open_here)
    seen: list[Any] = []

    def use() -> None:
        arrived.release()
        seen.append(node.here)

    threads = [threading.Thread(target=use) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert all(each is opened[0] for each in seen)
