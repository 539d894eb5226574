"""Keeps the code that the node's document pins as it was installed, and nothing that no document needs."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from toft import wiring
from toft.dispatch import node as nodes
from toft.kernel import errors, log, threads
from toft.managed import generations, retrying, staging, trees, wheels
from toft.managed.document import Document
from toft.managed.install_errors import InstallError
from toft.store import claims, durable

_log = log.get_logger("daemon.installing")


class Installs:
    """The pinned code of a running node.

    Args:
        node: The node.
        environ: The environment.
        boot: What this process has loaded.
        running: What that says.
    """

    def __init__(
        self, node: nodes.Node, environ: Mapping[str, str], boot: generations.Boot, running: Document
    ) -> None:
        self._rooms = node.rooms
        self._environ = environ
        self._boot = boot
        self._document = running

    def installer(self, source: wheels.Source | None = None) -> staging.Installer:
        """Return what installs the next document.

        Args:
            source: Where wheels without an address are had.
        """
        return wiring.installing_of(self._rooms, self._environ, source)

    async def mend(self, engine: generations.Generations, restart: Callable[[], None]) -> None:
        """Make again what was damaged; where that cannot be done, go back to the document before.

        Args:
            engine: Of the home.
            restart: Ends this process in order, to load what is whole again.
        """
        tries = 0
        while self._boot.damaged:
            try:
                await wiring.installing_of(self._rooms, self._environ).mend(
                    self._boot.meta.artifacts, self._document
                )
            except InstallError as error:
                tries += 1
                _log.error("not_mended", plugins=self._boot.damaged, error=str(error), tries=tries)
                if not error.is_transient:
                    if await threads.finished(
                        functools.partial(engine.revert, "slot_corrupt", None, error.message)
                    ):
                        restart()
                    return
                pause_s = retrying.ladder_s(tries, retrying.INSTALL_LADDER_S)
                await asyncio.sleep(retrying.upward(pause_s, random.random))
            else:
                _log.warning("mended", plugins=self._boot.damaged)
                return

    async def collect(self) -> None:
        """Take away the code that no document needs any more."""
        try:
            gone = await threads.finished(lambda: wiring.collect(self._rooms))
        except (OSError, errors.NodeError) as error:
            # Nothing depends on it, and the next confirmed document brings another chance.
            _log.warning("not_collected", error=str(error))
            return
        if gone.trees or gone.wheels:
            _log.info("collected", environments=len(gone.trees), wheels=len(gone.wheels))


def refuse(home: Path, boot: generations.Boot) -> None:
    """Take the environments away that are not what was installed, before anybody can run from one; blocks."""
    for each in map(trees.Artifact.of, boot.meta.artifacts):
        path = home / "environments" / each.tree
        if each.name not in boot.damaged or not each.tree.isalnum():
            continue
        try:
            held = claims.claim(path)
            if held is not None:
                with held:
                    durable.remove_directory(path)
        except OSError:
            continue  # it is not there, or is not to be removed: then it is found damaged once more
