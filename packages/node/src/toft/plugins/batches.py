"""Several plugins loaded by one call, on a node of this process or on one that a daemon has."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from toft.kernel import errors
from toft.plugins import plugin_errors

I_co = TypeVar("I_co", covariant=True)
Wanted = str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]
"""A name, a (name, config) pair, or a mapping with `plugin` (or `name`), `config`, `instance` and options."""


class Loads(Protocol[I_co]):
    """A node, as far as it is asked here."""

    async def load(
        self,
        plugin: str,
        config: Mapping[str, Any] | None = None,
        *,
        instance: str | None = None,
        **options: Any,
    ) -> I_co:
        """Load a plugin."""
        ...

    async def unload_many(self, names: Sequence[str]) -> None:
        """End several instances."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Wish:
    plugin: str
    instance: str | None = None
    config: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.instance or self.plugin


async def load_many(
    node: Loads[I_co],
    wanted: Sequence[Wanted],
    *,
    at_once: int,
    undo_but: Collection[str] | None,
) -> dict[str, I_co | Exception]:
    """Load several plugins side by side.

    Args:
        node: Where.
        wanted: What.
        at_once: How many are started at the same time.
        undo_but: None makes errors values. Otherwise the first error is raised and what this call loaded is
            ended; these, which were loaded before, stay.

    Raises:
        UsageError: A mapping names no plugin; nothing was loaded.
    """
    wishes = list(map(_wish, wanted))
    gate = asyncio.Semaphore(at_once)
    results: dict[str, I_co | Exception] = {}

    async def one(wish: _Wish) -> None:
        async with gate:
            try:
                results[wish.name] = await node.load(
                    wish.plugin, wish.config, instance=wish.instance, **wish.options
                )
            except (errors.NodeError, plugin_errors.PluginError) as error:
                if undo_but is not None:
                    raise
                results[wish.name] = error

    try:
        async with asyncio.TaskGroup() as group:
            for wish in wishes:
                group.create_task(one(wish))
    except* (errors.NodeError, plugin_errors.PluginError) as failed:
        await node.unload_many([name for name in results if name not in (undo_but or ())])
        raise failed.exceptions[0] from None
    return results


def _wish(wanted: Wanted) -> _Wish:
    if isinstance(wanted, str):
        return _Wish(plugin=wanted)
    if isinstance(wanted, tuple):
        return _Wish(plugin=wanted[0], config=wanted[1])
    rest = dict(wanted)
    plugin = rest.pop("plugin", None) or rest.pop("name", None)
    if not isinstance(plugin, str):
        raise errors.UsageError(
            f"which plugin is to be loaded? There is no name in {str(dict(wanted))[:200]}",
            code="plugin.not_named",
            hint='give a name, (name, config) or {"plugin": name, "config": …}',
        )
    return _Wish(
        plugin=plugin, config=rest.pop("config", None), instance=rest.pop("instance", None), options=rest
    )
