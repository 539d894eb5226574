"""Installs plugins: source to environment to description to manifest; all of it, or nothing.

A plugin counts as installed when its manifest is written, which is the last step. Whatever fails before takes
back what the same attempt made, and nothing that others use.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import toft_sdk.errors
from toft.kernel import clock as clocks
from toft.kernel import errors, ids, threads
from toft.plugins import listed
from toft.plugins.artifacts import Artifacts
from toft.plugins.describing import Describe, Describer
from toft.plugins.environments import environment_errors, environments, plugin_classes, provisioning
from toft.plugins.environments.sources import Source
from toft.plugins.environments.wishes import Wish
from toft.plugins.findings import Finding
from toft.plugins.manifests import manifest
from toft.plugins.manifests.registry import Registry

_MOST_LOCK = 4 << 20


class Installer:
    """Adds, refreshes and removes plugins.

    Args:
        registry: Where manifests are.
        store: Where environments are.
        describe: Asks a worker, in the environment and the sandbox, what a class is.
        artifacts: What was uploaded to be installed.
        is_pinned: Says whether a document needs an environment, of whose plugins no manifest is here.
        clock: For the dates in manifests.

    Attributes:
        artifacts: What was uploaded to be installed.
    """

    def __init__(
        self,
        registry: Registry,
        store: environments.Environments,
        describe: Describe,
        *,
        artifacts: Artifacts,
        is_pinned: Callable[[str], bool] = lambda _: False,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self.artifacts = artifacts
        self._is_pinned = is_pinned
        self._registry = registry
        self._store = store
        self._describe = describe
        self._describer = Describer(describe, clock)
        self._clock = clock

    async def add(
        self, wish: Wish, *, force: bool = False, progress: provisioning.Progress = provisioning.silent
    ) -> list[manifest.Manifest]:
        """Install every plugin of a source.

        Args:
            wish: What to install, and how.
            force: Replace a plugin of the same name that came from somewhere else.
            progress: Told each step.

        Returns:
            What was installed; one manifest per plugin class of the source.

        Raises:
            SourceError: The source is none, or holds no plugin.
            ConflictError: Another plugin has the name (`plugin.exists`).
            NodeError: One of `environment_errors`.
            PluginError: The plugin could not be imported or described; its own trace is in it.

        Durability: The manifests are on disk when this returns.
        Cancellation: Safe; leaves what was there before, or, in the last step, all of what is new.
        """
        if wish.name:
            ids.check_name(wish.name, "plugin name")
        async with self._sourced(wish) as (request, source):
            if source.kind == "plugins_file" and source.path and wish.origin is None:
                return await listed.add(
                    source.path, wish, lambda each: self.add(each, force=force, progress=progress), progress
                )

            async def describe(environment: environments.Environment) -> list[manifest.Manifest]:
                found = await self._describer.manifests(environment, wish, source, progress)
                for each in found:
                    self._refuse_taken(each, force)
                return found

            return await self._install(await asyncio.to_thread(request), describe, progress)

    async def refresh(
        self, name: str, *, progress: provisioning.Progress = provisioning.silent
    ) -> manifest.Manifest:
        """Resolve again, build the new environment beside the old one, then swap the manifest.

        The old environment stays for the workers that run from it, until it is collected.

        Raises:
            ConflictError: The plugin was not installed by toft, so nobody knows from what.
            NodeError: As `add`; the plugin is as it was.
        """
        self._registry.check_free(name)
        old = await asyncio.to_thread(self._registry.get, name)
        wish = replace(self._wish(old), name=name)
        async with self._sourced(wish) as (request, source):

            async def renew(environment: environments.Environment) -> list[manifest.Manifest]:
                found = await self._describer.manifests(environment, wish, source, progress, only=old)
                return [replace(each, overrides=old.overrides, extra=old.extra) for each in found]

            return (
                await self._install(replace(await asyncio.to_thread(request), upgrade=True), renew, progress)
            )[0]

    @contextlib.asynccontextmanager
    async def trying(
        self, wish: Wish, progress: provisioning.Progress = provisioning.silent
    ) -> AsyncIterator[tuple[environments.Environment, list[plugin_classes.PluginClass]]]:
        """Find the plugin classes of a source in its environment, without installing anything.

        A bare word is an installed plugin, whose own environment is used; no index is asked for it.
        """
        if ids.is_name(wish.source) and Source.parse(wish.source).kind == "requirement":
            found = await asyncio.to_thread(self._registry.get, wish.source)
            with self._store.hold(found.runtime.environment) as held:
                yield held, [plugin_classes.PluginClass(found.code.module, found.code.class_name, found.name)]
            return
        async with (
            self._sourced(wish) as (request, source),
            self._store.using(await asyncio.to_thread(request), progress) as environment,
        ):
            yield environment, await asyncio.to_thread(self._describer.classes, environment, source)
        if environment.is_new:
            # An author tries a hundred states of his project; nobody would ask for their environments again.
            with contextlib.suppress(errors.ConflictError):
                await asyncio.to_thread(self._store.remove, environment.hash, unless=self._is_named)

    @contextlib.asynccontextmanager
    async def pinned(
        self,
        name: str,
        request: provisioning.EnvironmentRequest,
        *,
        stall_s: float,
        progress: provisioning.Progress = provisioning.silent,
    ) -> AsyncIterator[tuple[environments.Environment, manifest.Manifest]]:
        """Make the environment of pinned wheels and try the plugin in it; no registry hears of it.

        Args:
            name: What the plugin is called.
            request: With its wheels.
            stall_s: Seconds that its import may take.
            progress: Told each step.

        Yields:
            The environment, held until the block ends, and what the plugin in it is.

        Raises:
            NodeError: As `add`.
            PluginError: As `add`.
            TimeoutError: Its import took too long.
        """
        wish = Wish(source=request.origin, name=name)
        async with self._store.using(request, progress) as environment:
            source = Source("wheel", request.origin, name=environment.local_name)
            async with asyncio.timeout(stall_s):
                found = await self._describer.manifests(environment, wish, source, progress)
            # What a document pins is renewed by a document alone.
            yield environment, replace(found[0], runtime=replace(found[0].runtime, requested={}))

    async def own(self, name: str, module: str, class_name: str | None) -> manifest.Manifest:
        """Return what a plugin is that lies in the node's own Python; no registry hears of it."""
        return await self._describer.own(name, module, class_name)

    async def regenerate(self, name: str) -> manifest.Manifest:
        """Ask the code again what it is and rewrite that part of the manifest; the environment stays."""
        self._registry.check_free(name)
        old = await asyncio.to_thread(self._registry.get, name)
        with self._store.hold(old.runtime.environment) as environment:
            told = await self._describe(environment, old.code.module, old.code.class_name)
        fresh = manifest.regenerated(old, told, at=clocks.rfc3339(self._clock.now()))
        await asyncio.to_thread(self._registry.write, fresh)
        return fresh

    def remove(self, name: str, *, keep_environment: bool = False) -> bool:
        """Remove a plugin, and its environment when nothing else uses it; False when there is no such plugin.

        Raises:
            ConflictError: It comes from a directory that toft does not manage.
        """
        found = self._registry.find_name(name)
        removed = self._registry.remove(name)
        digest = found.manifest.runtime.environment if found else ""
        if removed and digest and not keep_environment:
            # Held by a worker that still runs: it goes with the next collection.
            with contextlib.suppress(errors.ConflictError):
                self._store.remove(digest, unless=self._is_named)
        return removed

    def collect(self) -> tuple[environments.Environment, ...]:
        """Remove every environment that no manifest names and no worker runs from; return them."""
        self.artifacts.collect(self.is_installed_from)
        return self._store.gc(self._is_named)

    def remove_environment(self, digest: str) -> environments.Environment:
        """Remove an environment that nothing uses; see `Installed.remove_environment`."""
        found = self._store.get(digest)
        if not self._store.remove(digest, unless=self._is_named):
            raise errors.ConflictError(
                f"environment {digest} is in use: a plugin runs in it",
                code="environment.in_use",
                hint="toft plugin remove takes a plugin away with its environment",
            )
        return found

    async def size(
        self, wish: Wish, progress: provisioning.Progress = provisioning.silent
    ) -> provisioning.SizeEstimate:
        """Say what installing would take, without installing."""
        async with self._sourced(wish) as (request, _):
            return await self._store.size(await asyncio.to_thread(request), progress)

    async def check(self, name: str) -> list[Finding]:
        """Look whether a plugin can still run: its environment, its interpreter, its class, its drift."""
        found = await asyncio.to_thread(self._registry.get, name)
        digest = found.runtime.environment
        environment = await asyncio.to_thread(self._store.find, digest)
        if environment is None:
            evidence = f"there is no environment {digest}" if digest else "it was not installed by toft"
            return [Finding("environment", False, evidence, f"toft plugin refresh {name}")]
        findings = [Finding("environment", True, str(environment.path))]
        try:
            with self._store.hold(digest) as held:
                told = await self._describe(held, found.code.module, found.code.class_name)
        except (errors.NodeError, toft_sdk.errors.PluginError) as error:
            return [*findings, Finding("import", False, str(error), f"toft plugin logs {name}")]
        findings.append(Finding("import", True, f"{found.code.module}:{found.code.class_name}"))
        same = manifest.schema_hash(told.get("config_schema")) == found.config_schema_hash
        evidence = "the configuration schema is " + (
            "as in the manifest" if same else "no longer the manifest's"
        )
        findings.append(Finding("drift", same, evidence, "" if same else f"toft plugin regenerate {name}"))
        return findings

    async def _install(
        self,
        request: provisioning.EnvironmentRequest,
        describe: Callable[[environments.Environment], Awaitable[list[manifest.Manifest]]],
        progress: provisioning.Progress,
    ) -> list[manifest.Manifest]:
        fresh: str | None = None
        await asyncio.to_thread(self._registry.sweep)
        try:
            async with self._store.using(request, progress) as environment:
                fresh = environment.hash if environment.is_new else None
                found = await describe(environment)
                # To its end: a cancellation must not fall between two manifests of one source, and until it
                # is known whether they are written nobody knows whether the environment is needed.
                await threads.finished(lambda: self._write(found))
                return found
        except BaseException:
            if (made := fresh) is not None:
                with contextlib.suppress(errors.ConflictError):
                    await threads.finished(lambda: self._store.remove(made, unless=self._is_named))
            raise

    def _refuse_taken(self, new: manifest.Manifest, force: bool) -> None:
        self._registry.check_free(new.name)
        found = self._registry.find_name(new.name)
        if found is None or force or found.manifest.runtime.source == new.runtime.source:
            return
        raise errors.ConflictError(
            f"a plugin called {new.name} is installed already, from {found.manifest.install.package_source}",
            code="plugin.exists",
            details={"name": new.name, "path": str(found.path)},
            hint="give this one another name with --name, or replace the other with --force",
        )

    def _write(self, found: Sequence[manifest.Manifest]) -> None:
        before = {each.name: self._registry.find_name(each.name) for each in found}
        written: list[str] = []
        try:
            for each in found:
                self._registry.write(each)
                written.append(each.name)
        except errors.NodeError:
            for name in written:
                old = before[name]
                if old is not None and old.is_managed:
                    self._registry.write(old.manifest)
                else:
                    self._registry.remove(name)
            raise

    @contextlib.asynccontextmanager
    async def _sourced(
        self, wish: Wish
    ) -> AsyncIterator[tuple[Callable[[], provisioning.EnvironmentRequest], Source]]:
        """Find what a wish is for: its source, and what makes the request for it, which reads files."""
        async with self.artifacts.placed(wish) as (placed, directory):
            source = await asyncio.to_thread(Source.parse, placed.source, directory=directory)
            if placed.source != wish.source:
                # Where it lies now is nobody's matter.
                source = replace(source, text=wish.origin or wish.source)
            yield lambda: _request(placed, source, directory), source

    def _wish(self, found: manifest.Manifest) -> Wish:
        if not found.runtime.requested.get("source"):
            raise errors.ConflictError(
                f"{found.name} was not installed by toft, so nobody knows from what",
                code="plugin.not_managed",
                hint=f"toft plugin add SOURCE --name {found.name} --force",
            )
        return Wish.remembered(found.runtime.requested)

    def is_installed_from(self, digest: str) -> bool:
        """Say whether refreshing a plugin takes an uploaded file; blocks."""
        looked = self._registry.discover()
        if any(digest in str(each.manifest.runtime.requested) for each in looked.found):
            return True
        return any(digest in _text_of(each.path) for each in looked.problems)

    def _is_named(self, digest: str) -> bool:
        if self._is_pinned(digest):
            return True
        looked = self._registry.discover()
        if any(each.manifest.runtime.environment == digest for each in looked.found):
            return True
        # A manifest that cannot be read still keeps its environment: it may be mended.
        return any(digest in _text_of(each.path) for each in looked.problems)


def _request(wish: Wish, source: Source, directory: Path | None) -> provisioning.EnvironmentRequest:
    if source.kind == "plugins_file":
        raise environment_errors.SourceError(f"{source.text} is a list of plugins, not one of them")
    requirements = wish.requirements
    if source.kind == "requirement" and source.requirement:
        requirements = (source.requirement, *requirements)
    return provisioning.EnvironmentRequest(
        requirements=requirements,
        lock=_read_lock(wish.lock) if wish.lock else None,
        local_project=source.path,
        vcs=source.requirement if source.kind == "vcs" else None,
        extras=source.extras,
        python=wish.python,
        env_file=wish.env_file,
        offline=wish.offline,
        origin=source.text,
        directory=directory,
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def _read_lock(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(_MOST_LOCK + 1)
        if len(data) > _MOST_LOCK:
            raise ValueError(f"it is larger than {_MOST_LOCK} bytes")
        return data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise environment_errors.SourceError(f"the lock {path} cannot be read: {error}") from error


__all__ = ["Describe", "Installer", "Wish"]
