"""Gets what a document pins: wheels to the store, an environment for each plugin, and a try of each.

Nothing that runs is touched: wheels lie under their hashes, environments under theirs, and a document is
committed with the exact code that was tried. What is not needed in the end is collected later.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol

from packaging.version import Version

from toft.kernel import errors, threads
from toft.managed import applying, bundled, document, pins
from toft.managed.bundled import Bundled
from toft.managed.collecting import Keeping, Needs
from toft.managed.document import Document
from toft.managed.install_errors import InstallError, for_good, for_now, mismatch, other_version
from toft.managed.pins import Pin
from toft.managed.trees import OWN, Artifact, Trees
from toft.managed.wheels import Wheels
from toft.plugins import errors as plugin_room
from toft.plugins.environments import environment_errors
from toft.plugins.environments.provisioning import PinnedWheel
from toft.plugins.manifests.manifest import Manifest
from toft.plugins.plugin_errors import PluginError

_PASSING = ("transient", "resource")


class Environments(Protocol):
    """Makes and unmakes the environments of pins."""

    def build(
        self, pin: Pin, wheels: Sequence[PinnedWheel]
    ) -> AbstractAsyncContextManager[tuple[Manifest, bool]]:
        """Make an environment and try the plugin in it; held until the block ends.

        Yields:
            What the plugin is, and whether the environment was made just now.
        """
        ...

    def discard(self, digest: str) -> bool:
        """Take an environment away; False while somebody uses it. Blocks."""
        ...

    async def ask(self, own: Bundled) -> Manifest:
        """Ask a plugin that came with this toft what it is."""
        ...


class Installing:
    """The installer of one home; see `toft.managed.staging.Installer`.

    Args:
        wheels: Where wheels are, and come from.
        trees: Where it is recorded what environments consist of.
        keeping: Keeps what is needed.
        environments: Makes them.
        knows: What is installed without a document.
        came: Tells which plugins came with this toft; blocks.
    """

    def __init__(
        self,
        wheels: Wheels,
        trees: Trees,
        keeping: Keeping,
        *,
        environments: Environments,
        knows: applying.Knows,
        came: Callable[[], Mapping[str, Bundled]] = bundled.find,
    ) -> None:
        self._wheels = wheels
        self._trees = trees
        self._keeping = keeping
        self._environments = environments
        self._knows = knows
        self._find_own = came
        self._came: Mapping[str, Bundled] = {}

    @contextlib.asynccontextmanager
    async def installed(self, offered: Document) -> AsyncGenerator[Sequence[Artifact]]:
        """Install what a document pins, then check the document against that; see the protocol."""
        async with AsyncExitStack() as stack:
            made = await self._install(offered, stack)
            manifests = {name: manifest for name, (_, manifest) in made.items()}

            def knows(name: str) -> Manifest | None:
                return manifests.get(name) or self._knows(name)

            found = await asyncio.to_thread(applying.problems, offered, knows)
            document.refuse(found, "the document", "does not fit this node")
            yield tuple(artifact for artifact, _ in made.values())

    async def install(self, offered: Document) -> tuple[Artifact, ...]:
        """Install what a document pins, and check nothing else.

        Raises:
            InstallError: It cannot be had, for now or for good.

        Durability: Wheels, environments and their records are on disk when this returns.
        Cancellation: Safe; what is whole by then stays until it is collected.
        """
        async with AsyncExitStack() as stack:
            made = await self._install(offered, stack)
            return tuple(artifact for artifact, _ in made.values())

    async def mend(self, artifacts: Sequence[Mapping[str, Any]], running: Document) -> None:
        """Make the environments again that are not what they were.

        Args:
            artifacts: Of the slot that runs.
            running: Its document.

        Raises:
            InstallError: One cannot be made again, for now or for good.
        """
        wanted = {pin.plugin: pin for pin in pins.read(running.section("plugins"))}
        failed: list[InstallError] = []
        for each in map(Artifact.of, artifacts):
            if await asyncio.to_thread(self._trees.problem, each.to_dict()):
                try:
                    await self._mended(each, wanted[each.name])
                except InstallError as error:
                    failed.append(error)
        if failed:
            raise next((each for each in failed if each.is_transient), failed[0])

    async def _mended(self, broken: Artifact, pin: Pin) -> None:
        async with AsyncExitStack() as stack:
            await self._enter(stack)
            self._check_own(pin)
            await self._wheels.obtain(pin.wheels)
            await threads.finished(lambda: self._environments.discard(broken.tree))
            await self._one(pin, stack)
        problem = await asyncio.to_thread(self._trees.problem, broken.to_dict())
        if problem:
            raise for_good(
                f"{broken.name} was made again, and is not what it was: {problem}",
                details={"plugin": broken.name},
                hint="apply a document that pins it anew: another Python or toft made it before",
            )

    async def _install(
        self, offered: Document, stack: AsyncExitStack
    ) -> dict[str, tuple[Artifact, Manifest]]:
        wanted = pins.read(offered.section("plugins"))
        if not wanted:
            return {}
        await self._enter(stack)
        # All that is fetched before anything is made: what fails fails early.
        for pin in wanted:
            self._check_own(pin)
        fetched = [wheel for pin in wanted if pin.plugin not in self._came for wheel in pin.wheels]
        await self._wheels.obtain(fetched)
        made = {pin.plugin: await self._one(pin, stack) for pin in wanted}
        artifacts = [artifact.to_dict() for artifact, _ in made.values()]
        needs = Needs.of(offered.etag, artifacts, offered.section("plugins"))
        try:
            await threads.finished(lambda: self._keeping.note(needs))
        except OSError as error:
            raise for_now(f"the disk did not take it: {error}", details={"errno": error.errno}) from error
        return made

    async def _enter(self, stack: AsyncExitStack) -> None:
        self._came = await asyncio.to_thread(self._find_own)
        try:
            stack.enter_context(await threads.finished(lambda: _entered(self._keeping)))
        except OSError as error:
            raise for_now(f"the store cannot be locked: {error}", details={"errno": error.errno}) from error

    async def _one(self, pin: Pin, stack: AsyncExitStack) -> tuple[Artifact, Manifest]:
        try:
            return await self._made(pin, stack)
        except InstallError:
            raise
        except TimeoutError as error:
            raise for_now(f"{pin.plugin} was not imported in time", details={"plugin": pin.plugin}) from error
        except OSError as error:
            why = f"the disk did not take {pin.plugin}: {error.strerror or error}"
            raise for_now(why, details={"errno": error.errno}) from error
        except (errors.NodeError, PluginError) as error:
            raise _translated(pin, error) from error

    def _check_own(self, pin: Pin) -> None:
        """Refuse another version of what came with toft; its file is another one than any wheel anyway."""
        own = self._came.get(pin.plugin)
        if own is not None and Version(own.version) != Version(pin.wheel.version):
            raise other_version(
                f"{pin.plugin} comes with this toft in version {own.version}; {pin.wheel.version} is pinned",
                details={"plugin": pin.plugin, "version": own.version, "pinned": pin.wheel.version},
            )

    async def _own(self, own: Bundled) -> tuple[Artifact, Manifest]:
        manifest = await self._environments.ask(own)
        digest = await threads.finished(functools.partial(self._trees.keep, OWN, manifest.to_dict()))
        artifact = Artifact(name=own.name, version=own.version, sha256="", tree=OWN, tree_sha256=digest)
        return artifact, manifest

    async def _made(self, pin: Pin, stack: AsyncExitStack) -> tuple[Artifact, Manifest]:
        """Build, and try; an environment that was there is only good as somebody recorded it."""
        if pin.plugin in self._came:
            return await self._own(self._came[pin.plugin])
        files = [
            PinnedWheel(
                name=each.name,
                version=each.version,
                filename=each.filename,
                sha256=each.sha256,
                path=self._wheels.path(each.sha256),
            )
            for each in pin.wheels
        ]
        for _ in range(2):
            held = await stack.enter_async_context(AsyncExitStack())
            manifest, is_new = await held.enter_async_context(self._environments.build(pin, files))
            tree = manifest.runtime.environment
            if is_new or await asyncio.to_thread(self._trees.is_as_recorded, tree):
                told = manifest.to_dict()
                digest = await threads.finished(functools.partial(self._trees.keep, tree, told))
                artifact = Artifact(
                    name=pin.plugin,
                    version=pin.wheel.version,
                    sha256=pin.wheel.sha256,
                    tree=tree,
                    tree_sha256=digest,
                )
                return artifact, manifest
            await held.aclose()
            await threads.finished(functools.partial(self._environments.discard, tree))
        raise for_now(
            f"the environment of {pin.plugin} was changed after it was installed, and somebody still uses it",
            details={"plugin": pin.plugin, "environment": tree},
            hint="unload the instances that run from it",
        )


def _entered(keeping: Keeping) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    stack.enter_context(keeping.installing())
    return stack


def _translated(pin: Pin, error: errors.NodeError | PluginError) -> InstallError:
    """Say whether a failure is the document's, or may pass by itself."""
    told = {"plugin": pin.plugin, "cause": error.to_dict()}
    text = f"{pin.plugin} {pin.wheel.version} cannot be installed: {error.message}"
    if isinstance(error, environment_errors.HashMismatchError):
        return mismatch(text, details=told)
    if isinstance(error, plugin_room.WorkerLostError):
        return for_good(text, details=told)
    if isinstance(error, errors.NodeError) and error.category in _PASSING:
        return for_now(text, details=told, hint=error.hint)
    return for_good(text, details=told, hint=getattr(error, "hint", ""))
