"""A plugin that does, when told, everything a plugin must not do; the node's promises are tested against it.

Every misbehaviour is an action of its own, and `execute(do="segv")` reaches each by name, so that it can be
asked for from a command line. What goes wrong in `initialize` is asked for by configuration, what goes wrong
while the module is imported by the environment variable `TOFT_MISBEHAVE_AT_IMPORT`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from toft_sdk.errors import CancelledError, FatalError, InputError, PluginError, ResourceError, TransientError
from toft_sdk.options import option
from toft_sdk.plugin import Plugin, action

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, NoReturn

_TYPED = {
    each.__name__: each
    for each in (PluginError, InputError, TransientError, ResourceError, FatalError, CancelledError)
}
_BARE = {
    each.__name__: each
    for each in (
        *(ValueError, KeyError, FileNotFoundError, TimeoutError, ConnectionError, MemoryError, RuntimeError),
        *(SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, RecursionError, BaseException),
    )
}


# Memory that was told to leak.
_held: list[bytearray] = []


@dataclass
class MisbehavingConfig:
    """What goes wrong in `initialize`."""

    at_initialize: str = option(
        "nothing", choices=["nothing", "progress", "stall", "raise", "exit", "segv", "print"], reload="start"
    )
    seconds: float = option(1.0, minimum=0, description="How long `progress` and `stall` take")
    label: str = option("plain", max_length=64, description="Something to change")


class Behaving(Plugin):
    """What a well-behaved plugin does, to be seen beside the rest."""

    @action
    def echo(self, value: Any = None) -> Any:
        """Return what was given."""
        return value

    @action
    def work(self, seconds: float = 1.0, step_s: float = 0.01) -> float:
        """Work for a while, with progress and checks for cancel; return how long it took."""
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            self.report_progress(min((time.monotonic() - start) / seconds, 1.0), "working")
            time.sleep(step_s)
        self.report_usage(seconds=seconds)
        return time.monotonic() - start

    @action
    def chunks(self, count: int = 10, size_bytes: int = 0, pause_s: float = 0.0) -> Iterator[Any]:
        """Yield numbers, or as many bytes each."""
        for index in range(count):
            if pause_s:
                time.sleep(pause_s)
            yield bytes(size_bytes) if size_bytes else index

    @action
    def child_process(self, seconds: float = 60.0) -> int:
        """Wait for a child that sleeps, ending it when the call is cancelled."""
        code = f"import time; time.sleep({float(seconds)})"
        with subprocess.Popen([sys.executable, "-I", "-c", code]) as child, self.cancel_signal_to(child):
            return child.wait()

    @action
    def where(self) -> dict[str, Any]:
        """Return the process id and the name of the thread this call runs on."""
        return {
            "pid": os.getpid(),
            "thread": threading.current_thread().name,
            "is_main": threading.current_thread() is threading.main_thread(),
            "label": getattr(self.config, "label", ""),
        }


class Erring(Plugin):
    """Raises, and returns what nobody can take."""

    @action
    def raise_error(self, kind: str = "RuntimeError", message: str = "as told") -> NoReturn:
        """Raise a typed or a bare exception, one that is no `Exception` included."""
        if kind == "InputError":
            raise InputError(message, fields={"kind": message})
        if kind == "TransientError":
            raise TransientError(message, retry_after_s=2.5)
        if kind == "ResourceError":
            raise ResourceError(
                message, resource="gpu_ram", needed_bytes=2_000_000, available_bytes=1_000_000
            )
        found: type[BaseException] = _TYPED.get(kind) or _BARE.get(kind) or RuntimeError
        raise found(message)

    @action
    def chunks_then_raise(self, count: int = 3, kind: str = "TransientError") -> Iterator[int]:
        """Yield a few numbers, then raise."""
        yield from range(count)
        self.raise_error(kind)

    @action
    def unencodable(self) -> dict[str, Any]:
        """Return something no codec should accept."""
        return {"fine": 1, "deep": [0, {"bad": object()}]}

    @action
    def endless(self) -> list[Any]:
        """Return a list that contains itself."""
        loop: list[Any] = []
        loop.append(loop)
        return loop

    @action
    def huge(self, size_bytes: int = 1_000_000_000) -> bytes:
        """Return a very large result."""
        return bytes(size_bytes)


class Hanging(Plugin):
    """Goes on and on, listening to nobody."""

    @action
    def hang(self, where: str = "python", seconds: float = 3600.0) -> str:
        """Take no notice of anything: in Python, in `c` without the GIL, in `gil` with it, in a `regex`."""
        end = time.monotonic() + seconds
        if where == "c":
            ctypes.CDLL(None).sleep(int(seconds))
        elif where == "gil":
            ctypes.PyDLL(None).sleep(int(seconds))
        elif where == "regex":
            re.match(r"(a+)+$", "a" * 64 + "b")
        elif where == "pow":
            pow(3, 3**24)
        while time.monotonic() < end:
            pass
        return where

    @action
    def swallow_cancel(self, seconds: float = 3600.0) -> str:
        """Catch every cancel and go on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(CancelledError):
                self.report_progress(-1, "not listening")
            time.sleep(0.01)
        return "done"

    @action
    def ignore_signals(self) -> None:
        """Ignore every signal that can be ignored; fails off the main thread."""
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)


class Ending(Plugin):
    """Ends without notice."""

    @action
    def segv(self) -> None:
        """Read address 0."""
        ctypes.string_at(0)

    @action
    def kill_self(self, number: int = 9) -> None:
        """Send a signal to this process."""
        os.kill(os.getpid(), number)
        time.sleep(5)

    @action
    def exit_now(self, code: int = 3) -> None:
        """Leave without cleaning up."""
        os._exit(code)


class Noisy(Plugin):
    """Writes where and as much as it should not."""

    @action
    def flood(self, lines: int = 200_000, stream: str = "stdout") -> int:
        """Print very many lines."""
        out = sys.stderr if stream == "stderr" else sys.stdout
        for index in range(lines):
            out.write(f"line {index}\n")
        out.flush()
        return lines

    @action
    def write_fds(self, text: str = "noise\n", fds: list[int] | None = None) -> dict[str, str]:
        """Write straight to file descriptors, the node's own socket among them perhaps."""
        said = {}
        for fd in fds or [1, 2, 3]:
            try:
                said[str(fd)] = f"{os.write(fd, text.encode())} bytes"
            except OSError as error:
                said[str(fd)] = str(error)
        return said

    @action
    def close_fds(self, first: int = 3, last: int = 64) -> None:
        """Close file descriptors that belong to somebody else."""
        os.closerange(first, last)

    @action
    def write_file(self, path: str, text: str = "was here\n") -> str:
        """Try to write a file; return the error, or an empty text."""
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            return str(error) or type(error).__name__
        return ""


class Spreading(Plugin):
    """Leaves processes, threads and memory behind, and moves about."""

    @action
    def fork_daemons(self, count: int = 2, ignore_term: bool = True) -> list[int]:
        """Leave daemons behind: forked twice, in sessions of their own; return their process ids."""
        return [_fork_daemon(ignore_term) for _ in range(count)]

    @action
    def start_threads(self, count: int = 1, daemon: bool = False) -> int:
        """Start threads that never end."""
        for _ in range(count):
            threading.Thread(target=_forever, daemon=daemon).start()
        return threading.active_count()

    @action
    def leak(self, size_bytes: int = 50_000_000, times: int = 1, pause_s: float = 0.0) -> int:
        """Hold on to memory that is really used; return how much is held in all."""
        for _ in range(times):
            block = bytearray(size_bytes)
            block[::4096] = b"x" * len(range(0, size_bytes, 4096))
            _held.append(block)
            time.sleep(pause_s)
        return sum(len(each) for each in _held)

    @action
    def change_directory(self, path: str = "/") -> str:
        """Change the working directory of the process."""
        os.chdir(path)
        return os.getcwd()


class Prying(Plugin):
    """Looks where it should not."""

    @action
    def look(self, paths: list[str] | None = None) -> dict[str, Any]:
        """Return what can be seen from here: files, environment, descriptors, user."""
        return {
            "files": {path: _read(path) for path in paths or []},
            "environ": dict(os.environ),
            "argv": list(sys.argv),
            "path": list(sys.path),
            "cwd": os.getcwd(),
            "fds": _descriptors(),
            "pid": os.getpid(),
            "uid": os.getuid(),
            "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        }

    @action
    def connect(self, host: str = "127.0.0.1", port: int = 80, timeout_s: float = 2.0) -> str:
        """Try to open a connection; return the error, or an empty text."""
        try:
            socket.create_connection((host, port), timeout_s).close()
        except OSError as error:
            return str(error) or type(error).__name__
        return ""


class MisbehavingPlugin(Behaving, Erring, Hanging, Ending, Noisy, Spreading, Prying):
    """Does what it is told, however bad."""

    name = "misbehaving"
    version = "1.0.0"
    Config = MisbehavingConfig
    config: MisbehavingConfig
    concurrency = 64
    fork_safe = True

    def initialize(self) -> None:
        how, end = self.config.at_initialize, time.monotonic() + self.config.seconds
        if how == "progress":
            while time.monotonic() < end:
                self.report_progress(-1, "still loading")
                time.sleep(0.05)
        elif how == "stall":
            while time.monotonic() < end:
                time.sleep(0.05)
        elif how == "raise":
            raise RuntimeError("initialize was told to raise")
        elif how == "exit":
            os._exit(7)
        elif how == "segv":
            ctypes.string_at(0)
        elif how == "print":
            self.flood(200_000)

    def execute(self, do: str = "echo", **arguments: Any) -> Any:
        """Do one of the actions by name."""
        method: Any = getattr(self, do, None)
        if do.startswith("_") or not hasattr(method, "__toft_action__"):
            raise InputError(f"there is no misbehaviour {do!r}", fields={"do": "is unknown"})
        result = method(**arguments)
        return list(result) if do in ("chunks", "chunks_then_raise") else result


def _fork_daemon(ignore_term: bool) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            if ignore_term:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, str(os.getpid()).encode())
            os.close(writing)
            _forever()
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    number = os.read(reading, 32)
    os.close(reading)
    return int(number)


def _forever() -> None:
    while True:
        time.sleep(60)


def _read(path: str) -> str:
    try:
        if os.path.isdir(path):
            return "directory: " + " ".join(sorted(os.listdir(path)))
        with open(path, "rb") as file:
            return file.read(4096).decode("utf-8", "replace")
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            # The descriptor that lists the directory is gone by now.
            continue
    return found


def _misbehave_at_import(how: str) -> None:
    if how == "raise":
        raise RuntimeError("the import was told to raise")
    if how == "hang":
        _forever()
    if how == "gil":
        ctypes.PyDLL(None).sleep(3600)
    if how == "exit":
        os._exit(9)
    if how == "segv":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "print":
        for index in range(200_000):
            sys.stdout.write(f"import line {index}\n")
    if how == "fds":
        MisbehavingPlugin().write_fds("noise at import\n")
    if how == "fork":
        sys.stdout.write(f"daemons {[_fork_daemon(True) for _ in range(2)]}\n")
    if how == "chdir":
        os.chdir("/")


_misbehave_at_import(os.environ.get("TOFT_MISBEHAVE_AT_IMPORT", ""))
