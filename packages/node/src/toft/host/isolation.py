"""What separates plugins on this machine, found out by doing it; `toft doctor` shows it.

Each function returns one entry: check, ok, evidence, next. Something weaker than it could be, but not wrong,
is ok and says in `next` what would make it stronger.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from toft.host import gpus, landlock, limits
from toft.host.keeper import Isolation, Keeper

_ENABLE_NAMESPACES = (
    "Run the node as root, or allow user namespaces: sysctl user.max_user_namespaces above 0, and on Ubuntu "
    "kernel.apparmor_restrict_unprivileged_userns=0. In a container give it CAP_SYS_ADMIN and an unmasked "
    "/proc (podman: --cap-add SYS_ADMIN --security-opt unmask=ALL)."
)
_ENABLE_LANDLOCK = "A kernel from 6.12 on, with landlock in its lsm= list, closes that too."
_ENABLE_GROUPS = (
    "Run the node as root, or as a systemd service with Delegate=yes: then limits hold for whole trees."
)


async def separation(wanted: Literal["auto", "namespaces", "plain"] = "auto") -> dict[str, Any]:
    """Return whether workers get namespaces; plain is no fault where it was asked for.

    Raises:
        NodeError: The keeper cannot be started.
    """
    keeper = await Keeper.start(wanted)
    await keeper.close()
    found = keeper.isolation
    if found.mode == "namespaces":
        evidence = "namespaces: a worker has its own processes, mounts, IPC and devices, and no capability"
        return _entry("isolation", True, evidence, "")
    chosen = wanted == "plain"
    evidence = f"plain ({'as asked for' if chosen else found.reason}): {_what_is_left(found)}"
    return _entry("isolation", chosen, evidence, "" if chosen else _ENABLE_NAMESPACES)


async def signals_and_sockets() -> dict[str, Any]:
    """Return how far Landlock goes here."""
    found = await asyncio.to_thread(landlock.version)
    if found >= landlock.COMPLETE:
        evidence = f"version {found}: no signal, trace or abstract socket leaves a worker"
        return _entry("landlock", True, evidence, "")
    told = f"version {found}, and {landlock.COMPLETE} is complete" if found else "not in this kernel"
    return _entry(
        "landlock", True, f"{told}: abstract sockets of this machine are open to workers", _ENABLE_LANDLOCK
    )


async def limit_mechanisms() -> dict[str, Any]:
    """Return what would hold a limit of memory and of processes."""
    found = await asyncio.to_thread(limits.probe)
    evidence = ", ".join(f"{name} by {mechanism}" for name, mechanism in found.items())
    if "rlimit" in found.values():
        return _entry("limits", True, f"{evidence} (for each process alone)", _ENABLE_GROUPS)
    return _entry("limits", True, f"{evidence} (for all processes of a worker together)", "")


async def graphics() -> dict[str, Any]:
    """Return the GPUs, or why there are none; having none is no fault."""
    reading = await asyncio.to_thread(_read_gpus)
    names = ", ".join(f"{gpu.index}: {gpu.name}" for gpu in reading.gpus)
    return _entry("gpu", True, names or f"none ({reading.reason})", "")


def _what_is_left(found: Isolation) -> str:
    if found.landlock >= landlock.COMPLETE:
        return "Landlock holds back writes, hidden files, signals and traces; names of files can be listed"
    if found.landlock:
        return "Landlock holds back writes and hidden files; other processes can be signalled"
    return "trees are ended whole, but a plugin can read and write what this user can"


def _read_gpus() -> gpus.GpuReading:
    reader = gpus.open_reader()
    try:
        return reader.read()
    finally:
        reader.close()


def _entry(name: str, ok: bool, evidence: str, following: str) -> dict[str, Any]:
    return {"check": name, "ok": ok, "evidence": evidence, "next": following}
