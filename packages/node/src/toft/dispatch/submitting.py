"""Whether a job can be what somebody wants it to be, said before anything is stored."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toft.jobs import records, retries
from toft.kernel import errors, ids
from toft.plugins import configuring, loading, values
from toft.plugins import errors as faults
from toft.plugins import instance as handles
from toft.plugins import node as nodes
from toft.plugins.supervision.supervisor import Binds, no_action

_FRESH_S = 1.0
_MOST_KNOWN = 1000
_WORDS = {
    *("plugin", "arguments", "action", "instance", "start_at", "idempotent", "idempotency_key", "after"),
    *("priority", "delay_s", "timeout_s", "deadline_s", "retry"),
}


@dataclass(slots=True)
class _Known:
    looked_at: float
    binders: Mapping[str, Binds]
    outputs: Mapping[str, Mapping[str, Any] | None]
    is_enabled: bool


class Checker:
    """Checks submissions against what is installed.

    A plugin that was looked at a moment ago is not looked at again: thousands of jobs a second must not cost
    as many readings of its manifest.

    Args:
        node: Knows what is installed and loaded.
        on_outdated: Told an instance whose plugin was installed anew, or given a secret, since it was loaded.
    """

    def __init__(self, node: nodes.Node, on_outdated: Callable[[str], object]) -> None:
        self._node = node
        self._on_outdated = on_outdated
        self._loop = asyncio.get_running_loop()
        self._known: dict[tuple[str, str], _Known] = {}
        self._looking: dict[tuple[str, str], asyncio.Future[_Known]] = {}

    def forget(self) -> None:
        """Look at everything again: something was configured, switched or removed."""
        self._known.clear()
        self._looking.clear()  # what is being looked at may be what it was before

    async def request(
        self,
        plugin: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        action: str | None = None,
        instance: str | None = None,
        start_at: float | datetime.datetime | None = None,
        idempotency_key: str | None = None,
        retry: records.RetryPolicy | Mapping[str, Any] | int | None = None,
        after: Sequence[str] = (),
        **more: Any,
    ) -> records.Request:
        """Return what is stored for the arguments of `toft.dispatch.jobs.Jobs.submit`; see `packed`."""
        name = instance or plugin
        packed = await self.packed(plugin, name, action, arguments)
        return records.Request(
            plugin=plugin,
            instance=name,
            action=action or handles.DEFAULT_ACTION,
            arguments=packed,
            # The same for the same arguments whatever the order of their keys; only a key asks for it.
            arguments_hash=None if idempotency_key is None else values.packed_hash("", packed),
            ready_at=moment(start_at),
            idempotency_key=idempotency_key,
            retry=retries.read_policy(retry),
            after=_ids(after),
            **more,
        )

    async def packed(
        self, plugin: str, instance: str, action: str | None, arguments: Mapping[str, Any] | None
    ) -> bytes:
        """Return checked arguments as they are stored.

        Raises:
            NotFoundError: No such plugin, or the instance is another one's.
            UsageError: Nothing can have the name of that instance.
            DisabledError: Somebody switched the instance off.
            InputError: The action or the arguments do not fit; `fields` says what.
            EncodeError: A value cannot be kept.
        """
        binder = await self.binder(plugin, instance, action)
        return values.pack(binder.bind(arguments or {}))

    async def binder(self, plugin: str, instance: str, action: str | None) -> Binds:
        """Return what checks the arguments of an action that an enabled instance has."""
        return self._binder(await self._fresh(plugin, instance), instance, action)

    def _binder(self, known: _Known, instance: str, action: str | None) -> Binds:
        if not known.is_enabled:
            raise faults.DisabledError(
                f"instance {instance} is disabled",
                details={"instance": instance},
                hint=f"toft plugin enable {instance}",
            )
        binder = known.binders.get(action or handles.DEFAULT_ACTION)
        if binder is None:
            raise no_action(instance, action or handles.DEFAULT_ACTION, known.binders)
        return binder

    async def output(self, plugin: str, instance: str, action: str | None) -> Mapping[str, Any] | None:
        """Return the recorded schema of what an action returns; None when it is not known."""
        known = await self._fresh(plugin, instance)
        self._binder(known, instance, action)
        output = known.outputs.get(action or handles.DEFAULT_ACTION)
        return output if isinstance(output, Mapping) else None

    async def _fresh(self, plugin: str, instance: str) -> _Known:
        known = self._known.get((plugin, instance))
        if known is None or self._loop.time() - known.looked_at > _FRESH_S:
            known = await self._looked(plugin, instance)
        return known

    async def _looked(self, plugin: str, instance: str) -> _Known:
        """Look once for all who want to know at this moment; a hundred may."""
        looking = self._looking.get((plugin, instance))
        if looking is None:
            looking = asyncio.ensure_future(self._look(plugin, instance))
            self._looking[plugin, instance] = looking
            looking.add_done_callback(lambda done: self._note(plugin, instance, done))
        return await asyncio.shield(looking)

    def _note(self, plugin: str, instance: str, looked: asyncio.Future[_Known]) -> None:
        has_failed = looked.cancelled() or looked.exception() is not None
        if self._looking.get((plugin, instance)) is looked:
            del self._looking[plugin, instance]
            if not has_failed:
                # An instance may have any name that somebody submits to: those looked at longest ago go.
                self._known.pop((plugin, instance), None)
                while len(self._known) >= _MOST_KNOWN:
                    del self._known[next(iter(self._known))]
                self._known[plugin, instance] = looked.result()

    async def _look(self, plugin: str, instance: str) -> _Known:
        manifest = await self._node.installed.get(plugin)
        # What can be the name of nothing would fail when it is loaded, long after it was acknowledged.
        ids.check_name(instance, "instance name")
        await configuring.check_owner(self._node, plugin, instance)
        loaded = self._node.find(instance)
        if loaded is not None:
            is_enabled = loaded.is_enabled
            if await self._node.rooms.loader.is_outdated(loaded):
                self._on_outdated(instance)
        else:
            is_enabled = (await self._node.rooms.records.of(plugin, instance)).enabled
        outputs = {
            name: each.get("output") if isinstance(each, Mapping) else None
            for name, each in manifest.runtime.actions.items()
        }
        return _Known(self._loop.time(), loading.binders(manifest), outputs, is_enabled)


def check_names(wish: Mapping[str, Any]) -> None:
    """Refuse a wish that names something no job has.

    Raises:
        UsageError: It does (`job.request`).
    """
    unknown = sorted(set(wish) - _WORDS)
    if unknown:
        raise errors.UsageError(
            f"unknown: {', '.join(unknown)}", code="job.request", details={"unknown": unknown}
        )


def moment(given: float | datetime.datetime | None) -> float | None:
    """Return a moment in seconds since 1970."""
    return given.timestamp() if isinstance(given, datetime.datetime) else given


def _ids(listed: Sequence[str]) -> tuple[str, ...]:
    """Return the jobs that come first; what can be no job's id never gets as far as the database."""
    for each in listed:
        if not isinstance(each, str) or not ids.is_name(each.lower()):
            raise errors.NotFoundError(
                f"no job {str(each)[:80]!r}", code="job.not_found", hint="toft job list"
            )
    return tuple(listed)
