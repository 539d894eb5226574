"""Finds out what the plugins of an environment are, by asking each of them; no registry hears of it."""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import toft_sdk.errors
from toft.kernel import clock as clocks
from toft.kernel import errors, ids
from toft.kernel.version import VERSION
from toft.plugins.environments import environment_errors, environments, plugin_classes, projects, provisioning
from toft.plugins.environments.sources import Source
from toft.plugins.environments.wishes import Wish
from toft.plugins.manifests import manifest
from toft.plugins.supervision import orders

Describe = Callable[[orders.Interpreter, str, str | None], Awaitable[Mapping[str, Any]]]


class Describer:
    """Makes the manifests of plugins out of what they say of themselves.

    Args:
        ask: Asks a worker, in the environment and the sandbox, what a class is.
        clock: For the dates in manifests.
    """

    def __init__(self, ask: Describe, clock: clocks.Clock) -> None:
        self._ask = ask
        self._clock = clock

    async def manifests(
        self,
        environment: environments.Environment,
        wish: Wish,
        source: Source,
        progress: provisioning.Progress,
        *,
        only: manifest.Manifest | None = None,
    ) -> list[manifest.Manifest]:
        """Return what the plugins of a source are, which was installed into an environment.

        Args:
            environment: Where they are, held.
            wish: How they are to be called and run.
            source: What they came from.
            progress: Told each step.
            only: The plugin that is looked for; all of them when None.

        Raises:
            SourceError: There is none, or not the one that is wanted.
            ConflictError: Two have one name.
            PluginError: One could not be imported or described.
        """
        classes = await asyncio.to_thread(self.classes, environment, source)
        if only is not None:
            classes = _the_same(classes, only)
        if wish.name and only is None and len(classes) > 1:
            classes = _the_named(classes, wish.name)
        found = []
        for each in classes:
            progress(f"asking {each.module} what it is")
            told = dict(await self._ask(environment, each.module, each.class_name))
            told["name"] = ids.check_name(wish.name or each.name or str(told.get("name")), "plugin name")
            found.append(self._manifest(told, environment, wish, source))
        names = [each.name for each in found]
        if len(set(names)) < len(names):
            raise errors.ConflictError(
                f"{source.text} has two plugins of one name: {', '.join(names)}", code="plugin.exists"
            )
        return found

    def classes(
        self, environment: environments.Environment, source: Source
    ) -> list[plugin_classes.PluginClass]:
        """Return the plugin classes of what a source installed; blocks."""
        wanted = environment.local_name or source.name
        for distribution in projects.distributions(environment.prefix):
            if distribution.name == wanted:
                return plugin_classes.find(distribution)
        raise environment_errors.SourceError(
            f"{source.text} did not install a distribution called {wanted}", code="source.no_plugin"
        )

    async def own(self, name: str, module: str, class_name: str | None) -> manifest.Manifest:
        """Return what a plugin is that lies in the node's own Python."""
        version = platform.python_version()
        interpreter = orders.ForeignEnvironment.of(sys.executable, version)
        told = {**await self._ask(interpreter, module, class_name), "name": name}
        install = manifest.Install(python_path=sys.executable, package_source="toft")
        runtime = manifest.Runtime(source="toft", python_version=version, sdk_version=toft_sdk.__version__)
        return manifest.from_description(told, install, runtime)

    def _manifest(
        self, told: Mapping[str, Any], environment: environments.Environment, wish: Wish, source: Source
    ) -> manifest.Manifest:
        install = manifest.Install(
            python_path=environment.python,
            conda_env=wish.env_name,
            env_vars=dict(wish.env_vars),
            installed_at=clocks.rfc3339(self._clock.now()),
            installer_version=VERSION,
            package_source=source.text,
        )
        runtime = manifest.Runtime(
            environment=environment.hash,
            environment_kind=environment.kind,
            source=source.text,
            requested=wish.kept(source),
            lock=environment.lock,
            python_version=environment.python_version,
            sdk_version=toft_sdk.__version__,
        )
        return manifest.from_description(told, install, runtime)


def _the_same(
    classes: list[plugin_classes.PluginClass], old: manifest.Manifest
) -> list[plugin_classes.PluginClass]:
    exact = [
        each for each in classes if (each.module, each.class_name) == (old.code.module, old.code.class_name)
    ]
    if not exact and len(classes) > 1:
        raise environment_errors.SourceError(
            f"{old.name} was {old.code.module}:{old.code.class_name}, which is no longer there",
            code="source.no_plugin",
        )
    return exact or classes


def _the_named(classes: list[plugin_classes.PluginClass], name: str) -> list[plugin_classes.PluginClass]:
    named = [each for each in classes if name in (each.name, each.class_name)]
    if len(named) != 1:
        listed = ", ".join(each.name or f"{each.module}:{each.class_name}" for each in classes)
        raise environment_errors.SourceError(
            f"there are {len(classes)} plugins in it, so --name must be one of theirs: {listed}",
            code="source.several_plugins",
        )
    return named
