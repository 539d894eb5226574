"""Adds what a `plugins.yaml` lists, one after the other; what cannot be had harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import toft_sdk.errors
from toft.kernel import errors
from toft.plugins.environments import provisioning
from toft.plugins.environments.wishes import Wish
from toft.plugins.manifests import manifest, plugins_yaml


async def add(
    path: Path,
    wish: Wish,
    add_one: Callable[[Wish], Awaitable[Sequence[manifest.Manifest]]],
    progress: provisioning.Progress,
) -> list[manifest.Manifest]:
    """Add every plugin of a list.

    Args:
        path: The list.
        wish: What holds for each of them.
        add_one: Adds one.
        progress: Told each step.

    Raises:
        NodeError: Some could not be added (`plugin.partly_added`); what the only one says for itself.
        PluginError: As above.
    """
    found = await asyncio.to_thread(plugins_yaml.read, path)
    for note in found.notes:
        progress(note)
    installed: list[manifest.Manifest] = []
    failed: dict[str, errors.NodeError | toft_sdk.errors.PluginError] = {}
    for each in found.plugins:
        progress(f"{each.name}: {each.package}")
        try:
            installed += await add_one(_wish(each, wish))
        except (errors.NodeError, toft_sdk.errors.PluginError) as error:
            # It can be run again.
            failed[each.name] = error
    if failed:
        raise _partly(installed, failed, path)
    return installed


def _wish(listed: plugins_yaml.Listed, wish: Wish) -> Wish:
    return Wish(
        source=listed.package,
        name=listed.name,
        python=wish.python or listed.python_version,
        requirements=(*listed.interface_libs, *listed.requirements, *wish.requirements),
        env_file=listed.env_file,
        offline=wish.offline,
        env_vars=dict(listed.env_vars or {}),
        env_name=listed.env_name,
    )


def _partly(
    installed: Sequence[manifest.Manifest],
    failed: Mapping[str, errors.NodeError | toft_sdk.errors.PluginError],
    path: Path,
) -> errors.NodeError | toft_sdk.errors.PluginError:
    """Make one error of several; the only one of a list speaks for itself."""
    first = next(iter(failed.values()))
    if len(failed) == 1 and not installed:
        return first
    return errors.NodeError(
        f"{len(failed)} of {len(failed) + len(installed)} plugins were not added: {', '.join(failed)}",
        code="plugin.partly_added",
        blame=first.blame,
        details={
            "added": [each.name for each in installed],
            "failed": {name: f"{error.code}: {error.message}" for name, error in failed.items()},
        },
        hint=f"the others are installed; mend these and run it again: toft plugin add {path}",
    )
