"""Tries an author's plugin without installing it: its environment is built."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toft.plugins import install, logs
from toft.plugins.environments import provisioning, wishes
from toft.plugins.supervision import crew as crews
from toft.plugins.supervision import orders, worker
from toft.plugins.wire.connection import Connection

if TYPE_CHECKING:
    from toft_sdk.conformance import Finding


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """Starts workers that belong to no instance: nothing of anybody's is shown to them, nothing stays.

    Attributes:
        written: Writes what they are started with.
        crew: Starts them.
        writer: Writes their log.
        directory: Where that log is.
        stall_s: Seconds without a sign of progress that end one.
    """

    written: orders.Orders
    crew: crews.Crew
    writer: logs.LogWriter
    directory: Path
    stall_s: float

    @contextlib.asynccontextmanager
    async def started(
        self, interpreter: orders.Interpreter, module: str, class_name: str | None, *, network: bool = False
    ) -> AsyncIterator[worker.Worker]:
        """Start a worker that has a module imported, and end it with everything it made."""
        with tempfile.TemporaryDirectory(prefix="toft-scratch-") as scratch:
            order = await self.written.for_scratch(
                interpreter, module, class_name, Path(scratch), network=network
            )
            output = logs.InstanceLog(self.directory / "scratch.log", self.writer)
            started = await self.crew.start(order, output, stall_s=self.stall_s)
            try:
                yield started
            finally:
                await started.end()

    async def describe(
        self, environment: orders.Interpreter, module: str, class_name: str | None
    ) -> Mapping[str, Any]:
        """Ask what a class is."""
        async with self.started(environment, module, class_name) as started:
            described: Mapping[str, Any] = await started.slow("describe")
            return described


class Trial:
    """Runs the conformance kit.

    Args:
        installer: Builds the environment, and finds the classes in it.
        scratch: Starts the workers.
    """

    def __init__(self, installer: install.Installer, scratch: Scratch) -> None:
        self._installer = installer
        self._scratch = scratch

    async def run(
        self, source: str, *, python: str | None = None, on_step: provisioning.Progress | None = None
    ) -> Sequence[Finding]:
        """Check every plugin class of a source.

        Args:
            source: A directory, a wheel, a requirement.
            python: A version, a range or a path.
            on_step: Told each step.
        """
        from toft.plugins import conformance  # noqa: PLC0415 - the kit costs 50 ms, and only authors need it

        told = on_step or provisioning.silent
        found: list[Finding] = []
        wish = wishes.Wish(source=source, python=python)
        async with self._installer.trying(wish, told) as (environment, classes):
            for each in classes:
                told(f"testing {each.module}:{each.class_name}")

                @contextlib.asynccontextmanager
                async def opened(module: str, class_name: str | None) -> AsyncIterator[Connection]:
                    async with self._scratch.started(
                        environment, module, class_name, network=True
                    ) as started:
                        await started.initialize({})
                        yield started.connection

                found += await conformance.examine(opened, each.module, each.class_name, on_step=told)
        return found
