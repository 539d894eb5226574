"""Identifiers and names: what may become a path is decided here and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from toft.kernel import clock as clocks
from toft.kernel import errors

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
NAME_RULE = "is not 1 to 64 of a-z, 0-9, '_' and '-', starting with a letter or digit"
"""What is wrong with a text that is no name."""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

Randomness = Callable[[int], bytes]


def is_name(text: str) -> bool:
    """Say whether a text may become a path component, an instance or a plugin name."""
    return _NAME.fullmatch(text) is not None


def is_text(text: str) -> bool:
    """Say whether a text can be stored and sent: half of a surrogate pair is no character."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_name(name: str, what: str = "name") -> str:
    """Return the name, or refuse it.

    Args:
        name: What somebody typed or sent.
        what: The word for it in the message, such as `plugin name`.

    Raises:
        UsageError: It is not 1 to 64 of a-z, 0-9, `_` and `-`, starting with a letter or digit.
    """
    if not isinstance(name, str) or not is_name(name):
        shown = repr(name)[:80]
        raise errors.UsageError(
            f"{what} {shown} {NAME_RULE}",
            code="name.invalid",
            details={"name": shown},
        )
    return name


def ulid(clock: clocks.Clock = clocks.SYSTEM, randomness: Randomness = os.urandom) -> str:
    """Return 26 characters: 48 bits of milliseconds, then 80 random bits; sorts by time of making."""
    value = (int(clock.now() * 1000) << 80) | int.from_bytes(randomness(10), "big")
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))


class Ulids:
    """Makes many ULIDs cheaply; each sorts after the one before, whatever the clock does.

    The random part is drawn once a millisecond and counted up within it, as the ULID specification has it.
    """

    def __init__(self, clock: clocks.Clock, randomness: Randomness, *, prefix: str = "") -> None:
        self._clock = clock
        self._prefix = prefix
        self._randomness = randomness
        self._millisecond = -1
        self._start = ""
        self._count = 0

    def next(self) -> str:
        """Return the next one."""
        millisecond = int(self._clock.now() * 1000)
        if millisecond > self._millisecond or self._count >= _MOST:
            self._begin(max(millisecond, self._millisecond + 1))
        self._count += 1
        count = self._count
        return self._start + _PAIRS[count >> 10] + _PAIRS[count & 1023]

    def _begin(self, millisecond: int) -> None:
        self._millisecond = millisecond
        # 60 random bits, then a 20-bit count that starts in its lower half.
        value = (millisecond << 60) | (int.from_bytes(self._randomness(8), "big") >> 4)
        self._start = self._prefix + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(105, -5, -5))
        self._count = int.from_bytes(self._randomness(2), "big") & 0xFFFF


_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_MOST = (1 << 20) - 1
