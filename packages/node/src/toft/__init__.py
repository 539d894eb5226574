"""toft runs other people's code on machines you own: isolated, durable, undoable, and truthful about it."""

from __future__ import annotations

from toft.kernel.version import VERSION as __version__

# Not from typing: `toft --version` would pay 10 ms for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from toft.blocking import connect
    from toft.client.opening import open_remote
    from toft.wiring import open_node


__all__ = ["__version__", "connect", "open_node", "open_remote"]


def __getattr__(name: str) -> object:
    # `toft --version` must not pay for the node, a third of a second.
    if name == "connect":
        from toft.blocking import connect  # noqa: PLC0415 - as said above

        return connect
    if name == "open_node":
        from toft.wiring import open_node  # noqa: PLC0415 - as said above

        return open_node
    if name == "open_remote":
        from toft.client.opening import open_remote  # noqa: PLC0415 - as said above

        return open_remote
    raise AttributeError(f"module 'toft' has no attribute {name!r}")
