"""`toft doctor`: looks at everything a node stands on, one check at a time.

It needs no node: a machine on which none can be opened is the one that is looked at. A check that cannot be
made is a check that failed, with the reason as its evidence. It changes nothing but the rights of secrets.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import uv
from packaging.version import Version

from toft.host import commands, disks, facts, isolation, process_tree
from toft.kernel.errors import NodeError
from toft.kernel.quantities import size
from toft.kernel.settings import Settings
from toft.plugins.environments import conda_tools
from toft.plugins.environments.environments import Environments
from toft.plugins.environments.interpreters import OLDEST, Interpreters
from toft.plugins.environments.record import Environment
from toft.plugins.environments.tool_environment import scrubbed
from toft.plugins.findings import Finding
from toft.plugins.manifests.registry import Registry
from toft.secrets.file_store import FileSecretStore
from toft.store.database import Database

LEAST_PYTHON = (3, 11)
LEAST_MEMORY_BYTES = 500_000_000
LEAST_DISK_BYTES = 1_000_000_000
_COMMAND_S = 20.0
_SHOWN = 8


@dataclass(frozen=True)
class Patient:
    """What is looked at."""

    settings: Settings
    environ: Mapping[str, str]

    @property
    def home(self) -> Path:
        """The node's home."""
        return self.settings.home


async def examine(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Make every check, one after the other; each comes as soon as it is done."""
    patient = Patient(settings, environ)
    for name, look in _CHECKS.items():
        try:
            yield await look(patient)
        except NodeError as error:
            yield Finding(name, False, error.message, error.hint or "The message says what failed.")
        except OSError as error:
            evidence = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            yield Finding(name, False, evidence, "Run toft as the user who owns it; or set TOFT_HOME.")


async def _python(patient: Patient) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info[:2] >= LEAST_PYTHON
    hint = f"Install Python {'.'.join(map(str, LEAST_PYTHON))} or newer."
    return Finding("python", ok, f"{version} at {sys.executable}", "" if ok else hint)


async def _uv(patient: Patient) -> Finding:
    program = uv.find_uv_bin()
    env = scrubbed(patient.environ)
    done = await commands.run((program, "--version"), env=env, cwd=Path("/"), timeout_s=_COMMAND_S)
    ok = done.code == 0
    evidence = done.stdout.strip() if ok else f"{program} exited with {done.code}: {done.stderr.strip()}"
    return Finding("uv", ok, evidence, "" if ok else "Install toft anew; uv comes with it.")


async def _interpreters(patient: Patient) -> Finding:
    found = await Interpreters(patient.settings.interpreters, environ=patient.environ).everything()
    usable = sorted({version for each in found if (version := Version(each.version)) >= OLDEST})
    evidence = ", ".join(map(str, usable)) or f"none of {OLDEST} or newer"
    hint = "Install a Python for plugins; name its directory under `interpreters` in settings.toml."
    return Finding("interpreters", bool(usable), evidence, "" if usable else hint)


async def _isolation(patient: Patient) -> Finding:
    return Finding(**await isolation.separation("plain" if patient.settings.isolation == "plain" else "auto"))


async def _landlock(patient: Patient) -> Finding:
    return Finding(**await isolation.signals_and_sockets())


async def _limits(patient: Patient) -> Finding:
    return Finding(**await isolation.limit_mechanisms())


async def _gpu(patient: Patient) -> Finding:
    return Finding(**await isolation.graphics())


async def _memory(patient: Patient) -> Finding:
    memory = await asyncio.to_thread(facts.read_memory)
    ok = memory.available_bytes >= LEAST_MEMORY_BYTES
    evidence = f"{size(memory.available_bytes)} of {size(memory.total_bytes)} available"
    return Finding("memory", ok, evidence, "" if ok else "End what uses it, or give plugins a memory limit.")


async def _disk(patient: Patient) -> Finding:
    place = next(path for path in (patient.home, *patient.home.parents) if path.is_dir())
    space = await asyncio.to_thread(disks.read_space, place)
    ok = space.free_bytes >= LEAST_DISK_BYTES
    evidence = f"{size(space.free_bytes)} of {size(space.total_bytes)} free at {place}"
    return Finding("disk", ok, evidence, "" if ok else "toft env gc removes environments that nothing uses.")


async def _home(patient: Patient) -> Finding:
    home = patient.home
    if not home.exists():
        place = next(path for path in home.parents if path.exists())
        ok = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
        evidence = f"{home} is not there yet; {place} {'can' if ok else 'cannot'} be written"
        return Finding("home", ok, evidence, "" if ok else "Point TOFT_HOME at a directory of your own.")
    if not home.is_dir():
        return Finding("home", False, f"{home} is not a directory", "Move it away, or set TOFT_HOME.")
    found = home.stat()
    mode = stat.S_IMODE(found.st_mode)
    problems = []
    if found.st_uid != os.geteuid():
        problems.append(f"it belongs to user id {found.st_uid}, not to {os.geteuid()}")
    if mode & 0o022:
        problems.append("other users can write to it, so they can make toft run their code")
    if not os.access(home, os.W_OK | os.X_OK):
        problems.append("it cannot be written")
    evidence = f"{home} has mode {mode:04o}" + "".join(f"; {each}" for each in problems)
    hint = f"chown $(id -u) {home}; chmod go-w {home}"
    return Finding("home", not problems, evidence, hint if problems else "")


async def _database(patient: Patient) -> Finding:
    path = patient.home / "node.db"
    if not path.exists():
        return Finding("database", True, f"{path} is made when it is first needed")
    database = Database(path)
    try:
        await database.open({})
        rows = await database.read(lambda connection: connection.execute("PRAGMA quick_check(5)").fetchall())
    finally:
        await database.close()
    problems = [str(row[0]) for row in rows if row[0] != "ok"]
    hint = f"Restore what toft backup made; or move {path}* away: plugins stay installed, the rest is lost."
    return Finding(
        "database", not problems, f"{path}: {'; '.join(problems) or 'ok'}", hint if problems else ""
    )


async def _secrets(patient: Patient) -> Finding:
    warnings: list[str] = []
    store = FileSecretStore(patient.home / "secrets", on_warning=warnings.append)
    count = len(await asyncio.to_thread(store.list_values))
    hint = "Replace them if others use this machine."
    return Finding(
        "secrets", not warnings, "; ".join([f"{count} stored", *warnings]), hint if warnings else ""
    )


async def _plugins(patient: Patient) -> Finding:
    discovery = await asyncio.to_thread(Registry(patient.home).discover)
    bad = [f"{each.path}: {each.reason}" for each in discovery.problems]
    evidence = f"{len(discovery.found)} installed" + "".join(f"; {each}" for each in bad[:_SHOWN])
    hint = "Remove the named folders, then toft plugin add again."
    return Finding("plugins", not bad, evidence, hint if bad else "")


async def _environments(patient: Patient) -> Finding:
    def look() -> tuple[list[Environment], list[str]]:
        wanted = [(each.name, each.runtime.environment) for each in Registry(patient.home).list()]
        there = Environments(patient.home, ()).list()
        hashes = {each.hash for each in there}
        return there, [name for name, digest in wanted if digest and digest not in hashes]

    there, missing = await asyncio.to_thread(look)
    problems = [
        f"{each.hash[:12]} has lost its interpreter" for each in there if not os.access(each.python, os.X_OK)
    ]
    problems += [f"plugin {name} has no environment" for name in missing]
    evidence = f"{len(there)} built" + "".join(f"; {each}" for each in problems[:_SHOWN])
    hint = f"toft plugin refresh {missing[0] if missing else 'NAME'}"
    return Finding("environments", not problems, evidence, hint if problems else "")


async def _leftovers(patient: Patient) -> Finding:
    def look() -> list[Path]:
        return [
            path
            for directory in (patient.home, *_directories(patient.home))
            for path in directory.glob(".tmp-*")
            if _owner_is_gone(path)
        ]

    found = await asyncio.to_thread(look)
    evidence = "".join((f"{len(found)} of interrupted work", *(f"; {path}" for path in found[:3])))
    return Finding("leftovers", not found, evidence if found else "none", "toft env gc" if found else "")


async def _conda(patient: Patient) -> Finding:
    prefix = patient.settings.conda_prefix or patient.home / "conda"
    tools = conda_tools.present(prefix, patient.environ)
    evidence = ", ".join(tools) or "none; only plugins with an environment.yml need it"
    # Most nodes never need one, so its absence is no fault.
    return Finding("conda", True, evidence, "" if tools else "toft env setup-runtime")


_CHECKS: Mapping[str, Callable[[Patient], Awaitable[Finding]]] = {
    "python": _python,
    "uv": _uv,
    "interpreters": _interpreters,
    "isolation": _isolation,
    "landlock": _landlock,
    "limits": _limits,
    "gpu": _gpu,
    "memory": _memory,
    "disk": _disk,
    "home": _home,
    "database": _database,
    "secrets": _secrets,
    "plugins": _plugins,
    "environments": _environments,
    "leftovers": _leftovers,
    "conda": _conda,
}


def _directories(home: Path) -> list[Path]:
    try:
        return [path for path in home.iterdir() if path.is_dir() and not path.is_symlink()]
    except FileNotFoundError:
        return []


def _owner_is_gone(path: Path) -> bool:
    """A temporary name carries the process that writes it (`toft.store.durable.temporary_name`)."""
    words = path.name.rsplit("-", 2)
    return not (len(words) == 3 and words[1].isdigit() and process_tree.read(words[1]) is not None)
