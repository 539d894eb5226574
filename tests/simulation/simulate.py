"""Runs a plan: lives one after another on one machine, then the judgement."""

import asyncio
import contextlib
import functools
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.simulation import driver, oracle, sim_database, virtual_loop
from tests.simulation.world import Complaints, Node, Plan, Report, World

from toft.kernel import errors

ROOMS = {"jobs": "toft.jobs"}


@functools.cache
def image() -> bytes:
    """Return the file of an empty node, made by the real database."""
    with tempfile.TemporaryDirectory() as directory:
        return sim_database.formatted(ROOMS, Path(directory) / "node.db")


def run(plan: Plan) -> Report:
    """Run a seed to its end.

    Raises:
        BrokenError: A promise was broken; the message ends with how to see it again.
    """
    with tempfile.TemporaryDirectory() as directory:
        world = World(plan, image(), Path(directory))
        try:
            with _listening(world.complaints):
                while not _live(world):
                    world.life += 1
            world.oracle.check_ended()
        except (AssertionError, KeyError) as error:
            error.add_note(f"TOFT_SIM_SEED={plan.seed} at step {world.steps}, life {world.life}")
            raise
        finally:
            world.disk.close()
    return Report(
        steps=world.steps,
        log=world.log.hexdigest(),
        lives=world.life + 1,
        jobs=len(world.oracle.jobs),
        kinds=world.oracle.kinds,
    )


def _live(world: World) -> bool:
    """Let one node live; True when it was the last one."""
    loop = virtual_loop.VirtualLoop(world.clock)
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(_life(world))
    except RuntimeError as error:
        # The loop was stopped under it: that is what a kill looks like from inside.
        if "stopped before" not in str(error):
            raise
        return False
    finally:
        asyncio.set_event_loop(None)
        # What a killed node leaves behind is collected, and its loop hears of it.
        failures = [str(each) for each in loop.failures if "was destroyed" not in each["message"]]
        loop.abandon()
        if failures:
            raise oracle.BrokenError(f"unheard failures: {failures[0]}")


async def _life(world: World) -> bool:
    node = Node(world)
    world.disk.on_end = node.kill
    _plan_the_end(world)
    try:
        await node.open()
    except errors.UnavailableError as error:
        if error.code != "store.disk_full":
            raise
        world.disk.temper.is_full = False  # somebody makes room, and the next start works
        node.kill()
        await asyncio.Event().wait()
    world.disk.temper.is_full = False
    world.oracle.forget_heads()
    users = driver.Driver(world, node)
    await node.read_log()
    world.oracle.check_acknowledged()
    if world.steps < world.plan.steps:
        await users.use(world.next_stop())
        if world.steps < world.plan.steps:
            await _close(node)
            return False
    world.disk.end_at = None
    await users.rest()
    world.oracle.check_acknowledged()
    world.oracle.check_rows(await _rows(node))
    await _check_sequences(node)
    await _close(node)
    return True


async def _check_sequences(node: Node) -> None:
    for sequence in node.world.outside.sequences:
        try:
            found = await node.graphs.get(sequence)
        except errors.NotFoundError:
            if not node.world.terms.forgets:
                raise oracle.BrokenError(f"acknowledged: {sequence} is not there") from None
            continue
        if not found.is_finished or sum(found.counts.values()) < node.world.outside.sequences[sequence]:
            raise oracle.BrokenError(f"starvation: {sequence} is {found.state}, {dict(found.counts)}")


async def _close(node: Node) -> None:
    try:
        await node.close()
    except errors.UnavailableError as error:
        if error.code != "store.disk_full":
            raise


def _plan_the_end(world: World) -> None:
    """Choose the commit at which this life is killed, and whether before or after it."""
    if world.plan.lives and world.steps < world.plan.steps:
        world.disk.end_at = world.disk.commits + world.chance.randint(1, 400)
        world.disk.end_before = world.chance.random() < 0.5


async def _rows(node: Node) -> list[object]:
    rows: list[object] = []
    before: int | None = None
    while True:
        page = await node.queue.list(limit=1000, before_seq=before)
        rows.extend(page)
        if len(page) < 1000:
            return rows
        before = page[-1].seq


@contextlib.contextmanager
def _listening(complaints: list[str]) -> Iterator[None]:
    handler, logger = Complaints(complaints), logging.getLogger("toft")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
