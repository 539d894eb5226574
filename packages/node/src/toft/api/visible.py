"""What of a list, a stream or a body belongs to the plugins that somebody is limited to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Any

from toft.api.service import Service
from toft.jobs.records import Event
from toft.kernel import errors

_REMEMBERED = 4096


class Eyes:
    """Tells which events somebody may see; remembers what belongs to which plugin.

    Args:
        serves: The node.
        plugins: What they are limited to.
    """

    def __init__(self, serves: Service, plugins: frozenset[str]) -> None:
        self._serves = serves
        self._plugins = plugins
        self._known: dict[str, bool] = {}

    async def see(self, event: Event) -> bool:
        """Say whether an event is about something of theirs."""
        about = event.job or event.sequence
        if about is None:
            return False
        if about not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[about] = await self._is_theirs(event)
        return self._known[about]

    async def filter(self, source: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
        """Yield the events of a stream that they may see."""
        try:
            async for event in source:
                if await self.see(event):
                    yield event
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()

    async def _is_theirs(self, event: Event) -> bool:
        try:
            if event.job is not None:
                return (await self._serves.jobs.get(event.job)).plugin in self._plugins
            return (await self._serves.jobs.sequence(str(event.sequence))).plugins <= self._plugins
        except errors.NotFoundError:
            return False


def in_steps(document: Any) -> Iterable[str]:
    """Return the plugins that the steps of a graph name; what is no step is refused elsewhere."""
    steps = document.get("steps") if isinstance(document, Mapping) else document
    listed = steps if isinstance(steps, (list, tuple)) else ()
    return dict.fromkeys(str(each.get("plugin")) for each in listed if isinstance(each, Mapping))
