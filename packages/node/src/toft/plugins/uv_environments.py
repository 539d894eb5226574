"""The uv provisioner: requirements, a lock, a project directory or a wheel become a virtual environment.

Resolve to a lock with hashes, make the environment, install exactly that lock by copying. Copying, because
uv's hard links make one file of the cache's, of this environment's and of every other one's: a plugin that
appends to its own package would change its neighbours.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv
from packaging.utils import canonicalize_name, parse_wheel_filename

from toft.host import commands
from toft.kernel import errors
from toft.plugins import checkouts, environment_errors, interpreters, projects, uv_errors
from toft.plugins.provisioning import (
    EnvironmentRequest,
    Installed,
    Progress,
    Resolution,
    SizeEstimate,
)
from toft.plugins.sources import Source
from toft.plugins.tool_environment import scrubbed

# The SDK is handed to every worker by path; an author may name it, but nothing of it is installed.
_INJECTED = ("toft-sdk", "toft_sdk")
_HASH_OPTION = re.compile(r"--hash=(sha\d+:[0-9a-f]+)")
# Wheels made twice from one source must be one wheel, so that equal plugins share an environment.
_BUILD_EPOCH = "1577836800"


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
class _Plan:
    interpreter: interpreters.Interpreter
    requirements_file: Path
    offline: bool
    wheels: tuple[Path, ...]


class UvProvisioner:
    """Makes environments with uv."""

    kind = "uv"

    def __init__(
        self,
        found: interpreters.Interpreters,
        options: UvOptions | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._interpreters = found
        self._options = options or UvOptions()
        self._environ = os.environ if environ is None else environ

    def accepts(self, request: EnvironmentRequest) -> bool:
        """Take everything but an `environment.yml`."""
        return request.env_file is None

    async def resolve(self, request: EnvironmentRequest, work: Path, progress: Progress) -> Resolution:
        """Choose the interpreter, build the local project, and lock every package with its hash."""
        offline = self._options.offline if request.offline is None else request.offline
        project = request.local_project
        if request.vcs:
            project = await self._fetch(request.vcs, work, offline, progress)
        requires = await asyncio.to_thread(projects.requires_python, project) if project else None
        interpreter = await self._interpreters.find(request.python, requires)
        wheel = await self.wheel(project, work, interpreter, offline, progress) if project else None
        wanted, wheels = await self._wanted(request.requirements, work, interpreter, offline, progress)
        if wheel:
            wheels.append(wheel)
            wanted.append(_wheel_requirement(wheel, request.extras))
        lock_file = work / "lock.txt"
        if request.lock is not None:
            lines = _checked_lock(request.lock) + "".join(map(_wheel_lines, wheels))
            await asyncio.to_thread(lock_file.write_text, lines)
        else:
            progress(f"resolving for Python {interpreter.version}")
            await self._compile(wanted, lock_file, interpreter, offline, request.upgrade, work)
        text = await asyncio.to_thread(lock_file.read_text)
        return Resolution(
            kind=self.kind,
            identity=interpreter.identity(),
            lock=_portable(text, wheels),
            installable=_Plan(interpreter, lock_file, offline, tuple(wheels)),
            local_name=parse_wheel_filename(wheel.name)[0] if wheel else None,
        )

    async def install(
        self, resolution: Resolution, prefix: Path, *, work: Path, keep_fds: Sequence[int], progress: Progress
    ) -> Installed:
        """Make the virtual environment and copy the locked packages into it."""
        plan: _Plan = resolution.installable
        await self._uv(
            ("venv", "--no-project", "--python", plan.interpreter.path, "--allow-existing", str(prefix)),
            "making the environment",
            work,
            prefix,
            keep_fds=keep_fds,
        )
        python = str(prefix / "bin" / "python")
        if resolution.lock:
            progress(
                f"installing {resolution.lock.count('--hash') and len(_names(resolution.lock))} packages"
            )
            try:
                await self.install_into(
                    python, plan.requirements_file, prefix, work, offline=plan.offline, keep_fds=keep_fds
                )
            except environment_errors.DiskFullError as error:
                error.details["needed_bytes"] = await self._needed(resolution, work)
                raise
        await asyncio.to_thread(_trim, prefix)
        return Installed(
            python=python,
            python_version=plan.interpreter.version,
            cache_tag=plan.interpreter.cache_tag,
            packages=await asyncio.to_thread(projects.installed_packages, prefix),
        )

    async def _needed(self, resolution: Resolution, work: Path) -> int | None:
        """Return what the downloads alone take, as the least that is needed; None when nobody says."""
        try:
            return (await self.estimate(resolution, work)).download_bytes or None
        except (errors.NodeError, OSError):
            return None

    async def install_into(
        self,
        python: str,
        requirements_file: Path,
        prefix: Path,
        work: Path,
        *,
        offline: bool,
        keep_fds: Sequence[int] = (),
    ) -> None:
        """Install a lock with hashes into an interpreter's own environment, by copying, compiled."""
        await self._uv(
            (
                *("pip", "install", "--python", python, "--require-hashes", "--no-deps"),
                *("--link-mode", "copy", "--compile-bytecode", "-r", str(requirements_file)),
                *self._where(offline),
            ),
            "installing",
            work,
            prefix,
            keep_fds=keep_fds,
        )

    async def lock(
        self,
        requirements: Sequence[str],
        interpreter: interpreters.Interpreter,
        work: Path,
        *,
        offline: bool,
        upgrade: bool = False,
        output: Path,
    ) -> None:
        """Write a lock with hashes for requirements and an interpreter."""
        await self._compile(requirements, output, interpreter, offline, upgrade, work)

    async def estimate(self, resolution: Resolution, work: Path) -> SizeEstimate:
        """Ask the index, through uv, how large each file of the lock is."""
        plan: _Plan = resolution.installable
        output = work / "pylock.toml"
        sizes: dict[str, int | None] = {}
        if resolution.lock:
            await self._uv(
                (
                    *("pip", "compile", str(plan.requirements_file), "--format", "pylock.toml", "--no-deps"),
                    *("--python", plan.interpreter.path, "-o", str(output)),
                    *self._where(plan.offline),
                ),
                "asking for sizes",
                work,
                work,
            )
            sizes = await asyncio.to_thread(projects.locked_sizes, output, plan.interpreter)
        for wheel in plan.wheels:
            size = await asyncio.to_thread(wheel.stat)
            sizes[str(parse_wheel_filename(wheel.name)[0])] = size.st_size
        known = [size for size in sizes.values() if size is not None]
        return SizeEstimate(download_bytes=sum(known), installed_bytes=None, packages=sizes)

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
        requirements: Sequence[str],
        work: Path,
        interpreter: interpreters.Interpreter,
        offline: bool,
        progress: Progress,
    ) -> tuple[list[str], list[Path]]:
        """Return requirements as uv can lock them: what is a project or a checkout becomes a wheel first."""
        wanted, wheels = [], []
        for text in requirements:
            source = await asyncio.to_thread(Source.parse, text)
            path = source.path
            if source.kind == "vcs" and source.requirement:
                path = await self._fetch(source.requirement, work, offline, progress)
            if path is None:
                wanted.append(text)
                continue
            wheel = await self.wheel(path, work, interpreter, offline, progress)
            wheels.append(wheel)
            wanted.append(_wheel_requirement(wheel, source.extras))
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
        await asyncio.to_thread(excluded.write_text, f"{_INJECTED[0]}\n")
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

    def _where(self, offline: bool) -> tuple[str, ...]:
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
        on_line: Callable[[str], None] | None = None,
    ) -> commands.Completed:
        downloads = "automatic" if self._options.allow_downloads else "never"
        env = {
            **scrubbed(self._environ),
            "UV_PYTHON_DOWNLOADS": downloads,
            "UV_NO_PROGRESS": "1",
            "UV_COLOR": "never",
            "NO_COLOR": "1",
            **(extra_env or {}),
        }
        executable = self._options.executable or uv.find_uv_bin()
        result = await commands.run(
            (executable, *arguments),
            env=env,
            cwd=work,
            timeout_s=self._options.timeout_s,
            on_line=on_line,
            keep_fds=keep_fds,
        )
        if result.code != 0:
            raise uv_errors.explain(result, step, disk)
        return result


def _wheel_requirement(wheel: Path, extras: Sequence[str]) -> str:
    name = parse_wheel_filename(wheel.name)[0]
    wanted = f"[{','.join(extras)}]" if extras else ""
    return f"{name}{wanted} @ {wheel.as_uri()}"


def _wheel_lines(wheel: Path) -> str:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{_wheel_requirement(wheel, ())} --hash=sha256:{digest}\n"


def _checked_lock(text: str) -> str:
    """Refuse a lock that is not all hashes, or that brings options of its own."""
    for line in _logical_lines(text):
        if line.startswith("-"):
            raise environment_errors.SourceError(
                f"a lock may hold requirements with hashes only, not {line.split()[0]}",
                code="environment.bad_lock",
                hint="index settings belong in uv's own configuration",
            )
        if not _HASH_OPTION.search(line):
            raise environment_errors.SourceError(
                f"the lock has no hash for {line.split()[0]}",
                code="environment.bad_lock",
                hint="make it with: uv pip compile --generate-hashes",
            )
    kept = [line for line in _logical_lines(text) if _name(line) != _INJECTED[0]]
    return "".join(f"{line}\n" for line in kept)


def _logical_lines(text: str) -> list[str]:
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [re.sub(r"\s+", " ", line) for line in lines if line]


def _name(line: str) -> str:
    return canonicalize_name(re.split(r"[\s=<>!~;@\[]", line, maxsplit=1)[0])


def _names(lock: str) -> list[str]:
    return [_name(line) for line in lock.splitlines()]


def _portable(text: str, wheels: Sequence[Path]) -> str:
    """Return a lock as sorted lines that do not depend on where local wheels lay."""
    local = {wheel.as_uri(): parse_wheel_filename(wheel.name) for wheel in wheels}
    lines = []
    for line in _logical_lines(text):
        head = line.split(" --hash=", 1)[0]
        for uri, (name, version, *_) in local.items():
            if uri in head:
                head = f"{name}=={version}"
        hashes = " ".join(f"--hash={one}" for one in sorted(_HASH_OPTION.findall(line)))
        lines.append(uv_errors.redacted(f"{head} {hashes}"))
    return "".join(f"{line}\n" for line in sorted(lines))


def _trim(prefix: Path) -> None:
    """Take away what nobody uses here and what would slow every start of the interpreter."""
    for name in ("activate", "activate.bat", "activate.csh", "activate.fish", "activate.nu", "activate.ps1"):
        (prefix / "bin" / name).unlink(missing_ok=True)
    for name in ("activate.xsh", "activate_this.py", "deactivate.bat", "pydoc.bat"):
        (prefix / "bin" / name).unlink(missing_ok=True)
    for hook in prefix.glob("lib/python*/site-packages/_virtualenv.*"):
        hook.unlink()
