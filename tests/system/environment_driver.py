"""Builds one environment in a process of its own, and may kill itself with SIGKILL at the n-th step of it.

    python environment_driver.py HOME WHEELHOUSE REQUIREMENT STEP

A requirement that is an absolute path is installed as a plugin. Step 0 never kills.
Every step it passes is printed with its number.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from toft.plugins import install
from toft.plugins.artifacts import Artifacts
from toft.plugins.environments import environments, interpreters, provisioning, sdk, uv_environments
from toft.plugins.manifests import registry
from toft.store import durable


class Steps:
    def __init__(self, deadly: int) -> None:
        self.deadly = deadly
        self.passed = 0

    def step(self, what: str) -> None:
        self.passed += 1
        sys.stdout.write(f"{self.passed} {what}\n")
        sys.stdout.flush()
        if self.passed == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)


class DeadlyOperations(durable.SystemOperations):
    """Stops before and after each operation that a commit or a removal is made of."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def write(self, path: str, data: bytes, mode: int) -> None:
        self._steps.step("before write")
        super().write(path, data, mode)
        self._steps.step("after write")

    def rename(self, source: str, target: str) -> None:
        self._steps.step("before rename")
        super().rename(source, target)
        self._steps.step("after rename")

    def sync_directory(self, path: str) -> None:
        self._steps.step("before sync")
        super().sync_directory(path)


async def described(
    environment: environments.Environment, module: str, class_name: str | None
) -> dict[str, object]:
    """Answer as a worker would, without one: what is asked here is only what a crash leaves."""
    return {"name": "hello", "version": "1", "module": module, "class": class_name, "actions": {}}


async def main() -> None:
    home, wheelhouse, requirement, deadly = sys.argv[1:]
    steps = Steps(int(deadly))
    options = uv_environments.UvOptions(offline=True, wheelhouses=(Path(wheelhouse),))
    uv = uv_environments.UvProvisioner(interpreters.Interpreters(), options)
    copy = sdk.SdkCopy(Path(home))

    async def prepare(python: str, cache_tag: str) -> None:
        steps.step("before preparing")
        await copy.prepare(python, cache_tag)
        steps.step("after preparing")

    store = environments.Environments(Path(home), [uv], prepare=prepare, operations=DeadlyOperations(steps))
    request = provisioning.EnvironmentRequest(requirements=(requirement,))
    if requirement.startswith("/"):
        found = registry.Registry(Path(home), operations=DeadlyOperations(steps))
        installer = install.Installer(found, store, described, artifacts=Artifacts(Path(home)))
        [installed] = await installer.add(install.Wish(source=requirement), progress=steps.step)
        sys.stdout.write(f"hash {installed.runtime.environment} added\n")
        return
    environment = await store.build(request, steps.step)
    sys.stdout.write(f"hash {environment.hash} {environment.is_new}\n")


asyncio.run(main())
