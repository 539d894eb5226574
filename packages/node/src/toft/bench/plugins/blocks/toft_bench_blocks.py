"""A plugin that takes and gives big arrays."""

from __future__ import annotations

import numpy

from toft_sdk import Plugin, action


class Blocks(Plugin):
    """Takes and gives."""

    name = "bench-blocks"

    def initialize(self) -> None:
        """Make what is given away."""
        self.block = numpy.ones(1, numpy.float32)

    @action
    def take(self, block: numpy.ndarray) -> int:
        """Look at both ends of an array."""
        return int(block[0]) + int(block[-1]) + block.nbytes

    @action
    def give(self, numbers: int) -> numpy.ndarray:
        """Return an array, the same one each time."""
        if self.block.size != numbers:
            self.block = numpy.ones(numbers, numpy.float32)
        return self.block
