"""System calls a worker never gets: kernel keyrings always, sockets to a network where it is to have none.

Keyrings belong to a user, not to a namespace, so nothing else keeps a worker from its user's keys.
The filter is inherited by every child and never comes off. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

from toft.host import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs every keeper 0.7 MB
    from collections.abc import Sequence

_LOAD_WORD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_AT_LEAST = 0x35
_RETURN = 0x06

_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EACCES
_KILL = 0x80000000

_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_IO_URING_SETUP = 425  # its requests make sockets without a system call of their own
_X32 = 0x40000000  # a second table of calls on the same architecture

# What the kernel calls the architecture, the number of socket, of add_key, request_key and keyctl.
_KNOWN = {
    "x86_64": (0xC000003E, 41, (248, 249, 250)),
    "aarch64": (0xC00000B7, 198, (217, 218, 219)),
    "riscv64": (0xC00000F3, 198, (217, 218, 219)),
}

_SET_MODE_FILTER = 1
_SPECULATION_ALLOWED = 4  # the filter guards calls, not memory; without this it may slow all code down
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277}


def restrict(*, network: bool) -> None:
    """Refuse this process and its children the calls; use after `forbid_new_privileges`.

    Args:
        network: False also leaves it only sockets that stay on this machine.

    Raises:
        SetupError: The network cannot be refused here; the process must not run then.
    """
    machine = os.uname().machine
    if machine not in _KNOWN:
        if network:
            return
        raise namespaces.SetupError("refuse the network", errno.EOPNOTSUPP)
    program = b"".join(struct.pack("HBBI", *step) for step in _filter(*_KNOWN[machine], network=network))
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code)))
    try:
        namespaces.syscall(
            "filter system calls", _SYS_SECCOMP[machine], _SET_MODE_FILTER, _SPECULATION_ALLOWED, header
        )
    except namespaces.SetupError:
        if not network:
            raise


def _filter(
    architecture: int, socket_call: int, keyring_calls: Sequence[int], *, network: bool
) -> list[tuple[int, int, int, int]]:
    """Return the instructions as (code, steps to skip if true, if false, value)."""
    steps = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD_WORD, 0, 0, _NUMBER),
    ]
    # Each test that holds falls through to a refusal, each that does not skips it.
    steps += [(_JUMP_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    refused = [*keyring_calls] if network else [*keyring_calls, _IO_URING_SETUP]
    for number in refused:
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    if not network:
        steps += [
            (_JUMP_EQUAL, 0, 3, socket_call),
            (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT),
            (_JUMP_EQUAL, 1, 0, socket.AF_UNIX),
            (_RETURN, 0, 0, _REFUSE),
        ]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]
