"""The filter of system calls, run by a small interpreter of the kernel's instructions."""

import socket

import pytest

from toft.host import seccomp

ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x0005000D, 0x80000000
X86_64 = (0xC000003E, 41, (248, 249, 250))
AARCH64 = (0xC00000B7, 198, (217, 218, 219))
IO_URING_SETUP = 425


def decide(machine: tuple[int, int, tuple[int, ...]], call: tuple[int, int, int], *, network: bool) -> int:
    """Return what the filter says to (architecture, number, first argument)."""
    loads = {4: call[0], 0: call[1], 16: call[2]}
    program = seccomp._filter(*machine, network=network)
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, value = program[position]
        position += 1
        if code == 0x20:
            accumulator = loads[value]
        elif code == 0x06:
            return value
        else:
            holds = accumulator == value if code == 0x15 else accumulator >= value
            position += if_true if holds else if_false


@pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=["x86_64", "aarch64"])
@pytest.mark.parametrize("network", [True, False])
def test_keyrings_are_refused_and_ordinary_calls_are_not(
    machine: tuple[int, int, tuple[int, ...]], network: bool
) -> None:
    architecture, _, keyring = machine
    for number in range(500):
        said = decide(machine, (architecture, number, socket.AF_UNIX), network=network)
        refused = number in keyring or (number == IO_URING_SETUP and not network)
        assert said == (REFUSED if refused else ALLOWED), number


@pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=["x86_64", "aarch64"])
def test_without_a_network_only_sockets_of_this_machine_are_made(
    machine: tuple[int, int, tuple[int, ...]],
) -> None:
    architecture, make_socket, _ = machine
    for family in range(50):
        call = (architecture, make_socket, family)
        assert decide(machine, call, network=True) == ALLOWED
        assert decide(machine, call, network=False) == (ALLOWED if family == socket.AF_UNIX else REFUSED)


@pytest.mark.parametrize("network", [True, False])
def test_another_table_of_calls_is_no_way_around(network: bool) -> None:
    i386, x32 = 0x40000003, 0x40000000
    assert decide(X86_64, (i386, 1, 0), network=network) == KILLED
    for number in (0, 41, 250):
        assert decide(X86_64, (X86_64[0], x32 + number, 0), network=network) == REFUSED
