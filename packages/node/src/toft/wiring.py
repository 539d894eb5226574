"""Reads settings, picks implementations, opens in order, closes in reverse; nobody else constructs them."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from toft.host import keeper
from toft.kernel import log
from toft.kernel import settings as node_settings
from toft.plugins import (
    catalog,
    environments,
    install,
    installed,
    instances,
    launch,
    loading,
    logs,
    measures,
    node,
    orders,
    provisioners,
    registry,
    segments,
    worker,
)
from toft.plugins.sdk import SdkCopy
from toft.secrets.file_store import FileSecretStore
from toft.secrets.redaction import Redactor
from toft.store import database, durable

_log = log.get_logger("wiring")


@asynccontextmanager
async def open_node(
    home: str | os.PathLike[str] | None = None,
    *,
    settings: node_settings.Settings | None = None,
    environ: Mapping[str, str] | None = None,
    **given: Any,
) -> AsyncIterator[node.Node]:
    """Open the node in this process; leaving the block ends everything it started.

    Args:
        home: `TOFT_HOME`; what the settings say when None.
        settings: All settings; read from the environment and the settings file when None.
        environ: The environment; the process's own by default.
        given: Single settings, as `toft.kernel.settings.Settings` names them.

    Raises:
        UsageError: A setting is unknown or does not fit.
        UnavailableError: The keeper did not start, or the database is locked.
    """
    environ = os.environ if environ is None else environ
    if settings is None:
        settings = await asyncio.to_thread(node_settings.read, environ, home=home, **given)
    async with AsyncExitStack() as stack:
        yield await _open(stack, settings, environ)


async def _open(
    stack: AsyncExitStack, settings: node_settings.Settings, environ: Mapping[str, str]
) -> node.Node:
    home = settings.home
    await asyncio.to_thread(durable.make_directory, home, 0o700)
    store = database.Database(home / "node.db")
    stack.push_async_callback(store.close)
    kept, _ = await asyncio.gather(
        keeper.Keeper.start(settings.isolation),  # type: ignore[arg-type]
        store.open({"plugins": "toft.plugins"}),
    )
    stack.push_async_callback(kept.close)
    secrets = FileSecretStore(home / "secrets", on_warning=lambda text: _log.warning("secrets", text=text))
    redactor = Redactor(await asyncio.to_thread(secrets.list_values))
    sdk = SdkCopy(home, environ=environ)
    writer = logs.LogWriter()
    stack.push_async_callback(writer.close)
    crew = worker.Crew(kept, segments.SegmentPool(), cpu_s=measures.cpu_s)
    place = launch.Place(
        home=home,
        sdk=await asyncio.to_thread(lambda: sdk.directory),
        models_dir=settings.models_dir,
        cwd=Path.cwd(),
        environ=environ,
    )
    written = orders.Orders(
        place, sdk.prepare, secrets, learn=redactor.add, isolated=kept.isolation.mode == "namespaces"
    )
    records = instances.Instances(store)
    plugins = registry.Registry(
        home,
        search_paths=registry.project_paths(Path.cwd()),
        fallback_paths=registry.reference_paths(Path.cwd(), environ.get("HOME")),
    )
    built = environments.Environments(home, provisioners.build(settings, environ), prepare=sdk.prepare)
    describe = _Describer(written, crew, writer, settings)
    opened = node.Node(
        node.Rooms(
            settings=settings,
            installed=installed.Installed(
                plugins,
                catalog.Catalog(plugins, built, records, secrets),
                built,
                install.Installer(plugins, built, describe),
                provisioners.own_micromamba(settings, environ),
            ),
            records=records,
            loader=loading.Loader(
                settings,
                plugins,
                built,
                records,
                orders=written,
                crew=crew,
                writer=writer,
                redact=redactor.text,
            ),
            secrets=secrets,
            redactor=redactor,
            isolation=kept.isolation,
        )
    )
    stack.push_async_callback(opened.close)
    return opened


class _Describer:
    """Asks a worker in its sandbox what a class is; nothing is left of it."""

    def __init__(
        self,
        written: orders.Orders,
        crew: worker.Crew,
        writer: logs.LogWriter,
        settings: node_settings.Settings,
    ) -> None:
        self._written = written
        self._crew = crew
        self._writer = writer
        self._settings = settings

    async def __call__(
        self, environment: environments.Environment, module: str, class_name: str | None
    ) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(prefix="toft-describe-") as scratch:
            order = await self._written.for_description(environment, module, class_name, Path(scratch))
            output = logs.InstanceLog(self._settings.home / "logs" / "describe.log", self._writer)
            started = await self._crew.start(order, output, stall_s=self._settings.load_stall_s)
            try:
                described: Mapping[str, Any] = await started.slow("describe")
                return described
            finally:
                await started.end()
