"""What a hostile plugin tries. Runs inside a worker: standard library only.

Reads what it knows about the machine as JSON from descriptor 3, tries each thing, and writes to descriptor 4
as JSON which of them worked; an attempt that is refused raises, and the reason is kept beside it.
"""

import ctypes
import json
import mmap
import os
import signal
import socket
import struct

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID = 0x10000000, 0x00020000, 0x20000000
MS_REMOUNT, MS_BIND, MS_REC, MNT_DETACH = 32, 4096, 16384, 2
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206


def call(function, *arguments):
    result = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def read(path):
    with open(path, "rb") as file:
        content = file.read(4096)
    if not content:
        raise OSError("nothing in it")
    return content


def write(path):
    with open(path, "ab") as file:
        file.write(b"was here")


def entries(path):
    found = os.listdir(path)
    if not found:
        raise OSError("empty")
    return found


def reach_file(facts):
    """The ways to the host's own files."""
    yield "read the database", lambda: read(facts["database"])
    yield "read another plugin's secret", lambda: read(facts["secret"])
    yield "list the home", lambda: [n for n in entries(facts["home"]) if n not in facts["shown"]][0]
    yield "read the secret through /proc/1/root", lambda: read("/proc/1/root" + facts["secret"])
    yield "read the secret through /proc/1/cwd", lambda: read("/proc/1/cwd" + facts["secret"])
    yield "write to the environment", lambda: write(facts["environment"] + "/new")
    yield "write to the database", lambda: write(facts["database"])
    yield "write to another plugin's data", lambda: write(facts["other_data"] + "/new")
    for path in facts["protected"]:
        yield "write to " + path, lambda path=path: write(path + "/toft-was-here")


def reach_mounts(facts):
    """The ways to undo the sandbox, with and without a user namespace of one's own."""

    def umount(path):
        call(libc.umount2, path.encode(), MNT_DETACH)
        return read(facts["secret"])

    def remount():
        call(libc.mount, None, facts["environment"].encode(), None, MS_REMOUNT | MS_BIND, None)
        write(facts["environment"] + "/new")

    def bind_below():
        parent = os.path.dirname(facts["home"])
        call(libc.mount, parent.encode(), b"/tmp", None, MS_BIND, None)
        return read("/tmp/" + os.path.relpath(facts["secret"], parent))

    def bind_all():
        call(libc.mount, b"/", b"/tmp", None, MS_BIND | MS_REC, None)
        call(libc.umount2, b"/tmp" + facts["home"].encode(), MNT_DETACH)
        return read("/tmp" + facts["secret"])

    def proc():
        call(libc.mount, b"proc", b"/proc", b"proc", 0, None)
        write("/proc/sys/kernel/core_pattern")

    def setattr_writable():
        clear = struct.pack("4Q", 0, 1, 0, 0)  # take the read-only attribute away
        call(libc.syscall, 442, -100, facts["environment"].encode(), 0x8000, clear, 32)
        write(facts["environment"] + "/new")

    def in_user_namespace(attempt):
        def run():
            call(libc.unshare, CLONE_NEWUSER | CLONE_NEWNS)
            return attempt()

        return run

    attempts = {
        "unmount the mask": lambda: umount(facts["home"]),
        "unmount /proc": lambda: (call(libc.umount2, b"/proc", MNT_DETACH), read("/proc/1/environ"))[1],
        "remount the environment": remount,
        "bind what is below the mask": bind_below,
        "bind everything and unmount": bind_all,
        "mount a writable /proc": proc,
        "take the read-only attribute away": setattr_writable,
    }
    for name, attempt in attempts.items():
        yield name, attempt
        yield name + " in a user namespace", in_user_namespace(attempt)
    yield "chroot", lambda: os.chroot("/tmp")
    yield "enter the mounts of process 1", lambda: call(libc.setns, os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)


def reach_processes(facts):
    """The ways to the host, the keeper and the first process of the namespace."""
    for name in ("host", "keeper", "neighbour"):
        pid = facts[name]
        yield "signal the " + name, lambda pid=pid: os.kill(pid, signal.SIGCONT)
        yield "read the environment of the " + name, lambda pid=pid: holds(facts, read_proc(pid, "environ"))
        yield "read the descriptors of the " + name, lambda pid=pid: descriptors(pid)
        yield "read the memory of the " + name, lambda pid=pid: read_memory(pid)
        yield "trace the " + name, lambda pid=pid: call(libc.ptrace, PTRACE_SEIZE, pid, 0, 0)
    yield "take a descriptor of the host by its socket", lambda: steal_descriptor()
    yield "signal the host by its socket", lambda: signal.pidfd_send_signal(peer(), signal.SIGCONT)


def reach_init(facts):
    """The ways to the first process of the namespace, which only exists with namespaces."""
    yield "trace process 1", lambda: call(libc.ptrace, PTRACE_SEIZE, 1, 0, 0)
    yield "read the environment of process 1", lambda: read("/proc/1/environ")
    yield "read the memory of process 1", lambda: read_memory(1)
    yield "kill process 1", lambda: os.kill(1, signal.SIGKILL) or still_here()


def still_here():
    # A signal to process 1 from inside is accepted and dropped; only what happens counts.
    raise OSError("process 1 is still there")


def read_proc(pid, name):
    return read(f"/proc/{pid}/{name}")


def holds(facts, environ):
    if facts["token"].encode() not in environ:
        raise OSError("that is not the environment of the host")
    return environ


def descriptors(pid):
    return [os.readlink(f"/proc/{pid}/fd/{name}") for name in entries(f"/proc/{pid}/fd")]


def read_memory(pid):
    with open(f"/proc/{pid}/mem", "rb", 0) as file:
        return file


def peer():
    with socket.socket(fileno=os.dup(5)) as sock:
        return struct.unpack("i", sock.getsockopt(socket.SOL_SOCKET, 77, 4))[0]  # SO_PEERPIDFD


def steal_descriptor():
    return call(libc.syscall, 438, peer(), 1, 0)  # pidfd_getfd


def reach_kernel(facts):
    """The ways to devices, kernel settings and other system services."""
    yield "make a disk device", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0))
    yield "make a memory device", lambda: os.mknod("/tmp/mem", 0o20600, os.makedev(1, 1))
    for device in facts["devices"]:
        yield "open " + device, lambda device=device: os.open(device, os.O_RDONLY | os.O_NONBLOCK)
    yield "set the core pattern", lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)
    yield "press the magic key", lambda: os.open("/proc/sysrq-trigger", os.O_WRONLY)
    yield "make a control group", lambda: os.mkdir(facts["group"])
    yield "load a module", lambda: call(libc.syscall, 175, None, 0, b"")
    yield "set the host's name", lambda: call(libc.sethostname, b"mine", 4)
    yield "read the kernel's log", lambda: call(libc.klogctl, 3, ctypes.create_string_buffer(9), 9)
    yield "take a better priority", lambda: os.nice(-5)
    yield "become root again", lambda: call(libc.setresuid, 0, 0, 0) if os.getuid() else os.setgroups([4])
    if os.uname().machine == "x86_64":
        yield "look at the user's keyring", lambda: call(libc.syscall, 250, 6, -4, None, 0)
    yield "reach an abstract socket", lambda: connect(b"\0" + facts["abstract"].encode())
    yield "reach the agent that holds the user's keys", lambda: connect(facts["agent"].encode())
    yield "reach a system service", lambda: connect(facts["service"].encode())


def connect(address):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(address)


GROUPS = {
    "files": reach_file,
    "mounts": reach_mounts,
    "processes": reach_processes,
    "init": reach_init,
    "kernel": reach_kernel,
}


def attempt_in_fork(attempt):
    """Try it in a process of its own, since some of these change the process that tries."""
    shared = mmap.mmap(-1, 1024)
    pid = os.fork()
    if pid == 0:
        try:
            said = {"worked": True, "why": repr(attempt())[:200]}
        except BaseException as error:  # noqa: BLE001 - whatever stopped it is the answer
            said = {"worked": False, "why": repr(error)[:200]}
        shared.write(json.dumps(said).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return json.loads(shared[:].rstrip(b"\0") or b'{"worked": false, "why": "died"}')


def main():
    facts = json.loads(os.read(3, 65536))
    results = {
        name: attempt_in_fork(attempt) for group in facts["groups"] for name, attempt in GROUPS[group](facts)
    }
    text = json.dumps(results).encode()
    while text:
        text = text[os.write(4, text) :]


main()
