"""The node with its durable jobs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from toft.dispatch import answers, engine, jobs
from toft.plugins import instance as handles
from toft.plugins import node as nodes


class Node(nodes.Node):
    """A node that also runs jobs.

    Args:
        rooms: What it is composed of.
        means: What its jobs are run with.

    Attributes:
        jobs: Its durable jobs; nothing is opened before something is asked of them.
    """

    def __init__(self, rooms: nodes.Rooms, means: engine.Means) -> None:
        super().__init__(rooms)
        self._follower = means.follower
        if means.follower is not None:
            rooms.loader.called = means.follower.called
        self.jobs = jobs.Jobs(self, functools.partial(engine.open_engine, means, self, job_type=answers.Job))

    async def load(
        self,
        plugin: str,
        config: Mapping[str, Any] | None = None,
        *,
        instance: str | None = None,
        new: bool = False,
        **options: Any,
    ) -> handles.Instance:
        """Load a plugin, ready to be called; see `toft.plugins.node.Node.load`."""
        loaded = await super().load(plugin, config, instance=instance, new=new, **options)
        self.jobs.changed(loaded.id)
        return loaded

    async def configure(
        self, plugin: str, changes: Mapping[str, Any], *, instance: str | None = None, replace: bool = False
    ) -> dict[str, Any]:
        """Change what an instance is configured with, and remember it."""
        effective = await super().configure(plugin, changes, instance=instance, replace=replace)
        self.jobs.changed(instance or plugin)
        return effective

    async def set_enabled(self, plugin: str, enabled: bool, *, instance: str | None = None) -> None:
        """Switch an instance on or off, and remember it."""
        await super().set_enabled(plugin, enabled, instance=instance)
        self.jobs.changed(instance or plugin)

    async def remove(self, plugin: str, *, keep_environment: bool = False) -> bool:
        """Unload a plugin's instances, forget them, and take the plugin away; False when there was none."""
        names = {plugin, *(each.id for each in self.instances() if each.plugin == plugin)}
        names.update(each.name for each in await self.rooms.records.list(plugin))
        removed = await super().remove(plugin, keep_environment=keep_environment)
        for name in sorted(names):
            await self.jobs.forget(name)
        return removed

    async def close(self) -> None:
        """Stop jobs, then end every instance; bounded."""
        await self.jobs.close()
        await super().close()
        if self._follower is not None:
            # Last: what ended because the node did is told as well.
            await self._follower.close()
