"""Failures to say who one is, counted by address; memory is bounded whatever addresses there are."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from toft.kernel import clock as clocks
from toft.kernel import errors, log

_log = log.get_logger("access.failures")
_AT_ONCE = 10
_EACH_S = 6.0
_ADDRESSES = 4096


class Failures:
    """A bucket of failures for each address: so many at once, then one every so many seconds.

    Args:
        clock: The time.
        at_once: How many may come in a row.
        each_s: Seconds after which one more may come.
        addresses: How many are remembered; the one that was quiet the longest is forgotten first.
    """

    def __init__(
        self,
        clock: clocks.Clock = clocks.SYSTEM,
        *,
        at_once: int = _AT_ONCE,
        each_s: float = _EACH_S,
        addresses: int = _ADDRESSES,
    ) -> None:
        self._clock = clock
        self._at_once = at_once
        self._each_s = each_s
        self._addresses = addresses
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def add(self, address: str, why: str) -> None:
        """Count a failure.

        Raises:
            RefusedError: There were too many from there.
        """
        key, now = _network(address), self._clock.monotonic()
        level, at = self._buckets.pop(key, (0.0, now))
        level = max(0.0, level - (now - at) / self._each_s)
        is_too_much = level + 1 > self._at_once
        if not is_too_much:
            level += 1
            _log.warning("not_let_in", address=address, because=why)
            if level + 1 > self._at_once:
                _log.warning("too_many_failures", address=address, count=self._at_once)
        self._buckets[key] = (level, now)
        if len(self._buckets) > self._addresses:
            self._buckets.popitem(last=False)
        if is_too_much:
            raise errors.RefusedError(
                "too many tokens that are none came from this address",
                code="access.too_many_failures",
                retry_after_s=self._each_s,
                hint="a token that holds is let in at once; toft token list on the node shows which do",
            )

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._buckets)


def _network(address: str) -> str:
    """Return what is counted as one: an address, or the network that one customer has under IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
