"""Starts workers: spawned by the keeper or forked from a zygote, greeted, and with the plugin imported."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

from toft.host import keeper
from toft.host.gpus import GpuReading
from toft.kernel import clock as clocks
from toft.plugins.supervision import launch, worker
from toft.plugins.supervision.zygote import Zygote
from toft.plugins.wire.connection import Connection
from toft.plugins.wire.frames import LogLine, Welcome
from toft.plugins.wire.segments import SegmentPool

_GREETING_S = 30.0


class Crew:
    """Starts the workers of one node.

    Args:
        keeper: Spawns and reaps.
        segments: Where bulk values travel.
        gpus: Returns who uses the GPUs; called in a thread.
        clock: Stamps lines.
    """

    def __init__(
        self,
        keeper: keeper.Keeper,
        segments: SegmentPool,
        *,
        gpus: Callable[[], GpuReading] | None = None,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._keeper = keeper
        self._segments = segments
        self._gpus = gpus
        self._clock = clock

    async def start(
        self,
        order: launch.Launch,
        output: worker.Output,
        *,
        stall_s: float,
        numbers: Iterator[int] | None = None,
        on_line: Callable[[LogLine], None] | None = None,
        parent: Zygote | None = None,
        is_zygote: bool = False,
    ) -> worker.Worker:
        """Start a worker and import the plugin in it.

        Args:
            order: What to start.
            output: Takes its lines.
            stall_s: Seconds without a sign of progress that end it.
            numbers: Where its requests get their numbers.
            on_line: Told every line too.
            parent: Fork it from this one.
            is_zygote: Others will be forked from it.

        Raises:
            NodeError: It could not be started.
            PluginError: The plugin could not be imported; its trace is in the error.
            WorkerLostError: It died or stalled. Nothing is left of it in any of these cases.
        """
        started = worker.Worker(order, output, stall_s=stall_s, gpus=self._gpus, clock=self._clock)
        if on_line is not None:
            started.on_line = on_line
        ours, theirs = socket.socketpair()
        connection = Connection(
            ours,
            segments=self._segments,
            on_log=started.take_line,
            on_lost=started.on_connection_lost,
            clock=self._clock,
            numbers=numbers,
            keeps_calls=True,
        )
        stdout, stderr = connection.output_fds
        with theirs:
            spec = keeper.SpawnSpec(
                argv=order.argv,
                env=order.env,
                cwd=order.cwd,
                fds=(theirs.fileno(),),
                stdout=stdout,
                stderr=stderr,
                sandbox=order.sandbox,
                limits=order.limits,
            )
            try:
                process = await (parent.fork(theirs) if parent is not None else self._keeper.spawn(spec))
            except BaseException:
                connection.close()
                raise
        started.attach(process, connection)
        try:
            welcome = Welcome(
                module=order.module,
                class_name=order.class_name,
                env=order.secrets,
                paths=order.paths,
                is_zygote=is_zygote,
            )
            await connection.open(welcome, timeout_s=_GREETING_S)
            started.facts = await started.slow("load", {"describe": False})
        except BaseException as error:
            await asyncio.shield(started.explain_and_end(error))
            raise
        return started
