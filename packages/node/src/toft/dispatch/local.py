"""Runs jobs on the instances of this node."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from toft.dispatch import backend as seam
from toft.dispatch import logs, readings
from toft.jobs import ledger, records
from toft.jobs.retries import Origin
from toft.kernel import errors, log, traces
from toft.plugins import activity as activities
from toft.plugins import configuring, loading, values
from toft.plugins import errors as plugin_faults
from toft.plugins import instance as handles
from toft.plugins import node as nodes
from toft.plugins.manifests import manifest as manifests
from toft.plugins.packed import Packed
from toft.plugins.plugin_errors import CancelledError, PluginError
from toft.plugins.supervision import calls, states
from toft.store import blobs

_log = log.get_logger("dispatch.local")
_LARGE_BYTES = 64 * 1024
_MB = 1_000_000
_READY = seam.Loaded()
_CONDITIONS = {
    states.State.READY: seam.Condition.READY,
    states.State.STARTING: seam.Condition.RESTARTING,
    states.State.RESTARTING: seam.Condition.RESTARTING,
}

Resolve = Callable[[records.Claimed], Awaitable[Mapping[str, Any]]]


class LocalBackend:
    """The seam over the node's instances.

    Args:
        node: Loads and holds instances.
        reader: Measures.
        stored: Where large arguments and results are.
        printed: Where what jobs print is kept.
        resolve: Returns the arguments of a job whose values are not all in it.
    """

    def __init__(
        self,
        node: nodes.Node,
        reader: readings.Reader,
        stored: blobs.Blobs,
        printed: logs.JobLogs,
        resolve: Resolve,
    ) -> None:
        self._node = node
        self.on_load: Callable[[str, Sequence[traces.Step]], object] = lambda instance, steps: None
        self._reader = reader
        self._blobs = stored
        self._logs = printed
        self._resolve = resolve
        self._loop = asyncio.get_running_loop()
        self._on_change: seam.OnChange = lambda instance: None
        # Weak, and by the instance itself: a name may be somebody else's tomorrow.
        self._mine: weakref.WeakKeyDictionary[handles.Instance, float] = weakref.WeakKeyDictionary()
        self._watched: weakref.WeakSet[handles.Instance] = weakref.WeakSet()
        self._replacing: dict[str, asyncio.Task[None]] = {}

    def watch(self, on_change: seam.OnChange) -> None:
        """Name who is told when an instance's condition changed."""
        self._on_change = on_change

    def plugin_of(self, instance: str) -> str | None:
        """Return whose an instance is; None when it is not loaded."""
        found = self._node.find(instance)
        return None if found is None else found.plugin

    def changed(self, instance: str) -> None:
        """Take note that something about an instance is different now."""
        self._on_change(instance)

    # Looking

    async def profile(self, plugin: str, instance: str) -> seam.Profile | seam.Fault:
        """Return what is known of an instance without loading it, or why it cannot run jobs."""
        try:
            known = await self._node.installed.get(plugin)
            loaded = configuring.loaded_of(self._node, plugin, instance)
            if loaded is not None:
                if not loaded.is_enabled:
                    return _disabled(instance)
                return _profile(known, instance, loaded.config, loading.concurrency(known, loaded.options))
            record = await self._node.rooms.records.of(plugin, instance)
            if not record.enabled:
                return _disabled(instance)
            config = self._node.rooms.loader.validator(known)(record.config)
            return _profile(known, instance, config, loading.concurrency(known, record.options))
        except (errors.NodeError, PluginError) as error:
            return seam.Fault(error.to_dict(), Origin.NODE)

    def loaded(self) -> Mapping[str, seam.Loaded]:
        """Return what is loaded now."""
        return {each.id: self._seen(each) for each in self._node.instances()}

    def find(self, instance: str) -> seam.Loaded | None:
        """Return one loaded instance."""
        found = self._node.find(instance)
        if found is None:
            return None
        if found.state is states.State.READY and found.is_enabled and found in self._watched:
            return _READY  # asked at every decision, and nothing else is asked of it then
        return self._seen(found)

    def _seen(self, instance: handles.Instance) -> seam.Loaded:
        if instance not in self._watched:
            self._watched.add(instance)
            activities.watch(instance, self.changed)
        condition = _CONDITIONS.get(instance.state, seam.Condition.DOWN)
        if not instance.is_enabled:
            condition = seam.Condition.DISABLED
        elif instance.id in self._replacing:
            condition = seam.Condition.RESTARTING
        cost_s = self._mine.get(instance)
        activity = activities.activity(instance)
        return seam.Loaded(
            condition=condition,
            because=activity.reason,
            busy=activity.busy,
            last_used=activity.last_used,
            cost_s=cost_s or 0.0,
            # Somebody who loaded it himself has it in his hands; what a document declares stays loaded.
            pinned=instance.options.pinned
            or cost_s is None
            or instance.id in self._node.rooms.records.declared,
        )

    async def measure(self) -> ledger.Reading:
        """Measure the machine and every loaded instance in one pass."""
        trees = {each.id: activities.activity(each).tree for each in self._node.instances()}
        present = {name: tree for name, tree in trees.items() if tree is not None}
        return await asyncio.to_thread(self._reader.read, present)

    # Instances

    async def prepare(self, profile: seam.Profile) -> seam.Fault | None:
        """Load an instance, or bring back one that is down; return why that failed."""
        began = self._loop.time()
        present = self._node.find(profile.instance)
        try:
            if present is not None:
                if present.state is states.State.CRASH_LOOP:
                    await present.reload()
                return None
            loaded = await self._node.load(profile.plugin, instance=profile.instance)
            self.on_load(profile.instance, loaded.steps)
            loaded.steps = ()
        except (errors.NodeError, PluginError) as error:
            return _fault(error)
        self._mine[loaded] = self._loop.time() - began
        return None

    def replace(self, instance: str) -> None:
        """Unload an instance whose plugin was installed anew, between two jobs; the next one loads it again.

        What somebody loaded for himself stays as it is.
        """
        found = self._node.find(instance)
        if found is None or instance in self._replacing or not (found.is_shared or found in self._mine):
            return
        self._replacing[instance] = asyncio.ensure_future(self._replace(found))
        self._on_change(instance)

    async def _replace(self, outdated: handles.Instance) -> None:
        try:
            while activities.is_busy(outdated):
                await activities.idle(outdated)
            if self._node.find(outdated.id) is outdated:
                _log.info("replaced", instance=outdated.id)
                await self.evict(outdated.id)
        finally:
            del self._replacing[outdated.id]
            self._on_change(outdated.id)

    async def close(self) -> None:
        """Replace nothing any more."""
        for task in list(self._replacing.values()):
            task.cancel()
        if self._replacing:
            await asyncio.wait(list(self._replacing.values()))

    async def evict(self, instance: str) -> bool:
        """Unload an idle instance; False when it is idle no longer."""
        found = self._node.find(instance)
        if found is None or activities.activity(found).busy:
            return False
        await found.unload()
        return True

    async def respawn(self, instance: str, because: str) -> seam.Fault | None:
        """Replace an instance's worker by a fresh one; return why that failed."""
        found = self._node.find(instance)
        if found is None:
            return None
        try:
            await found.reload()
        except (errors.NodeError, PluginError) as error:
            return _fault(error)
        return None

    # Attempts

    def start(self, claim: records.Claimed, told: seam.Listens, *, timeout_s: float | None) -> seam.Running:
        """Begin an attempt on a ready instance; whatever goes wrong is told, never raised."""
        attempt = _Attempt(claim, told, timeout_s, self._blobs, self._logs)
        if claim.arguments_blob is None and claim.sequence is None:
            attempt.begin(self._node, lambda: values.unpack(claim.arguments) if claim.arguments else {})
        else:
            attempt.begin_later(self._node, self._resolve)
        return attempt


class _Attempt:
    """One attempt as a call."""

    __slots__ = (
        "_blobs",
        "_call",
        "_claim",
        "_grace_s",
        "_is_asked",
        "_log",
        "_logs",
        "_task",
        "_told",
        "_timeout_s",
    )

    def __init__(
        self,
        claim: records.Claimed,
        told: seam.Listens,
        timeout_s: float | None,
        stored: blobs.Blobs,
        printed: logs.JobLogs,
    ) -> None:
        self._claim = claim
        self._told = told
        self._timeout_s = timeout_s
        self._blobs = stored
        self._logs = printed
        self._log: Any = None
        self._call: calls.Call | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_asked = False
        self._grace_s: float | None = None

    def begin(self, node: nodes.Node, arguments: Callable[[], Mapping[str, Any]]) -> None:
        """Hand the call over."""
        claim = self._claim
        instance = node.find(claim.instance)
        try:
            if instance is None:
                raise plugin_faults.DownError(
                    f"instance {claim.instance} is not loaded", details={"instance": claim.instance}
                )
            if instance.plugin != claim.plugin:
                # Whoever may run one plugin must not run another one under a name that came to be its.
                raise errors.ConflictError(
                    f"instance {claim.instance} belongs to plugin {instance.plugin}, not to {claim.plugin}",
                    code="instance.other_plugin",
                )
            call = handles.start_raw(
                instance,
                claim.action,
                arguments(),
                timeout_s=self._timeout_s,
                on_progress=self._told.progress,
                on_log=self._take_line,
            )
        except (plugin_faults.DisabledError, plugin_faults.DownError, plugin_faults.BusyError) as error:
            self._told.ended(seam.Ending(fault=seam.Fault(error.to_dict(), Origin.UNBEGUN)))
            return
        except (errors.NodeError, PluginError) as error:
            self._told.ended(seam.Ending(fault=seam.Fault(error.to_dict(), Origin.NODE)))
            return
        self._call = call
        call.when_cancelling(self._told.phase)
        call.when_ended(self._ended)
        if self._is_asked:
            call.cancel(grace_s=self._grace_s)

    def begin_later(self, node: nodes.Node, resolve: Resolve) -> None:
        """Hand the call over once its arguments are here."""
        self._task = asyncio.ensure_future(self._fetch(node, resolve))

    async def _fetch(self, node: nodes.Node, resolve: Resolve) -> None:
        try:
            arguments = await resolve(self._claim)
        except (errors.NodeError, PluginError) as error:
            self._told.ended(seam.Ending(fault=seam.Fault(error.to_dict(), Origin.NODE)))
            return
        if self._is_asked:
            self._told.ended(seam.Ending(fault=_fault(CancelledError("cancelled before it began"))))
            return
        self.begin(node, lambda: arguments)

    def cancel(self, grace_s: float | None = None) -> None:
        """Ask it to end; with force when it has not within the grace."""
        self._is_asked, self._grace_s = True, grace_s
        if self._call is not None:
            self._call.cancel("somebody cancelled the job", grace_s=grace_s)

    def _take_line(self, line: Any) -> None:
        if self._log is None:
            self._log = self._logs.open(self._claim.id)
        self._log.add(line)

    def _ended(self, result: Any, error: Exception | None) -> None:
        call = self._call
        units = dict(call.usage) if call is not None else {}
        if error is not None:
            never_ran = call is not None and not call.started_at
            self._told.ended(seam.Ending(fault=_fault(error, never_ran=never_ran), units=units))
        elif isinstance(result, Packed) and result.size_bytes > _LARGE_BYTES:
            self._task = asyncio.ensure_future(self._store(result, units))
        else:
            self._told.ended(_packed_ending(result, units))

    async def _store(self, result: Packed, units: Mapping[str, float]) -> None:
        """Put a large result into a blob without looking at it."""
        size_bytes = result.size_bytes
        try:
            digest = await self._blobs.save(result.parts())
        except (errors.NodeError, PluginError) as error:
            self._told.ended(seam.Ending(fault=seam.Fault(error.to_dict(), Origin.NODE), units=units))
            return
        finally:
            result.release()
        kept = records.ResultRef(size_bytes, blob=digest)
        self._told.ended(seam.Ending(result=kept, units=units))


def _packed_ending(result: Any, units: Mapping[str, float]) -> seam.Ending:
    if not isinstance(result, Packed):
        return seam.Ending(result=values.pack(result), units=units)
    data = result.to_bytes()
    result.release()
    return seam.Ending(result=data, units=units)


def _fault(error: Exception, *, never_ran: bool = False) -> seam.Fault:
    """Say where an error comes from; it decides whether the work may have had effects."""
    origin = Origin.NODE
    if isinstance(error, CancelledError):
        origin = Origin.CANCELLED
    elif isinstance(error, plugin_faults.CallTimeoutError):
        origin = Origin.TIMEOUT
    elif never_ran:
        origin = Origin.UNBEGUN
    elif isinstance(error, PluginError):
        origin = Origin.PLUGIN
    elif isinstance(error, plugin_faults.WorkerLostError):
        origin = Origin.WORKER
    if isinstance(error, (errors.NodeError, PluginError)):
        return seam.Fault(error.to_dict(), origin)
    wrapped = errors.NodeError(f"{type(error).__name__}: {error}", code="job.failed")
    return seam.Fault(wrapped.to_dict(), origin)


def _profile(
    known: manifests.Manifest, instance: str, config: Mapping[str, Any], concurrency: int | None
) -> seam.Profile:
    extra = known.code.resources.extra if known.code.resources is not None else {}
    floor: dict[str, int] = {}
    for key, name in (("min_system_ram_mb", ledger.MEMORY), ("min_gpu_vram_mb", ledger.gpu(0))):
        size = extra.get(key)
        if isinstance(size, (int, float)) and size > 0:
            floor[name] = int(size * _MB)
    return seam.Profile(
        instance=instance,
        plugin=known.name,
        config_hash=manifests.dict_hash(dict(config)),
        cap=1 if known.runtime.main_thread else concurrency,
        floor=floor,
    )


def _disabled(instance: str) -> seam.Fault:
    error = plugin_faults.DisabledError(f"instance {instance} is disabled", details={"instance": instance})
    return seam.Fault(error.to_dict(), Origin.UNBEGUN)
