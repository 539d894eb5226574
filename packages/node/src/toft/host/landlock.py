"""What a process may do to others without any namespace: Landlock, which needs no privilege to use.

It closes two doors that namespaces leave open, signals and sockets that have a name instead of a path, and
where there are no namespaces it is what keeps a worker from writing, tracing and signalling. Standard library
only.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct

from toft.host import namespaces, sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs every keeper 0.7 MB
    from collections.abc import Sequence

_SYS_CREATE_RULESET = 444
_SYS_ADD_RULE = 445
_SYS_RESTRICT_SELF = 446
_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_CHANGE_DIRECTORY = 0b1_1111_1111 << 4  # remove and make entries of every kind
_REFER = 1 << 13  # since 2
_TRUNCATE = 1 << 14  # since 3
_SCOPE_ABSTRACT_SOCKET = 1  # since 6
_SCOPE_SIGNAL = 2

_READS = _READ_FILE | _EXECUTE
_FILE_RIGHTS = _READS | _WRITE_FILE | _TRUNCATE

# The version of the kernel's Landlock that has everything used here.
COMPLETE = 6


def version() -> int:
    """Return the version of the kernel's Landlock; 0 when there is none or it is switched off."""
    try:
        return namespaces.syscall("ask for Landlock", _SYS_CREATE_RULESET, 0, 0, _VERSION)
    except namespaces.SetupError:
        return 0


def restrict_scope() -> None:
    """No signal to, trace of or abstract socket to a process outside; where the kernel's Landlock can.

    Call it after `forbid_new_privileges`.
    """
    if version() >= COMPLETE:
        os.close(_apply(_Ruleset(0)))


def restrict_files(plan: sandbox.Plan) -> None:
    """Keep a process to its plan without any namespace, as far as this kernel's Landlock goes.

    Nothing is written but what is writable, nothing is read that is hidden; `restrict_scope` is included. It
    is weaker than mounts: names (not contents) of hidden files can be listed. And Landlock can only allow, so
    what lies beside a hidden directory is allowed by name: what appears later directly in a directory above a
    hidden one cannot be read, nor can it be made there when that directory is writable.
    """
    found = version()
    if not found:
        return
    writes = (
        _WRITE_FILE | _CHANGE_DIRECTORY | (_REFER if found >= 2 else 0) | (_TRUNCATE if found >= 3 else 0)
    )
    ruleset = _Ruleset(writes | _READS)
    hidden = [sandbox.resolve(path, "the hidden directory") for path in plan["hidden"]]
    beside = _beside([*hidden, "/dev"])
    for path in beside:
        ruleset.allow_if_there(path, _READS)
    for path in plan["writable"]:
        below = os.path.realpath(path) + "/"
        if any(one.startswith(below) for one in hidden):
            for one in filter(lambda one: one.startswith(below), beside):
                ruleset.allow_if_there(one, writes | _READS)
        else:
            ruleset.allow(path, writes | _READS, "the writable directory")
    for path in plan["read_only"]:
        ruleset.allow(path, _READS, "the read-only directory")
    for path in (*sandbox.device_paths(), "/dev/ptmx", "/dev/pts"):
        ruleset.allow_if_there(path, writes | _READS)
    os.close(_apply(ruleset))


class _Ruleset:
    def __init__(self, handled: int) -> None:
        found = version()
        size = 24 if found >= COMPLETE else 16 if found >= 4 else 8
        attributes = struct.pack("3Q", handled, 0, _SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL)[:size]
        self.fd = namespaces.syscall("make a Landlock ruleset", _SYS_CREATE_RULESET, attributes, size, 0)

    def allow(self, path: str, rights: int, purpose: str) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise namespaces.SetupError(f"open {purpose} {path}", error.errno or 0) from error
        self._add(fd, rights)

    def allow_if_there(self, path: str, rights: int) -> None:
        """Not through a link, which may lead to what is hidden."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            self._add(os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW), rights)

    def _add(self, fd: int, rights: int) -> None:
        kind = os.fstat(fd).st_mode
        try:
            if not stat.S_ISLNK(kind):
                allowed = rights if stat.S_ISDIR(kind) else rights & _FILE_RIGHTS
                rule = struct.pack("=Qi", allowed, fd)
                namespaces.syscall("add a Landlock rule", _SYS_ADD_RULE, self.fd, _PATH_BENEATH, rule, 0)
        finally:
            os.close(fd)


def _apply(ruleset: _Ruleset) -> int:
    namespaces.syscall("apply the Landlock ruleset", _SYS_RESTRICT_SELF, ruleset.fd, 0)
    return ruleset.fd


def _beside(hidden: Sequence[str]) -> list[str]:
    """Return everything that together is the file system without what is hidden."""
    above = set()
    for path in hidden:
        while path != "/":
            path = os.path.dirname(path)
            above.add(path)
    kept = []
    for directory in above:
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if path not in above and path not in hidden:
                kept.append(path)
    return kept
