"""Finds the Python an environment is built on: told, looked up, or the node's own; never downloaded unasked.

Looked for, in this order: what the settings list, the node's own, PATH, and the directories where version
managers keep theirs. Every candidate is asked what it is; a name proves nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from toft.host import commands
from toft.kernel import errors
from toft.plugins.environments import environment_errors
from toft.plugins.environments.tool_environment import scrubbed

OLDEST = Version("3.8")

_PROBE = (
    "import sys, os, json; i = sys.implementation; print(json.dumps({"
    "'path': os.path.realpath(sys.executable), 'version': '%d.%d.%d' % sys.version_info[:3],"
    "'implementation': i.name, 'cache_tag': i.cache_tag or '', 'abi': getattr(sys, 'abiflags', ''),"
    "'platform': sys.platform + '-' + os.uname().machine}))"
)
_NAMED = re.compile(r"python(3(\.\d+)?)?t?")
_MANAGER_ROOTS = (
    ("PYENV_ROOT", "versions"),
    ("HOME", ".pyenv/versions"),
    ("UV_PYTHON_INSTALL_DIR", ""),
    ("HOME", ".local/share/uv/python"),
    ("XDG_DATA_HOME", "uv/python"),
    ("ASDF_DATA_DIR", "installs/python"),
    ("HOME", ".asdf/installs/python"),
    ("HOME", ".local/share/mise/installs/python"),
)


@dataclass(frozen=True)
class Interpreter:
    """One Python as it described itself."""

    path: str
    version: str
    implementation: str
    cache_tag: str
    abi: str
    platform: str

    def identity(self) -> dict[str, str]:
        """Return what makes an environment built on it different from one built on another."""
        return asdict(self)


class Wanted:
    """What was asked for: a path, a version such as `3.11`, a range such as `>=3.9,<3.13`, or nothing."""

    def __init__(self, asked: str | None, requires: str | None) -> None:
        self.asked = asked
        self.path: str | None = None
        ranges = [requires] if requires else []
        if asked:
            bare = asked.strip().removeprefix("python").removeprefix("cpython-") or asked
            if re.fullmatch(r"\d+(\.\d+){0,2}", bare):
                ranges.append(f"=={bare}" if bare.count(".") == 2 else f"=={bare}.*")
            elif bare[:1] in "<>=!~":
                ranges.append(bare)
            elif "/" in asked:
                self.path = os.path.abspath(os.path.expanduser(asked))
            else:
                raise errors.UsageError(
                    f"{asked!r} is not a Python version, a range of versions or a path",
                    code="environment.bad_python",
                    hint="write 3.11, '>=3.9,<3.12' or /path/to/python",
                )
        try:
            self.versions = SpecifierSet(",".join(ranges))
        except InvalidSpecifier as error:
            raise environment_errors.SourceError(f"Python range cannot be read: {error}") from error

    def fits(self, version: str) -> bool:
        """Say whether a version will do."""
        return Version(version) >= OLDEST and self.versions.contains(version)

    def may_fit(self, hint: str | None) -> bool:
        """Say whether a path that names this `3.N` is worth asking."""
        if hint is None or "." not in hint:
            return True
        return any(self.fits(f"{hint}.{patch}") for patch in range(64))

    def __str__(self) -> str:
        return self.path or (f"Python {self.versions}" if str(self.versions) else "Python 3.8 or newer")


class Interpreters:
    """The Pythons of this machine.

    Args:
        listed: Executables or directories from the settings, looked at first.
        environ: Where PATH and the version managers' variables are read.
        own: The interpreter the node itself is built on.
    """

    def __init__(
        self, listed: Sequence[str] = (), *, environ: Mapping[str, str] | None = None, own: str | None = None
    ) -> None:
        self._listed = tuple(listed)
        self._environ = dict(os.environ if environ is None else environ)
        self._own = own if own is not None else getattr(sys, "_base_executable", None) or sys.executable
        self._known: dict[str, Interpreter | None] = {}

    async def find(self, asked: str | None = None, requires: str | None = None) -> Interpreter:
        """Return the interpreter to use.

        Args:
            asked: A version, a range or a path that somebody asked for.
            requires: The range a project declares (`requires-python`).

        Raises:
            NoInterpreterError: None fits; `details` say what was looked for, where, and what is there.
        """
        wanted = Wanted(asked, requires)
        if wanted.path:
            return await self._at(wanted)
        # The node's own costs no search, and two plugins that do not care then share it.
        for paths in ([self._own], self._listed_candidates(), self._candidates(wanted)):
            fitting = [one for one in await self._ask(paths) if wanted.fits(one.version)]
            if fitting:
                return max(fitting, key=_preference)
        raise await self._refusal(wanted)

    async def everything(self) -> list[Interpreter]:
        """Return every interpreter that was found, newest first."""
        found = await self._ask(self._candidates(None))
        return sorted(found, key=lambda one: Version(one.version), reverse=True)

    async def _at(self, wanted: Wanted) -> Interpreter:
        assert wanted.path
        found = await self._ask([_executable_of(Path(wanted.path))])
        if not found:
            raise environment_errors.NoInterpreterError(
                f"{wanted.path} is not a Python that runs here",
                details={"wanted": wanted.path},
                hint="toft doctor lists the interpreters of this machine",
            )
        if not wanted.fits(found[0].version):
            needed = wanted.versions if str(wanted.versions) else f">={OLDEST}"
            raise environment_errors.NoInterpreterError(
                f"{wanted.path} is Python {found[0].version}; {needed} is needed",
                details={"wanted": str(needed), "found": [_shown(found[0])]},
            )
        return found[0]

    async def _refusal(self, wanted: Wanted) -> environment_errors.NoInterpreterError:
        found = await self.everything()
        listed = ", ".join(f"{one.version} ({one.path})" for one in found) or "none"
        return environment_errors.NoInterpreterError(
            f"no interpreter: {wanted} was looked for; found: {listed}",
            details={
                "wanted": str(wanted),
                "found": [_shown(one) for one in found],
                "looked_in": sorted({str(Path(path).parent) for path in self._candidates(None)}),
            },
            hint="install one, or name one: --python /path/to/python, or `interpreters` in the settings",
        )

    def _listed_candidates(self) -> list[str]:
        return [path for entry in self._listed for path in _executables(Path(entry).expanduser())]

    def _candidates(self, wanted: Wanted | None) -> list[str]:
        paths: dict[str, None] = {}
        for path in (*self._listed_candidates(), self._own, *self._on_path(), *self._managed()):
            real = os.path.realpath(path)
            if wanted is None or wanted.may_fit(_version_in(real)):
                paths.setdefault(real)
        return list(paths)

    def _on_path(self) -> Iterator[str]:
        for entry in self._environ.get("PATH", "").split(os.pathsep):
            directory = Path(entry)
            if entry and directory.is_absolute() and directory.is_dir():
                yield from _named_pythons(directory)

    def _managed(self) -> Iterator[str]:
        for variable, below in _MANAGER_ROOTS:
            base = self._environ.get(variable)
            if base:
                yield from _version_directories(Path(base, below))

    async def _ask(self, paths: Sequence[str]) -> list[Interpreter]:
        paths = _real_paths(paths)
        new = [path for path in paths if path not in self._known]
        limit = asyncio.Semaphore(4)

        async def ask(path: str) -> None:
            async with limit:
                self._known[path] = await probe(path, self._environ)

        await asyncio.gather(*map(ask, new))
        found: dict[str, Interpreter] = {}
        for path in paths:
            interpreter = self._known[path]
            if interpreter is not None:
                found.setdefault(interpreter.path, interpreter)
        return list(found.values())


async def probe(
    path: str,
    environ: Mapping[str, str],
    *,
    run: commands.Run = commands.run,
    writable: Sequence[Path] = (),
) -> Interpreter | None:
    """Ask an executable what Python it is; None when it is none, or does not answer."""
    try:
        answer = await run(
            (path, "-I", "-S", "-c", _PROBE),
            env=scrubbed(environ),
            cwd=Path("/"),
            timeout_s=20,
            writable=writable,
        )
        fields = json.loads(answer.stdout) if answer.code == 0 else None
        if not isinstance(fields, dict):
            return None
        interpreter = Interpreter(**{key: str(value) for key, value in fields.items()})
        Version(interpreter.version)
    except (ValueError, TypeError, InvalidVersion, errors.NodeError):
        return None
    return interpreter


def _preference(one: Interpreter) -> tuple[bool, bool, Version]:
    return (one.implementation == "cpython", not one.abi, Version(one.version))


def _real_paths(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(os.path.realpath(path) for path in paths))


def _executable_of(path: Path) -> str:
    choices = (path / "bin/python3", path / "bin/python")
    return str(next((choice for choice in choices if choice.exists()), path))


def _shown(interpreter: Interpreter) -> dict[str, str]:
    return {"path": interpreter.path, "version": interpreter.version}


def _version_in(path: str) -> str | None:
    parts = Path(path).parts
    for part in (parts[-1], *reversed(parts[:-1])):
        match = re.search(r"(?:^|python|cpython-|pypy)(3\.\d+)", part)
        if match:
            return match.group(1)
    return None


def _executables(path: Path) -> list[str]:
    if path.is_file():
        return [str(path)]
    return [*_sorted_if(path / "bin", _named_pythons), *_version_directories(path)]


def _sorted_if(directory: Path, look: Callable[[Path], Iterable[str]]) -> list[str]:
    return sorted(look(directory)) if directory.is_dir() else []


def _named_pythons(directory: Path) -> Iterator[str]:
    try:
        names = sorted(os.listdir(directory), reverse=True)
    except OSError:
        return
    for name in names:
        path = directory / name
        if _NAMED.fullmatch(name) and os.access(path, os.X_OK) and not _is_script(path):
            yield str(path)


def _is_script(path: Path) -> bool:
    # A version manager's shim asks the manager on every start; the Pythons behind it are found elsewhere.
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return True


def _version_directories(root: Path) -> Iterator[str]:
    try:
        names = sorted(os.listdir(root), reverse=True)
    except OSError:
        return
    for name in names:
        for executable in ("bin/python3", "bin/python"):
            path = root / name / executable
            if path.is_file():
                yield str(path)
                break
