"""Who is at the other end of the socket, and whether it may be there."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from toft.host import process_tree

_CREDENTIALS = struct.Struct("3i")
_DEEPEST = 256


@dataclass(frozen=True)
class Peer:
    """The process that connected, as the kernel names it."""

    pid: int
    uid: int


def of(sock: socket.socket) -> Peer:
    """Return who connected; the kernel noted it then, and nothing the peer sends can change it."""
    pid, uid, _ = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(pid, uid)


def refusal(
    peer: Peer, *, owner: int, find: Callable[[int], process_tree.Stat | None] = process_tree.read
) -> str:
    """Return why a peer may not be here; empty when it may.

    Its uid must be the owner's, root's is not: who is root becomes the owner first. And it must not be one of
    the daemon's own descendants: a plugin runs under the same uid, and would reach every other plugin.
    """
    if peer.uid != owner:
        return f"uid {peer.uid} is not the owner's, {owner}"
    me, pid = os.getpid(), peer.pid
    for _ in range(_DEEPEST):
        if pid == me and peer.pid != me:
            return f"process {peer.pid} was started by a plugin"
        stat = find(pid)
        if stat is None:
            # Gone already, or in a namespace that cannot be seen from here: nobody can vouch for it.
            return f"process {peer.pid} cannot be found"
        if stat.parent == 0 or pid == 1:
            return ""
        pid = stat.parent
    return f"process {peer.pid} has too many ancestors"
