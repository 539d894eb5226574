"""What a worker sees of the file system: everything read-only, secrets masked, a few places writable.

Runs in the first process of the worker's namespaces, before capabilities are dropped. A worker cannot undo
it: unmounting needs a capability it does not have, and a user namespace of its own finds the mounts locked.
Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os

from toft.host import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs every keeper 0.7 MB
    from collections.abc import Iterable, Sequence
    from typing import TypedDict

    class Plan(TypedDict):
        """A `toft.host.keeper.Sandbox` as it travels to the keeper."""

        hidden: Sequence[str]
        read_only: Sequence[str]
        writable: Sequence[str]
        network: bool


_SAFE = namespaces.MOUNT_NO_SET_UID | namespaces.MOUNT_NO_DEVICES
_READ_ONLY = namespaces.MOUNT_READ_ONLY | namespaces.MOUNT_NO_SET_UID
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# Accelerators; a camera or a disk must be granted by name in `writable`.
_DEVICE_PREFIXES = ("nvidia", "dri", "kfd", "accel")
_DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
# /run holds sockets of system services, which obey anybody with user id 0; the rest shows kernel internals.
_ALWAYS_HIDDEN = (
    "/run",
    "/var/run",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/sys/kernel/security",
    "/sys/firmware",
)
# Directories in /tmp with sockets that act for the user: agents that hold keys, terminals, the desktop.
_AGENTS = ("ssh-", "tmux-", "emacs", "podman-run-", ".X11-unix", ".ICE-unix", "dbus-")
# Name resolution reads these, and drivers look up their libraries here.
_SHOWN_AGAIN = (
    "/run/systemd/resolve/resolv.conf",
    "/run/systemd/resolve/stub-resolv.conf",
    "/run/resolvconf/resolv.conf",
    "/run/NetworkManager/resolv.conf",
    "/run/opengl-driver",
    "/run/current-system",
)


class _Place:
    """Something that is attached again after everything has been made read-only or masked."""

    def __init__(self, path: str, purpose: str, *, writable: bool) -> None:
        self.path = resolve(path, purpose)
        self._purpose = purpose
        self._is_directory = os.path.isdir(self.path)
        self._copied = namespaces.copy_mounts(self.path, purpose)
        if not writable:
            namespaces.protect_mounts(self._copied, _READ_ONLY)

    def attach(self) -> None:
        """Put it where it was; the place is made again when a mask has taken it away."""
        if not os.path.lexists(self.path):
            try:
                os.makedirs(self.path if self._is_directory else os.path.dirname(self.path), exist_ok=True)
                if not self._is_directory:
                    os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
            except OSError as error:
                raise namespaces.SetupError(f"place {self._purpose} {self.path}", error.errno or 0) from error
        namespaces.attach_mounts(self._copied, self.path, self._purpose)
        os.close(self._copied)


class _Mask:
    """A directory that shows as empty."""

    def __init__(self, path: str) -> None:
        self.path = resolve(path, "the hidden directory")

    def attach(self) -> None:
        """Cover it, unless a mask further up covers it already."""
        if os.path.isdir(self.path):
            namespaces.mount("tmpfs", self.path, _SAFE | namespaces.MOUNT_NO_EXEC, "mode=0555,size=1m")


def resolve(path: str, purpose: str) -> str:
    """Resolve symbolic links now: a mask and what is placed over it must mean the same directory."""
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        raise namespaces.SetupError(f"open {purpose} {path}", error.errno or 0) from error
    if real == "/":
        raise namespaces.SetupError(f"open {purpose} {path}", errno.EINVAL)
    return real


def enter(plan: Plan) -> None:
    """Change what this process and its children see.

    Raises:
        namespaces.SetupError: Names the step and the path that failed.
    """
    namespaces.make_mounts_private()
    places = [_Place(path, "the writable directory", writable=True) for path in plan["writable"]]
    places += [_Place(path, "the read-only directory", writable=False) for path in plan["read_only"]]
    places += [_Place(path, "the system path", writable=False) for path in _existing(_SHOWN_AGAIN)]
    masks = [_Mask(path) for path in plan["hidden"]]
    masks += [_Mask(path) for path in _existing((*_ALWAYS_HIDDEN, *_agents())) if not os.path.islink(path)]
    devices = [_Place(path, "the device", writable=True) for path in device_paths()]

    namespaces.protect_mounts("/", _READ_ONLY)
    _make_devices(devices)
    # From the top down, so that what lies deeper shows: a data directory in the hidden home, and that home
    # hidden again in a granted directory above it. At one path the mask comes first.
    steps: list[_Mask | _Place] = [*masks, *places]
    for step in sorted(steps, key=lambda step: step.path.count("/")):
        step.attach()
    shown = {place.path for place in places}
    for path in {"/dev", *(mask.path for mask in masks)} - shown:
        if os.path.isdir(path):
            namespaces.protect_mounts(path, namespaces.MOUNT_READ_ONLY, recursive=False)
    mount_proc()
    if not plan["network"]:
        namespaces.raise_loopback()


def mount_proc() -> None:
    """Show the processes of this PID namespace only.

    Read-only, because user id 0 may write kernel settings below /proc/sys without any capability.
    """
    namespaces.mount("proc", "/proc", _SAFE | namespaces.MOUNT_NO_EXEC | namespaces.MOUNT_READ_ONLY)


def _agents() -> list[str]:
    with contextlib.suppress(OSError):
        return [f"/tmp/{name}" for name in os.listdir("/tmp") if name.startswith(_AGENTS)]
    return []


def _existing(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if os.path.lexists(path)]


def device_paths() -> list[str]:
    """Return the devices a worker may use: the harmless ones and accelerators."""
    names = [name for name in os.listdir("/dev") if name in _DEVICES or name.startswith(_DEVICE_PREFIXES)]
    return [f"/dev/{name}" for name in names]


def _make_devices(devices: Sequence[_Place]) -> None:
    """Build a /dev with nothing that reaches a disk, the kernel's memory or its log."""
    namespaces.mount("tmpfs", "/dev", _SAFE | namespaces.MOUNT_NO_EXEC, "mode=0755,size=1m")
    for device in devices:
        device.attach()
    for name, target in _DEVICE_LINKS:
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/shm")
    namespaces.mount("tmpfs", "/dev/shm", _SAFE, "mode=1777")
    os.mkdir("/dev/pts")
    namespaces.mount(
        "devpts", "/dev/pts", _SAFE & ~namespaces.MOUNT_NO_DEVICES, "newinstance,ptmxmode=0666,mode=0600"
    )
