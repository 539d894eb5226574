"""The conda provisioner: an `environment.yml` becomes a prefix; uv adds its `pip:` section and the plugin.

The lock is the exact list of packages with their hashes. Conda packages write the prefix into their files,
which is why every environment is built under the name it keeps.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from toft.host import commands
from toft.plugins.environments import (
    conda_files,
    conda_tools,
    elsewhere,
    environment_errors,
    interpreters,
    projects,
)
from toft.plugins.environments.provisioning import (
    EnvironmentRequest,
    Installed,
    Progress,
    Resolution,
    SizeEstimate,
)
from toft.plugins.environments.tool_environment import scrubbed
from toft.plugins.environments.uv_environments import Locked, UvProvisioner

_COMPILE_S = 600.0


@dataclass(frozen=True, kw_only=True)
class CondaOptions:
    """Settings of the conda provisioner.

    Attributes:
        tool: `auto`, `rattler`, `micromamba`, `mamba`, `conda` or `pixi`.
        prefix: Where a project-local micromamba lives (`bin/micromamba` below it).
        offline: Use what is cached, and `file:` channels, only.
        timeout_s: Seconds one command may take.
    """

    tool: str = "auto"
    prefix: Path | None = None
    offline: bool = False
    timeout_s: float = 3600.0


@dataclass(frozen=True)
class _Plan:
    tool: conda_tools.CondaTool
    solution: conda_tools.Solution
    pip: Locked | None
    offline: bool


class CondaProvisioner:
    """Makes environments from `environment.yml`.

    Args:
        uv: Installs the `pip:` section, and the plugin itself.
        options: Settings.
        environ: What the tools may see, scrubbed.
        run: Runs what a channel brought, such as its Python: confined, where the machine allows it.
    """

    kind = "conda"

    def __init__(
        self,
        uv: UvProvisioner,
        options: CondaOptions | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        run: commands.Run = commands.run,
    ) -> None:
        self._run = run
        self._uv = uv
        self._options = options or CondaOptions()
        self._environ = os.environ if environ is None else environ

    def accepts(self, request: EnvironmentRequest) -> bool:
        """Take what names an `environment.yml`."""
        return request.env_file is not None

    async def resolve(self, request: EnvironmentRequest, work: Path, progress: Progress) -> Resolution:
        """Solve the conda part, then lock the rest for the Python that came out of it."""
        offline = self._options.offline if request.offline is None else request.offline
        wanted = await asyncio.to_thread(
            conda_files.read, str(request.env_file), python=request.python, offline=offline
        )
        if request.directory is not None:
            elsewhere.check_environment(wanted)
        tool = conda_tools.choose(
            self._options.tool,
            prefix=self._options.prefix,
            environ=self._environ,
            timeout_s=self._options.timeout_s,
        )
        progress(f"solving {len(wanted.specs)} packages with {tool.name}")
        solution = await tool.solve(wanted, work, offline=offline)
        rest = replace(request, requirements=(*wanted.requirements, *request.requirements), python=None)
        pip = None
        if rest.requirements or rest.local_project or rest.vcs or rest.lock:
            pip = await self._lock_rest(tool, solution, rest, work, offline, progress)
        lines = sorted(package.line() for package in solution.packages)
        return Resolution(
            kind=self.kind,
            identity={"platform": conda_tools.subdir()},
            lock="".join(f"{line}\n" for line in lines) + (pip.portable if pip else ""),
            installable=_Plan(tool, solution, pip, offline),
            local_name=pip.local_name if pip else None,
        )

    async def install(
        self, resolution: Resolution, prefix: Path, *, work: Path, keep_fds: Sequence[int], progress: Progress
    ) -> Installed:
        """Install the prefix, compare it with the lock, then put the rest in."""
        plan: _Plan = resolution.installable
        progress(f"installing {len(plan.solution.packages)} packages with {plan.tool.name}")
        await asyncio.to_thread(_check_local, plan.solution.packages)
        root = await plan.tool.install(plan.solution, prefix, work, offline=plan.offline, keep_fds=keep_fds)
        found = await asyncio.to_thread(conda_tools.installed, root)
        _compare(plan.solution.packages, found)
        interpreter = await self._interpreter(root)
        python = str(root / "bin" / "python")
        if plan.pip:
            progress("installing the rest with uv")
            await self._uv.install_locked(python, plan.pip, prefix, work, keep_fds=keep_fds)
        await self._compile(python, root, interpreter, work, keep_fds)
        packages = {name: package.version for name, package in found.items()}
        packages.update(await asyncio.to_thread(projects.installed_packages, root))
        return Installed(
            python=python,
            python_version=interpreter.version,
            cache_tag=interpreter.cache_tag,
            packages=packages,
        )

    async def estimate(self, resolution: Resolution, work: Path) -> SizeEstimate:
        """Add up what the solver knows, and what uv knows of the rest."""
        plan: _Plan = resolution.installable
        packages: dict[str, int | None] = {each.name: each.size for each in plan.solution.packages}
        if plan.pip:
            packages.update(await self._uv.sizes(plan.pip, work))
        known = [size for size in packages.values() if size is not None]
        return SizeEstimate(download_bytes=sum(known), installed_bytes=None, packages=packages)

    async def _lock_rest(
        self,
        tool: conda_tools.CondaTool,
        solution: conda_tools.Solution,
        rest: EnvironmentRequest,
        work: Path,
        offline: bool,
        progress: Progress,
    ) -> Locked:
        # What to lock depends on the Python in the prefix, and only that Python can say what it takes.
        trial = work / "trial"
        await asyncio.to_thread(trial.mkdir)
        root = await tool.install(solution, trial, work, offline=offline, keep_fds=())
        return await self._uv.lock(rest, await self._interpreter(root, in_place=True), work, progress)

    async def _interpreter(self, root: Path, *, in_place: bool = False) -> interpreters.Interpreter:
        path = str(root / "bin" / "python")
        found = await interpreters.probe(path, self._environ, run=self._run, writable=(root,))
        if found is None:
            raise environment_errors.NoInterpreterError(
                "the environment.yml brings no Python that runs here", details={"path": path}
            )
        return replace(found, path=path) if in_place else found

    async def _compile(
        self,
        python: str,
        root: Path,
        interpreter: interpreters.Interpreter,
        work: Path,
        keep_fds: Sequence[int],
    ) -> None:
        # The environment is read-only to workers, so what is not compiled now is compiled at every start.
        # In one process: several need a socket below TMPDIR, whose path may be too long for one.
        short = ".".join(interpreter.version.split(".")[:2])
        library = root / "lib" / f"python{short}"
        await self._run(
            (python, "-I", "-m", "compileall", "-q", str(library)),
            env={**scrubbed(self._environ), "TMPDIR": str(work)},
            cwd=work,
            timeout_s=_COMPILE_S,
            keep_fds=keep_fds,
            writable=(work, root),
        )


def _check_local(locked: Sequence[conda_tools.CondaPackage]) -> None:
    # Tools check what they download; what lies in a directory they take as it is.
    for package in locked:
        url = urlsplit(package.url)
        if url.scheme != "file" or not package.sha256:
            continue
        try:
            with open(unquote(url.path), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise environment_errors.DownloadError(
                f"{package.name} {package.version} is in the channel's index and not there: {error.strerror}"
            ) from error
        if digest != package.sha256:
            raise environment_errors.HashMismatchError(
                f"{package.name} {package.version}: hash mismatch between the channel's index and its file",
                details={"locked": package.line(), "sha256": digest},
            )


def _compare(
    locked: Sequence[conda_tools.CondaPackage], found: Mapping[str, conda_tools.CondaPackage]
) -> None:
    for package in locked:
        there = found.get(package.name)
        same = there is not None and (there.version, there.build) == (package.version, package.build)
        if there is None or not same or (package.sha256 and there.sha256 not in ("", package.sha256)):
            raise environment_errors.HashMismatchError(
                f"{package.name} {package.version} was locked and something else was installed",
                details={"locked": package.line(), "installed": there.line() if there else None},
            )
