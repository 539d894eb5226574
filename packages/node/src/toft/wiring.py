"""Reads settings, picks implementations, opens in order, closes in reverse; nobody else constructs them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toft.access import gate as gates
from toft.access import tokens
from toft.dispatch import engine, node, readings
from toft.dispatch import logs as job_logs
from toft.host import commands, confined_commands, disks, facts, gpus, keeper, monitor
from toft.kernel import errors, log
from toft.kernel import settings as node_settings
from toft.managed import applying, building, collecting, installing, staging, trees, wheels
from toft.managed import document as documents
from toft.plugins import artifacts, catalog, install, installed, instances, loading, logs, trial
from toft.plugins import node as nodes
from toft.plugins.environments import environments, provisioners
from toft.plugins.environments.sdk import SdkCopy
from toft.plugins.manifests import manifest as manifests
from toft.plugins.manifests import registry
from toft.plugins.supervision import crew as crews
from toft.plugins.supervision import launch, orders
from toft.plugins.wire import segments
from toft.secrets.file_store import FileSecretStore
from toft.secrets.redaction import Redactor
from toft.store import blobs, database, durable

_log = log.get_logger("wiring")
_ROOMS = ("plugins", "jobs", "dispatch", "access")
"""Those with tables of their own."""


@asynccontextmanager
async def open_node(
    home: str | os.PathLike[str] | None = None,
    *,
    settings: node_settings.Settings | None = None,
    environ: Mapping[str, str] | None = None,
    runs_jobs: bool = True,
    applied: applying.Applied | None = None,
    **given: Any,
) -> AsyncIterator[node.Node]:
    """Open the node in this process; leaving the block ends everything it started.

    Args:
        home: `TOFT_HOME`; what the settings say when None.
        settings: All settings; read from the environment and the settings file when None.
        environ: The environment; the process's own by default.
        runs_jobs: Give jobs lanes in this process once somebody asks for its jobs; else they are only stored.
        applied: What the node's document makes of it; what the active one of the home does when None.
        given: Single settings, as `toft.kernel.settings.Settings` names them; they win over the document.

    Raises:
        UsageError: A setting is unknown or does not fit.
        UnavailableError: The keeper did not start, or the database is locked.
    """
    environ = os.environ if environ is None else environ
    if settings is None:
        settings = await asyncio.to_thread(node_settings.read, environ, home=home, **given)
    if applied is None:
        applied = await asyncio.to_thread(applying.read, settings.home)
        # Whoever opens this home keeps as many jobs, and for as long, as its document says.
        named = {name: value for name, value in applied.settings.items() if name not in given}
        settings = dataclasses.replace(settings, **named)
    async with AsyncExitStack() as stack:
        yield await _open(stack, settings, environ, runs_jobs, applied)


@asynccontextmanager
async def open_gate(opened: node.Node, applied: applying.Applied) -> AsyncIterator[gates.Gate]:
    """Open the tokens of a node and of its document, for those who come in by TCP."""
    store = (await opened.jobs.open()).means.store
    gate = gates.Gate(await tokens.Tokens(store, declared=applied.tokens).open())
    try:
        yield gate
    finally:
        await gate.tokens.close()


@asynccontextmanager
async def open_tokens(settings: node_settings.Settings) -> AsyncIterator[tokens.Tokens]:
    """Open the tokens of a home alone; for commands, while no daemon has them in memory."""
    await asyncio.to_thread(durable.make_directory, settings.home, 0o700)
    applied = await asyncio.to_thread(applying.read, settings.home)
    store = database.Database(settings.home / "node.db")
    await store.open({"access": "toft.access"})
    try:
        yield await tokens.Tokens(store, declared=applied.tokens).open()
    finally:
        await store.close()


@dataclass(frozen=True, kw_only=True)
class _Base:
    """What everything else stands on."""

    store: database.Database
    keeper: keeper.Keeper
    secrets: FileSecretStore
    redactor: Redactor
    writer: logs.LogWriter
    machine: _Machine


async def _open(
    stack: AsyncExitStack,
    settings: node_settings.Settings,
    environ: Mapping[str, str],
    runs_jobs: bool,
    applied: applying.Applied,
) -> node.Node:
    base = await _open_base(stack, settings)
    opened = node.Node(
        await _rooms(base, settings, environ, applied), await _means(base, settings, runs_jobs)
    )
    stack.push_async_callback(opened.close)
    return opened


async def _open_base(
    stack: AsyncExitStack, settings: node_settings.Settings, *, opens_database: bool = True
) -> _Base:
    home = settings.home
    await asyncio.to_thread(durable.make_directory, home, 0o700)
    store = database.Database(home / "node.db")
    stack.push_async_callback(store.close)
    kept, failed = await asyncio.gather(
        keeper.Keeper.start(settings.isolation),
        store.open({room: f"toft.{room}" for room in _ROOMS}) if opens_database else asyncio.sleep(0),
        return_exceptions=True,  # neither is left behind because the other failed
    )
    if isinstance(kept, BaseException):
        raise kept
    stack.push_async_callback(kept.close)
    if failed is not None:
        raise failed
    secrets = FileSecretStore(home / "secrets", on_warning=lambda text: _log.warning("secrets", text=text))
    redactor = Redactor(await asyncio.to_thread(secrets.list_values))
    writer = logs.LogWriter()
    stack.push_async_callback(writer.close)
    machine = _Machine()
    stack.callback(machine.close)
    return _Base(store=store, keeper=kept, secrets=secrets, redactor=redactor, writer=writer, machine=machine)


async def _rooms(
    base: _Base, settings: node_settings.Settings, environ: Mapping[str, str], applied: applying.Applied
) -> nodes.Rooms:
    home = settings.home
    sdk = SdkCopy(home, environ=environ)
    crew = crews.Crew(base.keeper, segments.SegmentPool(), gpus=base.machine.read_gpus)
    place = launch.Place(
        home=home,
        sdk=await asyncio.to_thread(lambda: sdk.directory),
        models_dir=settings.models_dir,
        cwd=Path.cwd(),
        environ=environ,
    )
    written = orders.Orders(place, sdk.prepare, base.secrets, learn=base.redactor.add)
    records = instances.Instances(base.store, declared=applied.instances)
    plugins = open_registry(home, environ, applied.pinned)
    made_by = provisioners.build(settings, environ, run=await _run(base.keeper, place))
    built = environments.Environments(home, made_by, prepare=sdk.prepare)
    scratch = trial.Scratch(
        written=written,
        crew=crew,
        writer=base.writer,
        directory=home / "logs",
        stall_s=settings.load_stall_s,
    )
    installer = install.Installer(
        plugins,
        built,
        scratch.describe,
        artifacts=artifacts.Artifacts(home),
        is_pinned=collecting.Keeping(home).keeps,
    )
    return nodes.Rooms(
        registry=plugins,
        environments=built,
        settings=settings,
        installed=installed.Installed(
            plugins,
            catalog.Catalog(plugins, built, records, base.secrets),
            built,
            installer,
            trial=trial.Trial(installer, scratch),
            conda=provisioners.own_micromamba(settings, environ),
        ),
        installer=installer,
        records=records,
        loader=loading.Loader(
            settings,
            plugins,
            built,
            records,
            orders=written,
            crew=crew,
            writer=base.writer,
            redactor=base.redactor,
        ),
        secrets=base.secrets,
        redactor=base.redactor,
        monitor=base.machine.monitor,
        isolation=base.keeper.isolation,
    )


def open_registry(
    home: Path, environ: Mapping[str, str], pinned: Sequence[tuple[manifests.Manifest, Path]] = ()
) -> registry.Registry:
    """Return the installed plugins of a home, as they are seen from this directory.

    Args:
        home: `TOFT_HOME`.
        environ: The environment.
        pinned: What the node's document pins.
    """
    return registry.Registry(
        home,
        pinned=pinned,
        search_paths=registry.project_paths(Path.cwd()),
        fallback_paths=registry.reference_paths(Path.cwd(), environ.get("HOME")),
    )


def open_installer(
    settings: node_settings.Settings,
    environ: Mapping[str, str],
    source: wheels.Source | None = None,
    *,
    import_s: float = building.IMPORT_S,
) -> staging.Installer:
    """Return what gets the plugins of a document, and knows what there is without it; blocks.

    Args:
        settings: The node's.
        environ: The environment.
        source: Where wheels without an address are had.
        import_s: Seconds that the import of a plugin may take.
    """
    return _Opening(settings, environ, source, import_s)


class _Opening:
    """The installer of a process that has no node open; what starts workers is opened where it is needed."""

    def __init__(
        self,
        settings: node_settings.Settings,
        environ: Mapping[str, str],
        source: wheels.Source | None,
        import_s: float,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._source = source
        self._import_s = import_s
        self._present = applying.Present(_knows(open_registry(settings.home, environ)))

    @asynccontextmanager
    async def installed(self, offered: documents.Document) -> AsyncIterator[Sequence[trees.Artifact]]:
        """See `toft.managed.staging.Installer.installed`."""
        async with AsyncExitStack() as stack:
            installer: staging.Installer = self._present
            if offered.section("plugins"):
                base = await _open_base(stack, self._settings, opens_database=False)
                rooms = await _rooms(base, self._settings, self._environ, applying.NOTHING)
                installer = installing_of(rooms, self._environ, self._source, import_s=self._import_s)
            yield await stack.enter_async_context(installer.installed(offered))


def installing_of(
    rooms: nodes.Rooms,
    environ: Mapping[str, str],
    source: wheels.Source | None = None,
    *,
    import_s: float = building.IMPORT_S,
) -> installing.Installing:
    """Return what installs what documents pin, for a node that is open.

    Args:
        rooms: Of the node.
        environ: The environment.
        source: Where wheels without an address are had.
        import_s: Seconds that the import of a plugin may take.
    """
    settings = rooms.settings
    home = settings.home
    places = wheels.Places(houses=settings.wheelhouses, source=source, offline=settings.offline)

    def free_bytes() -> int:
        return disks.read_space(home).free_bytes

    return installing.Installing(
        wheels.Wheels(home, places, free_bytes=free_bytes),
        trees.Trees(home),
        collecting.Keeping(home),
        environments=building.PinnedEnvironments(rooms.installer, rooms.environments, import_s=import_s),
        # Not what the document pins that runs: the next one may do without.
        knows=_knows(open_registry(home, environ)),
    )


def collect(rooms: nodes.Rooms) -> collecting.Collected:
    """Take away the pinned code of a node that no document needs; blocks."""
    environments = building.PinnedEnvironments(rooms.installer, rooms.environments)
    return collecting.Keeping(rooms.settings.home).collect(environments)


def _knows(plugins: registry.Registry) -> applying.Knows:
    def knows(name: str) -> manifests.Manifest | None:
        found = plugins.find_name(name)
        return None if found is None else found.manifest

    return knows


async def _run(kept: keeper.Keeper, place: launch.Place) -> commands.Run:
    """Return how tools that run other people's code are run: confined, where that is possible here."""
    if kept.isolation.mode != "namespaces":
        return commands.run
    hidden = await asyncio.to_thread(lambda: tuple(launch.hidden_directories(place)))
    return confined_commands.ConfinedCommands(kept, hidden).run


async def _means(base: _Base, settings: node_settings.Settings, runs_jobs: bool) -> engine.Means:
    home = settings.home
    return engine.Means(
        store=base.store,
        blobs=blobs.Blobs(home / "blobs"),
        logs=job_logs.JobLogs(home / "logs" / "jobs", base.writer, redact=base.redactor.text),
        reader=readings.MachineReader(base.machine.read_gpus),
        settings=settings,
        cores=facts.read_cores(),
        runs_jobs=runs_jobs,
        follower=await asyncio.to_thread(_follower, settings.tracing_endpoint),
    )


def _follower(endpoint: str | None) -> engine.Follower | None:
    """Return what sends traces; blocks for its imports."""
    if endpoint is None:
        return None
    if not endpoint.startswith(("http://", "https://")):
        raise errors.UsageError(
            f"tracing_endpoint is no address of a collector: {endpoint[:200]!r}",
            code="settings.tracing",
            hint="such as http://127.0.0.1:4318/v1/traces",
        )
    try:
        from toft.dispatch import telemetry  # noqa: PLC0415 - an extra, and a fifth of a second
    except ImportError as error:
        raise errors.UsageError(
            f"the setting tracing_endpoint needs packages that are not installed: {error}",
            code="settings.tracing",
            hint="install toft with its extra: toft[tracing]",
        ) from error
    return telemetry.Telemetry(endpoint)


class _Machine:
    """What looks at the machine; opened when somebody looks first, because the GPU library takes a while."""

    def __init__(self) -> None:
        self._reader: gpus.GpuReader | None = None
        self._monitor: monitor.BuiltInMonitor | None = None
        self._opening = threading.Lock()

    def read_gpus(self) -> gpus.GpuReading:
        """Return who uses the GPUs; blocks."""
        return self._opened().read()

    async def monitor(self) -> monitor.Monitor:
        """Return the built-in system monitor."""
        if self._monitor is None:
            self._monitor = monitor.BuiltInMonitor(await asyncio.to_thread(self._opened))
        return self._monitor

    def close(self) -> None:
        """Let go of the GPU library."""
        if self._reader is not None:
            self._reader.close()

    def _opened(self) -> gpus.GpuReader:
        with self._opening:
            if self._reader is None:
                self._reader = gpus.open_reader()
            return self._reader
