"""The uv provisioner: requirements, a lock, a project directory or a wheel become a virtual environment.

Resolve to a lock with hashes, make the environment, install exactly that lock by copying. Copying, because
uv's hard links make one file of the cache's, of this environment's and of every other one's: a plugin that
appends to its own package would change its neighbours.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import uv
from packaging.utils import parse_wheel_filename

from toft.host import commands
from toft.kernel import errors
from toft.kernel.quantities import counted
from toft.plugins.environments import (
    checkouts,
    environment_errors,
    interpreters,
    lock_texts,
    projects,
    single_files,
    uv_errors,
)
from toft.plugins.environments.provisioning import (
    EnvironmentRequest,
    Installed,
    Progress,
    Resolution,
    SizeEstimate,
)
from toft.plugins.environments.sources import Source
from toft.plugins.environments.tool_environment import scrubbed, trusted

# Wheels made twice from one source must be one wheel, so that equal plugins share an environment.
_BUILD_EPOCH = "1577836800"
# Compiled files that do not say when their sources were written, nor depend on the order of a set.
_REPEATABLE = {"PYC_INVALIDATION_MODE": "UNCHECKED_HASH", "PYTHONHASHSEED": "0"}


@dataclass(frozen=True, kw_only=True)
class UvOptions:
    """Settings of the uv provisioner.

    Attributes:
        offline: Use the cache and the wheelhouses only.
        wheelhouses: Directories with wheels, looked in beside the index.
        allow_downloads: Let uv download an interpreter when none fits.
        timeout_s: Seconds one uv command may take.
        executable: The uv to run; None for the one toft depends on.
    """

    offline: bool = False
    wheelhouses: tuple[Path, ...] = ()
    allow_downloads: bool = False
    timeout_s: float = 3600.0
    executable: str | None = None


@dataclass(frozen=True)
class Locked:
    """Requirements that came down to exact files.

    Attributes:
        interpreter: What they were locked for.
        requirements_file: What uv installs from.
        offline: Install without the network too.
        wheels: Those of local projects.
        portable: The lock as text that does not depend on this machine's paths.
        local_name: Name of the distribution the request's own project turned out to be.
        house: A directory with every wheel of it; nothing else is looked at then.
    """

    interpreter: interpreters.Interpreter
    requirements_file: Path
    offline: bool
    wheels: tuple[Path, ...]
    portable: str
    local_name: str | None
    house: Path | None = None


class UvProvisioner:
    """Makes environments with uv.

    Args:
        found: The Pythons of this machine.
        options: Settings.
        environ: What uv may see, scrubbed.
        run: Runs uv, and with it the build code of packages: confined, where the machine allows it.
    """

    kind = "uv"

    def __init__(
        self,
        found: interpreters.Interpreters,
        options: UvOptions | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        run: commands.Run = commands.run,
    ) -> None:
        self._run = run
        self._cache: Path | None = None
        self._interpreters = found
        self._options = options or UvOptions()
        self._environ = os.environ if environ is None else environ

    def accepts(self, request: EnvironmentRequest) -> bool:
        """Take everything but an `environment.yml`."""
        return request.env_file is None

    async def resolve(self, request: EnvironmentRequest, work: Path, progress: Progress) -> Resolution:
        """Choose the interpreter, build the local project, and lock every package with its hash."""
        if request.vcs:
            project = await self._fetch(request.vcs, work, self._is_offline(request), progress)
            request = replace(request, local_project=project, vcs=None)
        requires = None
        if request.local_project:
            requires = await asyncio.to_thread(projects.requires_python, request.local_project)
        interpreter = await self._interpreters.find(request.python, requires)
        locked = await self.lock(request, interpreter, work, progress)
        return Resolution(
            kind=self.kind,
            identity=interpreter.identity(),
            lock=locked.portable,
            installable=locked,
            local_name=locked.local_name,
        )

    async def install(
        self, resolution: Resolution, prefix: Path, *, work: Path, keep_fds: Sequence[int], progress: Progress
    ) -> Installed:
        """Make the virtual environment and copy the locked packages into it."""
        locked: Locked = resolution.installable
        await self._uv(
            ("venv", "--no-project", "--python", locked.interpreter.path, "--allow-existing", str(prefix)),
            "making the environment",
            work,
            prefix,
            keep_fds=keep_fds,
        )
        python = str(prefix / "bin" / "python")
        count = len(resolution.lock.splitlines())
        if count:
            progress(f"installing {counted(count, 'package')}")
            await self.install_locked(python, locked, prefix, work, keep_fds=keep_fds)
        await asyncio.to_thread(_trim, prefix)
        return Installed(
            python=python,
            python_version=locked.interpreter.version,
            cache_tag=locked.interpreter.cache_tag,
            packages=await asyncio.to_thread(projects.installed_packages, prefix),
        )

    async def estimate(self, resolution: Resolution, work: Path) -> SizeEstimate:
        """Ask the index, through uv, how large each file of the lock is."""
        sizes = await self.sizes(resolution.installable, work)
        known = [size for size in sizes.values() if size is not None]
        return SizeEstimate(download_bytes=sum(known), installed_bytes=None, packages=sizes)

    async def lock(
        self,
        request: EnvironmentRequest,
        interpreter: interpreters.Interpreter,
        work: Path,
        progress: Progress,
    ) -> Locked:
        """Lock what a request wants for an interpreter; projects and checkouts become wheels first."""
        offline = self._is_offline(request)
        project = request.local_project
        if request.vcs:
            project = await self._fetch(request.vcs, work, offline, progress)
        wheel = await self.wheel(project, work, interpreter, offline, progress) if project else None
        wanted, wheels = await self._wanted(request, work, interpreter, offline, progress)
        if wheel:
            wheels.append(wheel)
            wanted.append(lock_texts.wheel_requirement(wheel, request.extras))
        file = work / "lock.txt"
        if request.lock is not None:
            # A lock of megabytes takes so long that nothing else would be answered.
            await asyncio.to_thread(lock_texts.write_checked, request.lock, wheels, file)
        else:
            progress(f"resolving for Python {interpreter.version}")
            await self._compile(wanted, file, interpreter, offline, request.upgrade, work)
        portable = await asyncio.to_thread(lambda: lock_texts.portable(file.read_text(), wheels))
        name = str(parse_wheel_filename(wheel.name)[0]) if wheel else None
        return Locked(interpreter, file, offline, tuple(wheels), portable, name)

    async def install_locked(
        self, python: str, locked: Locked, prefix: Path, work: Path, *, keep_fds: Sequence[int] = ()
    ) -> None:
        """Install a lock into the environment of an interpreter, by copying, compiled."""
        try:
            await self._uv(
                (
                    *("pip", "install", "--python", python, "--require-hashes", "--no-deps"),
                    *("--link-mode", "copy", "--compile-bytecode", "--break-system-packages"),
                    *("-r", str(locked.requirements_file), *self._where(locked.offline, locked.house)),
                ),
                "installing",
                work,
                prefix,
                keep_fds=keep_fds,
                extra_env=_REPEATABLE if locked.house else None,
            )
        except environment_errors.DiskFullError as error:
            error.details["needed_bytes"] = await self._needed(locked, work)
            raise

    async def sizes(self, locked: Locked, work: Path) -> dict[str, int | None]:
        """Return the download size of each package of a lock; None where nobody says it."""
        output = work / "pylock.toml"
        sizes: dict[str, int | None] = {}
        if locked.portable:
            await self._uv(
                (
                    *("pip", "compile", str(locked.requirements_file), "--format", "pylock.toml"),
                    *("--no-deps", "--python", locked.interpreter.path, "-o", str(output)),
                    *self._where(locked.offline),
                ),
                "asking for sizes",
                work,
                work,
            )
            sizes = await asyncio.to_thread(projects.locked_sizes, output, locked.interpreter)
        for wheel in locked.wheels:
            size = await asyncio.to_thread(wheel.stat)
            sizes[str(parse_wheel_filename(wheel.name)[0])] = size.st_size
        return sizes

    async def _needed(self, locked: Locked, work: Path) -> int | None:
        """Return what the downloads alone take, as the least that is needed; None when nobody says."""
        try:
            sizes = await self.sizes(locked, work)
        except (errors.NodeError, OSError):
            return None
        return sum(size for size in sizes.values() if size is not None) or None

    def _is_offline(self, request: EnvironmentRequest) -> bool:
        return self._options.offline if request.offline is None else request.offline

    async def wheel(
        self,
        source: Path,
        work: Path,
        interpreter: interpreters.Interpreter,
        offline: bool,
        progress: Progress,
    ) -> Path:
        """Return a wheel of a project; the project's own directory is only read."""
        target = Path(tempfile.mkdtemp(prefix="wheel-", dir=work))
        if source.suffix == ".py":
            return await asyncio.to_thread(single_files.write_wheel, source, target)
        if source.suffix == ".whl":
            return Path(await asyncio.to_thread(shutil.copy, source, target))
        progress(f"building a wheel of {source.name}")
        copy = Path(tempfile.mkdtemp(prefix="project-", dir=work)) / source.name
        await asyncio.to_thread(projects.copy_project, source, copy)
        await self._uv(
            (
                *("build", "--wheel", "--out-dir", str(target), "--python", interpreter.path),
                *("--no-create-gitignore", str(copy), *self._where(offline)),
            ),
            f"building a wheel of {source}",
            work,
            work,
            extra_env={"SOURCE_DATE_EPOCH": _BUILD_EPOCH},
        )
        return Path(await asyncio.to_thread(lambda: next(iter(target.glob("*.whl")))))

    async def _wanted(
        self,
        request: EnvironmentRequest,
        work: Path,
        interpreter: interpreters.Interpreter,
        offline: bool,
        progress: Progress,
    ) -> tuple[list[str], list[Path]]:
        """Return requirements as uv can lock them: what is a project or a checkout becomes a wheel first."""
        wanted, wheels = [], []
        for text in request.requirements:
            source = await asyncio.to_thread(Source.parse, text, directory=request.directory)
            path = source.path
            if source.kind == "vcs" and source.requirement:
                path = await self._fetch(source.requirement, work, offline, progress)
            if path is None:
                wanted.append(text)
                continue
            wheel = await self.wheel(path, work, interpreter, offline, progress)
            wheels.append(wheel)
            wanted.append(lock_texts.wheel_requirement(wheel, source.extras))
        return wanted, wheels

    async def _fetch(self, address: str, work: Path, offline: bool, progress: Progress) -> Path:
        progress("fetching the project")
        target = Path(tempfile.mkdtemp(prefix="checkout-", dir=work)) / "project"
        return await checkouts.fetch(
            address, target, environ=self._environ, timeout_s=self._options.timeout_s, offline=offline
        )

    async def _compile(
        self,
        wanted: Sequence[str],
        output: Path,
        interpreter: interpreters.Interpreter,
        offline: bool,
        upgrade: bool,
        work: Path,
    ) -> None:
        source, excluded = work / "requirements.in", work / "excluded.txt"
        await asyncio.to_thread(source.write_text, "".join(f"{line}\n" for line in wanted))
        await asyncio.to_thread(excluded.write_text, f"{lock_texts.INJECTED}\n")
        await self._uv(
            (
                *("pip", "compile", str(source), "-o", str(output), "--python", interpreter.path),
                *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"),
                *("--no-emit-find-links", "--excludes", str(excluded), *self._where(offline)),
                *(("--upgrade", "--refresh") if upgrade and not offline else ()),
            ),
            "the requirements cannot be resolved",
            work,
            work,
        )

    def _where(self, offline: bool, house: Path | None = None) -> tuple[str, ...]:
        if house is not None:
            return (
                "--no-config",
                "--no-index",
                "--only-binary",
                ":all:",
                "--find-links",
                str(house),
                "--offline",
            )
        houses = [part for house in self._options.wheelhouses for part in ("--find-links", str(house))]
        return (*houses, *(("--offline",) if offline else ()))

    async def _uv(
        self,
        arguments: Sequence[str],
        step: str,
        work: Path,
        disk: Path,
        *,
        keep_fds: Sequence[int] = (),
        extra_env: Mapping[str, str] | None = None,
    ) -> commands.Completed:
        downloads = "automatic" if self._options.allow_downloads else "never"
        env = {
            # Before what the person set: a build may write neither the machine's /tmp nor cargo's home.
            "CARGO_HOME": str(work / "cargo"),
            **trusted(),
            **scrubbed(self._environ),
            "TMPDIR": str(work),
            "UV_PYTHON_DOWNLOADS": downloads,
            "UV_NO_PROGRESS": "1",
            "UV_COLOR": "never",
            "NO_COLOR": "1",
            **(extra_env or {}),
        }
        executable = self._options.executable or uv.find_uv_bin()
        if self._cache is None:
            told = await commands.run((executable, "cache", "dir"), env=env, cwd=work, timeout_s=60)
            self._cache = Path(told.stdout.strip() or work / "uv-cache")
            await asyncio.to_thread(self._cache.mkdir, parents=True, exist_ok=True)
        result = await self._run(
            (executable, *arguments),
            env=env,
            cwd=work,
            timeout_s=self._options.timeout_s,
            keep_fds=keep_fds,
            writable=tuple({work, disk, self._cache}),
        )
        if result.code != 0:
            raise uv_errors.explain(result, step, disk)
        return result


def _trim(prefix: Path) -> None:
    """Take away what nobody uses here and what would slow every start of the interpreter."""
    for name in ("activate", "activate.bat", "activate.csh", "activate.fish", "activate.nu", "activate.ps1"):
        (prefix / "bin" / name).unlink(missing_ok=True)
    for name in ("activate.xsh", "activate_this.py", "deactivate.bat", "pydoc.bat"):
        (prefix / "bin" / name).unlink(missing_ok=True)
    for hook in prefix.glob("lib/python*/site-packages/_virtualenv.*"):
        hook.unlink()
