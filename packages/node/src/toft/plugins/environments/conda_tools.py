"""The programs that solve and install conda packages, behind one small interface: py-rattler or a command.

Every tool is given packages and channels, answers with exact packages, and installs exactly those; what it
installed is compared with what was locked afterwards: a tool is believed only as far as it is checked.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from toft.host import commands
from toft.kernel import errors
from toft.plugins.environments import environment_errors, uv_errors
from toft.plugins.environments.conda_files import EnvironmentFile
from toft.plugins.environments.tool_environment import scrubbed

COMMANDS = ("micromamba", "mamba", "conda", "pixi")
_UNSATISFIABLE = re.compile(
    r"could not solve|nothing provides|unsatisfiable|packagesnotfound|cannot solve|no candidates",
    re.IGNORECASE,
)
_NETWORK = re.compile(r"download error|connection|could not resolve host|timed out|http error", re.IGNORECASE)


@dataclass(frozen=True)
class CondaPackage:
    """One exact package.

    Attributes:
        url: Where it comes from, without passwords; empty when the tool does not say.
        sha256: Of the file; empty when the tool does not say.
        size: Bytes to download; None when the tool does not say.
    """

    name: str
    version: str
    build: str
    url: str = ""
    sha256: str = ""
    size: int | None = None

    def line(self) -> str:
        """Return the package as one line of a lock."""
        place = self.url or f"{self.name}={self.version}={self.build}"
        return f"{place}#sha256:{self.sha256}" if self.sha256 else place


@dataclass(frozen=True)
class Solution:
    """What a tool made of an `environment.yml`; `state` is the tool's own."""

    packages: tuple[CondaPackage, ...]
    state: Any = None


class CondaTool(Protocol):
    """Something that solves and installs."""

    name: str

    async def solve(self, wanted: EnvironmentFile, work: Path, *, offline: bool) -> Solution:
        """Find exact packages; installs nothing."""
        ...

    async def install(
        self, solution: Solution, prefix: Path, work: Path, *, offline: bool, keep_fds: Sequence[int]
    ) -> Path:
        """Install them below a prefix and return where the environment lies in it."""
        ...


class RattlerTool:
    """py-rattler, in a process of its own."""

    name = "rattler"

    def __init__(self, environ: Mapping[str, str], timeout_s: float) -> None:
        self._environ = environ
        self._timeout_s = timeout_s

    @staticmethod
    def is_there() -> bool:
        """Say whether py-rattler can be imported; does not import it."""
        return importlib.util.find_spec("rattler") is not None

    async def solve(self, wanted: EnvironmentFile, work: Path, *, offline: bool) -> Solution:
        """Solve into a lock file below `work`."""
        spec = {
            "channels": list(wanted.channels),
            "specs": list(wanted.specs),
            "offline": offline,
            "lock_file": str(work / "conda-lock.yml"),
        }
        answer = await self._ask("solve", spec, work, work, ())
        packages = tuple(_package(record) for record in answer["records"])
        return Solution(packages, work / "conda-lock.yml")

    async def install(
        self, solution: Solution, prefix: Path, work: Path, *, offline: bool, keep_fds: Sequence[int]
    ) -> Path:
        """Install what the lock file says."""
        spec = {"lock_file": str(solution.state), "prefix": str(prefix)}
        await self._ask("install", spec, work, prefix, keep_fds)
        return prefix

    async def _ask(
        self, step: str, spec: Mapping[str, Any], work: Path, disk: Path, keep_fds: Sequence[int]
    ) -> dict[str, Any]:
        file = work / f"{step}.json"
        await asyncio.to_thread(file.write_text, json.dumps(spec))
        program = str(Path(__file__).with_name("conda_rattler.py"))
        result = await commands.run(
            (sys.executable, "-I", program, step, str(file)),
            env=scrubbed(self._environ),
            cwd=work,
            timeout_s=self._timeout_s,
            keep_fds=keep_fds,
        )
        try:
            answer = json.loads(result.stdout)
        except ValueError:
            answer = {"error": "failed", "message": result.stderr.strip()[-500:] or "it said nothing"}
        if "error" in answer:
            raise _failure(str(answer["error"]), str(answer["message"]), f"{self.name} cannot {step}", disk)
        return dict(answer)


class CommandTool:
    """micromamba, mamba or conda on PATH or configured."""

    def __init__(self, name: str, executable: str, environ: Mapping[str, str], timeout_s: float) -> None:
        self.name = name
        self._executable = executable
        self._environ = environ
        self._timeout_s = timeout_s

    async def solve(self, wanted: EnvironmentFile, work: Path, *, offline: bool) -> Solution:
        """Ask for a dry run and read what it would link."""
        channels = _channel_arguments(wanted.channels)
        arguments = ("create", "--yes", "--json", "--dry-run", "--prefix", str(work / "nothing"))
        answer = await self._run(
            (*arguments, *channels, *_offline(offline), *wanted.specs), "solve", work, work, ()
        )
        plans = [each["actions"] for each in _objects(answer) if isinstance(each.get("actions"), dict)]
        fetched = {_dist(each): each for plan in plans for each in plan.get("FETCH", ())}
        linked = [{**fetched.get(_dist(each), {}), **each} for plan in plans for each in plan.get("LINK", ())]
        if not linked:
            raise _failure("failed", answer[-500:], f"{self.name} answered no plan", work)
        return Solution(tuple(_package(record) for record in linked), wanted.channels)

    async def install(
        self, solution: Solution, prefix: Path, work: Path, *, offline: bool, keep_fds: Sequence[int]
    ) -> Path:
        """Install exactly these packages; nothing is solved again."""
        specs = [f"{each.name}={each.version}={each.build}" for each in solution.packages]
        channels = _channel_arguments(solution.state)
        # Not `create`: it refuses a directory that is there, or replaces it, and this one is held.
        await asyncio.to_thread(_make_prefix, prefix)
        arguments = ("install", "--yes", "--prefix", str(prefix), *channels, *_offline(offline), "--no-deps")
        await self._run((*arguments, *specs), "install", work, prefix, keep_fds)
        return prefix

    async def _run(
        self, arguments: Sequence[str], step: str, work: Path, disk: Path, keep_fds: Sequence[int]
    ) -> str:
        # Copies, never hard links into the tool's cache: an environment's files belong to it alone.
        env = {**scrubbed(self._environ), "MAMBA_ALWAYS_COPY": "true", "CONDA_ALWAYS_COPY": "true"}
        result = await commands.run(
            (self._executable, *arguments), env=env, cwd=work, timeout_s=self._timeout_s, keep_fds=keep_fds
        )
        if result.code != 0:
            text = f"{result.stdout}\n{result.stderr}".strip()
            raise _failure(_kind_of(text), _said(text), f"{self.name} cannot {step}", disk)
        return result.stdout


class PixiTool:
    """pixi, which keeps an environment inside a project: the project is the prefix."""

    name = "pixi"

    def __init__(self, executable: str, environ: Mapping[str, str], timeout_s: float) -> None:
        self._executable = executable
        self._environ = environ
        self._timeout_s = timeout_s

    async def solve(self, wanted: EnvironmentFile, work: Path, *, offline: bool) -> Solution:
        """Import the file into a project below `work` and lock it."""
        import yaml  # noqa: PLC0415 - 25 ms that a node which reads no YAML does not pay

        project = work / "pixi"
        await asyncio.to_thread(project.mkdir, exist_ok=True)
        source = {"name": "environment", "channels": [*wanted.channels], "dependencies": [*wanted.specs]}
        file = work / "environment.yml"
        await asyncio.to_thread(file.write_text, yaml.safe_dump(source))
        await self._run(("init", "--import", str(file), str(project)), "solve", work, work, ())
        await self._run(("lock", "--manifest-path", str(project)), "solve", work, work, ())
        text = await asyncio.to_thread((project / "pixi.lock").read_text)
        return Solution(tuple(_pixi_packages(yaml.safe_load(text))), project)

    async def install(
        self, solution: Solution, prefix: Path, work: Path, *, offline: bool, keep_fds: Sequence[int]
    ) -> Path:
        """Copy the project to the prefix and install what it locks."""
        await asyncio.to_thread(shutil.copytree, solution.state, prefix, dirs_exist_ok=True)
        await self._run(
            ("install", "--frozen", "--manifest-path", str(prefix)), "install", work, prefix, keep_fds
        )
        return prefix / ".pixi" / "envs" / "default"

    async def _run(
        self, arguments: Sequence[str], step: str, work: Path, disk: Path, keep_fds: Sequence[int]
    ) -> None:
        result = await commands.run(
            (self._executable, *arguments),
            env={**scrubbed(self._environ), "PIXI_COLOR": "never"},
            cwd=work,
            timeout_s=self._timeout_s,
            keep_fds=keep_fds,
        )
        if result.code != 0:
            text = f"{result.stdout}\n{result.stderr}".strip()
            raise _failure(_kind_of(text), _said(text), f"pixi cannot {step}", disk)


def choose(wanted: str, *, prefix: Path | None, environ: Mapping[str, str], timeout_s: float) -> CondaTool:
    """Return the tool to use: the one that is wanted, else the first that is there.

    Raises:
        NotFoundError: There is none (`environment.no_conda_tool`).
    """
    if wanted in ("auto", "rattler") and RattlerTool.is_there():
        return RattlerTool(environ, timeout_s)
    for name in COMMANDS if wanted == "auto" else (wanted,):
        executable = _executable(name, prefix, environ)
        if executable:
            if name == "pixi":
                return PixiTool(executable, environ, timeout_s)
            return CommandTool(name, executable, environ, timeout_s)
    looked = "rattler, micromamba, mamba, conda, pixi" if wanted == "auto" else wanted
    raise errors.NotFoundError(
        f"an environment.yml needs a conda tool, and there is none of: {looked}",
        code="environment.no_conda_tool",
        blame="environment",
        details={"looked_for": looked, "prefix": str(prefix) if prefix else None},
        hint="install toft[conda], put micromamba on PATH, or: toft env setup-runtime",
    )


def present(prefix: Path | None, environ: Mapping[str, str]) -> list[str]:
    """Return the tools that are there, in the order in which they are chosen."""
    found = [name for name in COMMANDS if _executable(name, prefix, environ)]
    return ["py-rattler", *found] if RattlerTool.is_there() else found


def installed(prefix: Path) -> dict[str, CondaPackage]:
    """Return what a prefix says is in it, by name."""
    found = {}
    for path in sorted(prefix.glob("conda-meta/*.json")):
        package = _package(json.loads(path.read_text(encoding="utf-8")))
        found[package.name] = package
    return found


def _executable(name: str, prefix: Path | None, environ: Mapping[str, str]) -> str | None:
    if prefix is not None and os.access(prefix / "bin" / name, os.X_OK):
        return str(prefix / "bin" / name)
    return shutil.which(name, path=environ.get("PATH"))


def subdir() -> str:
    """Return this machine's name among conda's platforms."""
    system = {"Linux": "linux", "Darwin": "osx"}.get(platform.system(), "win")
    machine = {"x86_64": "64", "AMD64": "64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{system}-{machine}"


def _make_prefix(prefix: Path) -> None:
    """Make a directory one that conda tools take for an empty environment."""
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta" / "history").touch()


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of an answer; some tools give several, or say something before."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except ValueError:
            end = start + 1
        else:
            if isinstance(found, dict):
                yield found
        start = text.find("{", end)


def _channel_arguments(channels: Sequence[str]) -> tuple[str, ...]:
    return ("--override-channels", *(part for name in channels for part in ("--channel", name)))


def _offline(offline: bool) -> tuple[str, ...]:
    return ("--offline",) if offline else ()


def _dist(record: Mapping[str, Any]) -> tuple[str, str]:
    return (str(record.get("name")), str(record.get("version")))


def _package(record: Mapping[str, Any]) -> CondaPackage:
    size = record.get("size")
    return CondaPackage(
        name=str(record["name"]),
        version=str(record["version"]),
        build=str(record.get("build") or record.get("build_string") or ""),
        url=_without_token(str(record.get("url") or "")),
        sha256=str(record.get("sha256") or ""),
        size=size if isinstance(size, int) else None,
    )


def _pixi_packages(lock: Mapping[str, Any]) -> list[CondaPackage]:
    wanted = {
        each["conda"]
        for each in lock["environments"]["default"]["packages"].get(subdir(), ())
        if "conda" in each
    }
    found = []
    for each in lock["packages"]:
        url = each.get("conda")
        if url in wanted:
            stem = re.sub(r"\.(conda|tar\.bz2)$", "", url.rsplit("/", 1)[-1])
            name, version, build = stem.rsplit("-", 2)
            parts = {"name": name, "version": version, "build": build}
            found.append(_package({**each, **parts, "url": url}))
    return found


def _without_token(url: str) -> str:
    return re.sub(r"/t/[^/]+/", "/", uv_errors.redacted(url))


def _kind_of(text: str) -> str:
    if _UNSATISFIABLE.search(text):
        return "unsatisfiable"
    return "download" if _NETWORK.search(text) else "failed"


def _said(text: str) -> str:
    try:
        answer = json.loads(text)
    except ValueError:
        return text
    problems = answer.get("solver_problems") or [answer.get("message") or answer.get("error") or text]
    return "; ".join(map(str, problems))


def _failure(kind: str, text: str, step: str, disk: Path) -> errors.NodeError:
    text = _without_token(text).strip()
    short = re.sub(r"\s+", " ", text)
    short = short if len(short) <= 600 else short[:599] + "…"
    if "os error 28" in text or "No space left" in text:
        return environment_errors.disk_full(disk, short[-300:])
    details = {"output": text[-20_000:]}
    if kind == "unsatisfiable":
        return environment_errors.UnsatisfiableError(
            f"the packages cannot be resolved: {short}",
            details=details,
            hint="change one of the named versions",
        )
    if kind == "download":
        return environment_errors.DownloadError(f"{step}: {short}", details=details, hint="try again")
    if kind == "bad_spec":
        return environment_errors.SourceError(
            f"{step}: {short}", code="environment.bad_file", details=details
        )
    return errors.NodeError(
        f"{step}: {short}", code="environment.failed", blame="environment", details=details
    )
