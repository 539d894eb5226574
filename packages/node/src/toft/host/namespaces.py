"""The few kernel calls that isolate a process, each with a name for the step it is.

Standard library only, and small: the keeper and every process it forks import this, and each of them pays
for what is loaded here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import struct

NEW_NAMESPACE_MOUNT = 0x00020000
NEW_NAMESPACE_IPC = 0x08000000
NEW_NAMESPACE_USER = 0x10000000
NEW_NAMESPACE_PID = 0x20000000
NEW_NAMESPACE_NET = 0x40000000

MOUNT_READ_ONLY = 0x1
MOUNT_NO_SET_UID = 0x2
MOUNT_NO_DEVICES = 0x4
MOUNT_NO_EXEC = 0x8

_MS_REC = 0x4000
_MS_PRIVATE = 0x40000

_CLONE_PIDFD = 0x1000
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 0x1
_MOVE_MOUNT_FROM_EMPTY_PATH = 0x4

# These numbers are the same on every architecture: the kernel unified its tables at 424.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_CLONE3 = 435
_SYS_MOUNT_SETATTR = 442

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
# Root is nobody special on exec, a change of user id gives nothing, nothing can be kept; all locked.
_SECURE_BITS = 0xEF

# PyDLL keeps the interpreter lock over the call: a child made by clone3 starts with it in order.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class SetupError(Exception):
    """A step towards an isolated process failed.

    Args:
        step: What was being done, in words and with the path it was done to.
        number: The errno.
    """

    def __init__(self, step: str, number: int) -> None:
        super().__init__(f"{step}: {os.strerror(number)}")
        self.step = step
        self.number = number


def _checked(step: str, result: int) -> int:
    if result < 0:
        raise SetupError(step, ctypes.get_errno())
    return result


def syscall(step: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Make a kernel call; a failure names the step."""
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(step, int(_libc.syscall(ctypes.c_long(number), *passed)))


def prctl(step: str, option: int, *values: int) -> int:
    """Change something about this process; a failure names the step."""
    padded = [*values, 0, 0, 0, 0][:4]
    return _checked(step, int(_libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(v) for v in padded))))


def clone(flags: int) -> tuple[int, int]:
    """Fork into new namespaces.

    One call instead of unshare, fork and setns back: the caller's own namespaces never change, so it needs
    no right over the one it came from. Only for a process with a single thread.

    Returns:
        (0, -1) in the child; in the parent the child's pid and a pidfd for it.
    """
    pidfd = ctypes.c_int(-1)
    arguments = struct.pack(
        "8Q", flags | _CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, 0, 0, 0
    )
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    pid = syscall("create namespaces", _SYS_CLONE3, buffer, len(arguments))
    return pid, pidfd.value if pid else -1


def enter_user_namespace() -> None:
    """Give this process every capability over namespaces of its own, and its user id unchanged."""
    uid, gid = os.geteuid(), os.getegid()
    _checked("create a user namespace", int(_libc.unshare(ctypes.c_int(NEW_NAMESPACE_USER))))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        except OSError as error:
            raise SetupError(f"map the user namespace ({name})", error.errno or errno.EPERM) from error


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the process that forked it dies."""
    prctl("tie to the parent", _PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent has died."""
    prctl("adopt orphans", _PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """Name this process in lists of processes."""
    text = ctypes.create_string_buffer(name.encode()[:15], 16)
    _libc.prctl(ctypes.c_int(_PR_SET_NAME), text, 0, 0, 0)


def forbid_inspection() -> None:
    """Nobody without capabilities may trace this process or read its memory, files and environment."""
    prctl("forbid inspection", _PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Set-user-id programs and file capabilities give nothing any more, to this process or its children."""
    prctl("forbid new privileges", _PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up every capability for good, bounding set included; user id 0 is then an ordinary user.

    Call it after `forbid_new_privileges`, which alone already keeps a capability from coming back: where this
    process may not lock the bits and the bounding set as well, that is enough.
    """
    with contextlib.suppress(SetupError):
        prctl("lock the secure bits", _PR_SET_SECUREBITS, _SECURE_BITS)
        prctl("clear ambient capabilities", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        for capability in range(64):  # the first one this kernel does not know ends it
            prctl("drop the bounding set", _PR_CAPBSET_DROP, capability)
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0), 8)
    nothing = ctypes.create_string_buffer(24)
    _checked("drop capabilities", int(_libc.capset(header, nothing)))


def make_mounts_private() -> None:
    """What is mounted from here on is seen by this mount namespace alone."""
    _checked(
        "make mounts private", int(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    )


def mount(kind: str, target: str, flags: int, options: str = "") -> None:
    """Mount a fresh file system of that kind."""
    name = kind.encode()
    result = _libc.mount(name, os.fsencode(target), name, ctypes.c_ulong(flags), options.encode() or None)
    _checked(f"mount {kind} on {target}", int(result))


def copy_mounts(path: str, purpose: str) -> int:
    """Return a descriptor of an unattached copy of everything mounted at a path and below."""
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    return syscall(f"open {purpose} {path}", _SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)


def attach_mounts(copied: int, target: str, purpose: str) -> None:
    """Attach what `copy_mounts` returned."""
    step = f"place {purpose} {target}"
    syscall(step, _SYS_MOVE_MOUNT, copied, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_FROM_EMPTY_PATH)


def protect_mounts(where: int | str, attributes: int, *, recursive: bool = True) -> None:
    """Set attributes on a mount (and all below it), given by path or as an unattached copy."""
    attr = struct.pack("4Q", attributes, 0, 0, 0)
    buffer = ctypes.create_string_buffer(attr, len(attr))
    directory, path = (where, b"") if isinstance(where, int) else (_AT_FDCWD, os.fsencode(where))
    flags = (_AT_EMPTY_PATH if isinstance(where, int) else 0) | (_AT_RECURSIVE if recursive else 0)
    step = "make mounts read-only" if isinstance(where, int) else f"make {where} read-only"
    syscall(step, _SYS_MOUNT_SETATTR, directory, path, flags, buffer, len(attr))


def raise_loopback() -> None:
    """Bring up `lo` in a new network namespace."""
    import fcntl  # noqa: PLC0415 - only a worker without a network needs it

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(
                sock, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40)
            )  # SIOCSIFFLAGS, up and running
        except OSError as error:
            raise SetupError("bring up the loopback device", error.errno or errno.EPERM) from error
