"""The provisioner of pins: exactly these wheels, by their hashes; nothing is looked up, fetched or built.

Two environments of the same wheels and interpreter have the same bytes, so that one that was damaged can be
made again and compared with what was recorded of it.
"""

from __future__ import annotations

import asyncio
import email.message
import email.parser
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from packaging.markers import UndefinedEnvironmentName, default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidWheelFilename,
    NormalizedName,
    canonicalize_name,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from toft.plugins.environments import archives, environment_errors, lock_texts, projects, wheel_files
from toft.plugins.environments.interpreters import Interpreter, Interpreters
from toft.plugins.environments.provisioning import (
    EnvironmentRequest,
    Installed,
    PinnedWheel,
    Progress,
    Resolution,
    SizeEstimate,
)
from toft.plugins.environments.uv_environments import Locked, UvProvisioner

_HOUSE = "wheels"
_CACHE_INFO = "uv_cache.json"


class PinnedProvisioner:
    """Makes environments of wheels that somebody else has chosen.

    Args:
        uv: Installs them.
        found: The Pythons of this machine.
    """

    kind = "pinned"

    def __init__(self, uv: UvProvisioner, found: Interpreters) -> None:
        self._uv = uv
        self._interpreters = found

    def accepts(self, request: EnvironmentRequest) -> bool:
        """Take what names wheels."""
        return bool(request.wheels)

    async def resolve(self, request: EnvironmentRequest, work: Path, progress: Progress) -> Resolution:
        """Look whether the wheels are what they are called, fit the interpreter, and are all there are.

        Raises:
            SourceError: One is no wheel, or another one than it is called.
            UnsatisfiableError: One does not fit this Python or machine, or something they need is missing.
        """
        first = request.wheels[0]
        told = await asyncio.to_thread(metadata, first)
        interpreter = await self._interpreters.find(request.python, told.get("Requires-Python"))
        progress(f"checking {len(request.wheels)} wheels")
        await asyncio.to_thread(check, request.wheels, interpreter)
        house = work / _HOUSE
        lock = await asyncio.to_thread(_lay_out, request.wheels, house)
        file = work / "lock.txt"
        await asyncio.to_thread(file.write_text, lock)
        name = canonicalize_name(first.name)
        return Resolution(
            kind=self.kind,
            identity=interpreter.identity(),
            lock=lock,
            installable=Locked(interpreter, file, True, (), lock, name, house=house),
            local_name=name,
        )

    async def install(
        self, resolution: Resolution, prefix: Path, *, work: Path, keep_fds: Sequence[int], progress: Progress
    ) -> Installed:
        """Install them, and leave nothing in the environment that differs from one time to the next."""
        installed = await self._uv.install(
            resolution, prefix, work=work, keep_fds=keep_fds, progress=progress
        )
        await asyncio.to_thread(_forget_when, prefix)
        return installed

    async def estimate(self, resolution: Resolution, work: Path) -> SizeEstimate:
        """Nothing is downloaded: the wheels are there."""
        return SizeEstimate(download_bytes=0, installed_bytes=None, packages={})


def check(wheels: Sequence[PinnedWheel], interpreter: Interpreter) -> None:
    """Refuse wheels that are not what they are called, or not what an environment can be made of; blocks."""
    problems: list[str] = []
    for each in wheels:
        try:
            tags = parse_wheel_filename(each.filename)[3]
        except InvalidWheelFilename as error:
            raise environment_errors.SourceError(f"{each.filename} is not named like a wheel") from error
        if not any(projects.tag_fits(tag, interpreter) for tag in tags):
            wanted = f"Python {interpreter.version} on {interpreter.platform}"
            problems.append(f"{each.filename} is not for {wanted}")
    if not problems:
        problems += _missing(wheels, interpreter)
    if problems:
        more = f", and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise environment_errors.UnsatisfiableError(
            "; ".join(problems[:10]) + more,
            details={"problems": problems},
            hint="pin everything the plugin needs: toft plugin pin WHEEL --from DIR prints the section",
        )


def missing(told: Sequence[email.message.Message], interpreter: Interpreter) -> Iterator[str]:
    """Yield what some wheels need on an interpreter and do not bring, as sentences."""
    have = {canonicalize_name(str(each.get("Name"))): each for each in told}
    for name, wanted in needs(have, have.get, interpreter):
        found = have.get(canonicalize_name(wanted.name))
        if found is None:
            yield f"{name} needs {wanted.name}{wanted.specifier}, which is not pinned"
        elif not wanted.specifier.contains(version := str(found.get("Version")), prereleases=True):
            yield f"{name} needs {wanted.name}{wanted.specifier}, and {version} is pinned"


def needs(
    first: Iterable[str],
    told: Callable[[NormalizedName], email.message.Message | None],
    interpreter: Interpreter,
) -> Iterator[tuple[NormalizedName, Requirement]]:
    """Yield who needs what, of some wheels and of all that they bring with them.

    Extras are followed from what is asked for, as an installer would.

    Args:
        first: Names to begin with.
        told: Returns the METADATA of a wheel that is there; asked for each once what needs it was yielded.
        interpreter: On which Python.
    """
    waiting = [(canonicalize_name(name), frozenset[str]()) for name in first]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        found = told(name)
        for wanted in requirements(found, extras, interpreter) if found is not None else ():
            yield name, wanted
            asked = (canonicalize_name(wanted.name), frozenset(wanted.extras))
            if asked not in seen:
                seen.add(asked)
                waiting.append(asked)


def requirements(
    told: email.message.Message, extras: frozenset[str], interpreter: Interpreter
) -> Iterator[Requirement]:
    """Yield what a wheel needs on an interpreter, as its METADATA says, but what is handed to every worker.

    Raises:
        SourceError: Its METADATA names what is no requirement.
    """
    for text in told.get_all("Requires-Dist") or ():
        try:
            wanted = Requirement(text)
            fits = wanted.marker is None or any(
                wanted.marker.evaluate({**_markers(interpreter), "extra": extra}) for extra in extras or ("",)
            )
        except (InvalidRequirement, UndefinedEnvironmentName) as error:
            raise environment_errors.SourceError(
                f"the METADATA of {told.get('Name')} names {text[:200]!r}, which is no requirement: {error}"
            ) from error
        if fits and canonicalize_name(wanted.name) != lock_texts.INJECTED:
            yield wanted


def _markers(interpreter: Interpreter) -> dict[str, str]:
    own = {name: str(value) for name, value in default_environment().items()}
    own["python_full_version"] = own["implementation_version"] = interpreter.version
    own["python_version"] = ".".join(interpreter.version.split(".")[:2])
    own["implementation_name"] = interpreter.implementation
    if interpreter.implementation != "cpython":
        own["platform_python_implementation"] = "PyPy"
    return own


def _missing(wheels: Sequence[PinnedWheel], interpreter: Interpreter) -> list[str]:
    return sorted(missing([metadata(each) for each in wheels], interpreter))


def metadata(wheel: PinnedWheel) -> email.message.Message:
    """Return what a wheel says of itself, which must be what it is called; blocks.

    Raises:
        SourceError: It is no wheel, or another one.
    """
    try:
        archives.check_wheel(wheel.path)
        told = email.parser.Parser().parsestr(wheel_files.metadata(wheel.path), headersonly=True)
    except wheel_files.DAMAGED as error:
        raise environment_errors.SourceError(f"{wheel.filename} is not a wheel: {error}") from error
    name, version = str(told.get("Name", "")), str(told.get("Version", ""))
    if canonicalize_name(name) != canonicalize_name(wheel.name) or not _same(version, wheel.version):
        raise environment_errors.SourceError(
            f"{wheel.filename} says that it is {name[:80]} {version[:80]}, not {wheel.name} {wheel.version}",
            code="source.other_wheel",
            details={"filename": wheel.filename, "name": name[:200], "version": version[:200]},
        )
    return told


def _same(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return False


def _lay_out(wheels: Sequence[PinnedWheel], house: Path) -> str:
    """Put the wheels into a directory under their own names; return the lock for them."""
    house.mkdir()
    lines = []
    for each in wheels:
        try:
            os.link(each.path, house / each.filename)
        except OSError:  # another file system, or one without links
            shutil.copyfile(each.path, house / each.filename)
        version = parse_wheel_filename(each.filename)[1]
        lines.append(f"{canonicalize_name(each.name)}=={version} --hash=sha256:{each.sha256}\n")
    return "".join(sorted(lines))


def _forget_when(prefix: Path) -> None:
    """Take away the time at which uv saw a wheel, and the mention of it."""
    for path in prefix.glob(f"lib/python*/site-packages/*.dist-info/{_CACHE_INFO}"):
        path.unlink()
        record = path.with_name("RECORD")
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not re.search(rf"(^|/){_CACHE_INFO},", line)]
        record.write_text("".join(kept), encoding="utf-8")
