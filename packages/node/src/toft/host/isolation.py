"""What separates plugins on this machine, found out by doing it; `toft doctor` shows it."""

from __future__ import annotations

import asyncio
from typing import Any

from toft.host import gpus, landlock, limits
from toft.host.keeper import Isolation, Keeper
from toft.kernel.errors import NodeError

_ENABLE_NAMESPACES = (
    "Run the node as root, or allow user namespaces: sysctl user.max_user_namespaces above 0, and on Ubuntu "
    "kernel.apparmor_restrict_unprivileged_userns=0. In a container give it CAP_SYS_ADMIN and an unmasked "
    "/proc (podman: --cap-add SYS_ADMIN --security-opt unmask=ALL)."
)
_ENABLE_LANDLOCK = "Boot a kernel from 6.12 on with landlock in its lsm= list."
_ENABLE_GROUPS = (
    "Run the node as root, or as a systemd service with Delegate=yes, so that it may make control groups."
)


async def isolation_report() -> list[dict[str, Any]]:
    """Return what isolates workers here, each as check, ok, evidence and what to do next."""
    try:
        keeper = await Keeper.start()
    except NodeError as error:
        return [_check("keeper", False, error.message, error.hint or "toft doctor")]
    await keeper.close()
    mechanisms = await asyncio.to_thread(limits.probe)
    reading = await asyncio.to_thread(_read_gpus)
    return [
        _check("keeper", True, "starts, and ends what it started", ""),
        _namespaces(keeper.isolation),
        _landlock(keeper.isolation),
        _limit("memory limit", mechanisms["memory"]),
        _limit("process limit", mechanisms["pids"]),
        _gpus(reading),
    ]


def _namespaces(found: Isolation) -> dict[str, Any]:
    if found.mode == "namespaces":
        evidence = "each worker has its own processes, mounts, IPC and devices, and no capability"
        return _check("namespaces", True, evidence, "")
    kept = "Landlock holds back writes, hidden files, signals and traces"
    without = kept if found.landlock >= landlock.COMPLETE else "file modes alone protect files"
    return _check("namespaces", False, f"not here: {found.reason}; {without}", _ENABLE_NAMESPACES)


def _landlock(found: Isolation) -> dict[str, Any]:
    if found.landlock >= landlock.COMPLETE:
        evidence = f"version {found.landlock}: no signal, trace or abstract socket leaves a worker"
        return _check("landlock", True, evidence, "")
    told = (
        f"version {found.landlock}, {landlock.COMPLETE} is needed" if found.landlock else "not in this kernel"
    )
    return _check("landlock", False, told, _ENABLE_LANDLOCK)


def _limit(name: str, mechanism: str) -> dict[str, Any]:
    if mechanism != "rlimit":
        return _check(name, True, f"{mechanism}: holds for all processes of a worker together", "")
    return _check(name, False, "rlimit only: holds for each process alone", _ENABLE_GROUPS)


def _gpus(reading: gpus.GpuReading) -> dict[str, Any]:
    names = ", ".join(f"{gpu.index}: {gpu.name}" for gpu in reading.gpus)
    return _check("gpu", True, names or f"none ({reading.reason})", "")


def _read_gpus() -> gpus.GpuReading:
    reader = gpus.open_reader()
    try:
        return reader.read()
    finally:
        reader.close()


def _check(name: str, ok: bool, evidence: str, following: str) -> dict[str, Any]:
    return {"check": name, "ok": ok, "evidence": evidence, "next": following}
