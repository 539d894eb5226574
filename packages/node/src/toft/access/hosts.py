"""By which names a node may be asked: a page of somebody else must not reach it by a name of theirs."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

_ALWAYS = ("localhost",)


class Hosts:
    """The names of a node.

    An address is always one: to make a name of your own mean an address of somebody else is what the check is
    against, and an address cannot be made to mean another.

    Args:
        names: What it is called beside `localhost` and the name of the machine.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {each.lower().rstrip(".") for each in (*_ALWAYS, socket.gethostname(), *names) if each}

    def knows(self, host: str) -> bool:
        """Say whether a `Host` header names this node."""
        name = _without_port(host).lower().rstrip(".")
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in self._names
        return True


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if host.count(":") == 1 else host
