"""What references stand for: values that other steps gave, carried as they lie on disk.

Nothing large is decoded here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from toft.jobs import references, sequences
from toft.jobs.records import Claimed, State
from toft.jobs.references import Ref
from toft.kernel import errors
from toft.plugins import paths
from toft.plugins.packed import Packed

HEAVY_BYTES = 64 << 10
# The parts of a fan-out all look into one value; reading it for each of thousands takes minutes.
_REMEMBERED = 4


class Resolver:
    """Puts values in the place of references.

    Args:
        reading: Says what steps gave.
        open_blob: Opens a stored value without reading it.
    """

    def __init__(self, reading: sequences.Reading, open_blob: Callable[[str], Awaitable[Packed]]) -> None:
        self._reading = reading
        self._open_blob = open_blob
        self._remembered: OrderedDict[tuple[str, str], Packed] = OrderedDict()

    async def resolve(self, claim: Claimed) -> Mapping[str, Any]:
        """Return the arguments of a claimed job, what other steps gave in the place of its references.

        Large ones stay as they are kept, as `toft.plugins.packed.Packed`.

        Raises:
            NodeError: Something that was stored is not there or damaged.
            PluginError: A reference leads nowhere; step and path are named.
        """
        if claim.arguments_blob is None and not claim.arguments:
            return {}
        packed = await self.value(claim.arguments or None, claim.arguments_blob)
        if claim.sequence is not None:
            packed = await self._resolved(packed, claim.sequence)
        if packed.buffers:  # may lie in files
            return await asyncio.to_thread(packed.fields, heavy_bytes=HEAVY_BYTES)
        return packed.fields(heavy_bytes=HEAVY_BYTES)

    async def _resolved(self, packed: Packed, sequence_id: str) -> Packed:
        wanted = {ref.step for _, ref in references.find(packed.tree) if isinstance(ref, Ref)}
        given = {step: await self.given(sequence_id, step) for step in wanted}

        def by(tree: dict[str, Any]) -> Packed | None:
            if references.is_literal(tree):
                return Packed(tree[references.LITERAL], packed.buffers)
            ref = references.read(tree)
            if not isinstance(ref, Ref):
                return None
            return part(given[ref.step], ref)

        return packed.replaced(by)

    async def given(self, sequence_id: str, step: str) -> Packed:
        """Return what a step gave; a step that completed gives the same for ever."""
        key = (sequence_id, step)
        value = self._remembered.get(key)
        if value is None:
            value = self._remembered[key] = await self.read_given(sequence_id, step)
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        else:
            self._remembered.move_to_end(key)
        return value

    def forget(self) -> None:
        """Keep no value in memory: nothing runs that could ask for it."""
        self._remembered.clear()

    async def read_given(self, sequence_id: str, step: str) -> Packed:
        """Return what a step gave, from the disk.

        Raises:
            IntegrityError: It is not there any more.
        """
        found = await self._reading.given(sequence_id, step)
        if found is None or found.state is not State.COMPLETED:
            raise errors.IntegrityError(
                f"what step {step} gave is not there",
                code="sequence.reference",
                details={"step": step, "sequence": sequence_id},
                hint="results are kept as long as their jobs; submit the graph again",
            )
        if found.data is None and found.blob is None:
            return Packed.of(None)
        return await self.value(found.data, found.blob)

    async def value(self, data: bytes | None, blob: str | None) -> Packed:
        """Return a value that stands in a row, or in a blob."""
        return Packed.read(data) if data is not None else await self._open_blob(str(blob))


def part(given: Packed, ref: Ref) -> Packed:
    """Return what a reference names of a value; step and path are in the error when it is not there."""
    try:
        return given.at(ref.path)
    except paths.PathError as error:
        raise _leads_nowhere(ref, error) from None


def items(given: Packed, ref: Ref) -> list[Packed]:
    """Return the items of what a reference names."""
    try:
        return given.items()
    except paths.PathError as error:
        raise _leads_nowhere(ref, error) from None


def _leads_nowhere(ref: Ref, error: paths.PathError) -> paths.PathError:
    return error.of(f"step {ref.step}", code="sequence.reference", step=ref.step, asked=list(ref.path))
