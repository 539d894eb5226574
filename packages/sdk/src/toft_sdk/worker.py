"""The child's main: handshake, read, run, answer; ends when the host goes.

While it waits, the main thread reads the socket itself, so a short call costs no change of thread. When a
call takes longer than a few milliseconds the `Sentinel` reads in its place: cancels, pings and credits arrive
while the plugin computes, imports or sleeps. A plugin that takes several calls at once gets its first one
here too; those that come, or wait, while that one runs long go to threads.
"""

from __future__ import annotations

import os
import sys
from time import monotonic

from toft_sdk import __version__, context
from toft_sdk.answers import described, stacks, unencodable
from toft_sdk.calls import WorkerCall
from toft_sdk.capture import Capture, TaggedStream
from toft_sdk.codec import is_plain
from toft_sdk.errors import FatalError
from toft_sdk.link import Link, above
from toft_sdk.sentinel import Sentinel
from toft_sdk.threads import Threads
from toft_sdk.wire import INLINE_BYTES, PROTOCOL, EncodeError, ProtocolError, decode, encode, slices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Any, Callable, NoReturn

    from toft_sdk.segments import Segments
else:
    try:  # `collections` around it costs a start 1.5 ms.
        from _collections import deque
    except ImportError:
        from collections import deque

_MAX_THREADS = 64


class Worker:
    """One connection, one plugin."""

    def __init__(self, link: Link, welcome: dict[str, Any]) -> None:
        self.link = link
        self._welcome = welcome
        self._calls: dict[int, WorkerCall] = {}
        self._queue: deque[WorkerCall] = deque()
        self._hosted: Any = None
        self._threads: Threads | None = None
        self._is_next = (
            True  # whether what is read now is for the main thread; only who holds the read lock looks
        )
        self._sentinel = Sentinel(link.fileno(), self.read, self.glance, self.relieve, above, give_up)
        self._streams = [TaggedStream(sys.stdout, "stdout", link), TaggedStream(sys.stderr, "stderr", link)]
        self._capture: Capture | None = None
        self._segments: Segments | None = None
        self._has_segments = "segments" in welcome.get("capabilities", ())
        self._kinds: dict[str, Callable[[list[Any], Any], None]] = {
            "cancel": self._on_cancel,
            "credit": self._on_credit,
            "ping": self._on_ping,
            "segment": self._on_segment,
        }

    # -- reading ---------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Answer requests until the host goes."""
        queue, sentinel = self._queue, self._sentinel
        sentinel.is_busy = True
        sentinel.start()
        self._take_frames()  # what came in one piece with the welcome
        self._is_next = False
        while True:
            if queue:
                try:
                    call = queue.popleft()
                except IndexError:
                    continue  # `relieve` was quicker
                sentinel.current = call.number
                sentinel.watch()
                self._run(call)
                continue
            sentinel.is_busy = False
            if not sentinel.read_lock.acquire(False):
                sentinel.give_back()
            self._is_next = True
            try:
                while not queue:
                    if not self.link.receive_next():
                        leave(0)
                    self._take_frames()
            finally:
                self._is_next = False
                sentinel.is_busy = True
                sentinel.read_lock.release()

    def capture(self, fds: list[int]) -> None:
        """Put pipes behind the descriptors 1 and 2.

        Args:
            fds: The reading ends, then the writing ends.
        """
        reading = [above(fd) for fd in fds[:2]]
        for target, fd in enumerate(fds[2:4], 1):
            os.dup2(fd, target)
            os.close(fd)
        for stream in (sys.stdout, sys.stderr):
            # By lines, so that a crash swallows none; and a lone surrogate in a line is no error.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
        self._capture = self._sentinel.capture = Capture(self.link, reading, self._sentinel.tag)

    def close_in_fork(self) -> None:
        """Close, in a process that the plugin forked, what belongs to this worker alone."""
        if self.link.detach():
            for fd in (*self._sentinel.fds(), *(self._capture.fds if self._capture is not None else ())):
                os.close(fd)

    def read(self) -> None:
        """Take in what the socket has, wait for it if need be; the caller holds the read lock."""
        if not self.link.receive():
            leave(0)
        self._take_frames()

    def glance(self) -> None:
        """Read what is there for a main thread that is busy with one short call after the other."""
        self._is_next = True
        try:
            self.read()
        finally:
            self._is_next = False

    def relieve(self) -> None:
        """Give to threads what waits behind a call that runs long, where the plugin takes several at once."""
        if self._threads is None:
            return
        kept = []
        while self._queue:
            try:
                call = self._queue.popleft()
            except IndexError:
                break
            if call.op in ("call", "stream"):
                self._threads.submit(call)
            else:
                kept.append(call)
        self._queue.extend(kept)

    def _take_frames(self) -> None:
        try:
            while True:
                frame = self.link.take()
                if frame is None:
                    return
                self._on_frame(*frame)
        except (ProtocolError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            self.link.send(["protocol_error", 0, str(error)[:1000]])
            leave(3)

    def _on_frame(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        kind = header[0]
        if kind == "request":
            _, number, op, window, tree, *places = header
            call = WorkerCall(self.link, number, op, window, tree)
            self._calls[number] = call
            if tagged or tail:
                call.buffers = slices(places[0], tail, self._lease) if places else ()
                call.is_tagged = True
            if self._is_next or self._threads is None or op not in ("call", "stream"):
                self._queue.append(call)
            else:
                self._threads.submit(call)
            return
        found = self._kinds.get(kind)
        if found is None:
            raise ProtocolError(f"unknown kind {ascii(kind)[:60]}")
        found(header, tail)

    def _lease(self, number: int, size: int) -> Any:
        if self._segments is None:
            raise ProtocolError("a buffer is in a segment, and none was sent")
        return self._segments.lease(number, size)

    def _bulk(self) -> Segments:
        if self._segments is None:
            from toft_sdk.segments import Segments  # noqa: PLC0415 - most workers never see a large value

            self._segments = self._sentinel.segments = Segments(self.link)
            self._kinds["forget"] = self._segments.on_forget
            self._kinds["grant"] = self._segments.on_grant
        return self._segments

    def _on_segment(self, header: list[Any], tail: Any) -> None:
        self._bulk().on_segment(header, tail)

    def _on_cancel(self, header: list[Any], tail: Any) -> None:
        call = self._calls.get(header[1])
        if call is not None:
            call.cancel(str(header[2]))

    def _on_credit(self, header: list[Any], tail: Any) -> None:
        call = self._calls.get(header[1])
        if call is not None:
            call.add_credit(int(header[2]))

    def _on_ping(self, header: list[Any], tail: Any) -> None:
        running = list(self._sentinel.running.values())
        now = monotonic()
        beat: dict[str, Any] = {
            "op": running[0].op if running else "",
            "quiet_s": round(now - max([call.seen for call in running]), 3) if running else 0.0,
            "calls": [call.number for call in running],
            "waiting": len(self._calls) - len(running),
        }
        if header[2]:
            beat["stacks"] = stacks()
        self.link.send(["pong", header[1], beat])

    # -- running ---------------------------------------------------------------------------------------------

    def _run(self, call: WorkerCall) -> None:
        call.seen = monotonic()
        self._sentinel.running[call.number] = call
        try:
            try:
                with context.enter(call):
                    value = self._answer(call)
            except BaseException as error:  # noqa: BLE001 - the worker loop: whatever a plugin raises is an answer
                self._finish(call, error, None)
            else:
                self._finish(call, None, value)
            value = None
            if self._segments is not None:
                self._segments.give_back()
        except BaseException:  # noqa: BLE001 - the worker loop: a call that cannot be answered must not wait for ever
            give_up()

    def _answer(self, call: WorkerCall) -> Any:
        if call.reason is not None:
            raise call.cancelled_error()
        if call.is_tagged:
            call.tree = decode(call.tree, call.buffers)
        op, given, hosted = call.op, call.tree, self._hosted
        if hosted is None:
            if op != "load":
                raise FatalError(f"the request {op!r} came before `load`", code="worker.not_loaded")
            return self._load(given or {})
        if op == "call":
            return hosted.call(given["action"], given["arguments"])
        if op == "stream":
            return self._stream(call)
        found = _OPS.get(op)
        if found is None:
            raise FatalError(f"this worker does not know the request {op!r}", code="worker.op_unknown")
        return found(hosted, given or {})

    def _finish(self, call: WorkerCall, error: BaseException | None, value: Any) -> None:
        if self._capture is not None:
            self._capture.finish(call.number if self._threads is None else self._sentinel.tag())
        if call.has_extras:
            for stream in self._streams:
                stream.finish(call)
            call.flush_progress()
        call.is_done = True
        call.tree = call.buffers = None
        if self._segments is not None:
            self._segments.give_back()  # before the answer, so that the next call finds its segment warm
        if error is None:
            try:
                if is_plain(value):
                    self._forget(call)  # first: who has the answer may ask at once what runs
                    self.link.send(["result", call.number, value])
                else:
                    self._send_value("result", call, value)
            except EncodeError as refused:
                error = unencodable(refused)
            except BaseException as failed:  # noqa: BLE001 - the worker loop: a value may do anything when it is read
                error = failed
        self._forget(call)
        if error is not None:
            self.link.send(["error", call.number, described(call, error)])

    def _forget(self, call: WorkerCall) -> None:
        self._calls.pop(call.number, None)
        self._sentinel.running.pop(call.number, None)

    def _send_value(self, kind: str, call: WorkerCall, value: Any) -> None:
        tree, buffers = encode(value)
        if not buffers:
            self.link.send([kind, call.number, tree])
            return
        places: list[Any] = []
        inline: list[Any] = []
        for data in buffers:
            size = data.nbytes if hasattr(data, "nbytes") else len(data)
            if size >= INLINE_BYTES and self._has_segments:
                places.append(self._bulk().put(data, size, call, self.wait))
            else:
                inline.append(data.to_bytes() if hasattr(data, "copy_into") else data)
                places.append(size)
        self.link.send([kind, call.number, tree, places], inline)

    def _stream(self, call: WorkerCall) -> None:
        chunks = self._hosted.stream(call.tree["action"], call.tree["arguments"])
        try:
            for chunk in chunks:
                while call.credit <= 0 and call.reason is None:
                    self.wait(call)
                if call.reason is not None:
                    raise call.cancelled_error()
                call.credit -= 1
                call.seen = monotonic()
                try:
                    self._send_value("chunk", call, chunk)
                except EncodeError as refused:
                    raise unencodable(refused) from None
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def wait(self, call: WorkerCall) -> None:
        """Let a running call wait for news from the host: it reads itself when nobody else does."""
        if self._sentinel.read_lock.acquire(False):
            try:
                self.read()
            finally:
                self._sentinel.read_lock.release()
        else:
            call.wait(0.05)

    def _load(self, arguments: dict[str, Any]) -> Any:
        welcome = self._welcome
        # Before the import, so that log handlers made there write to them; until then they only pass on.
        plain = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self._streams
        hosted = _hosted(welcome["module"], welcome.get("class"))
        self._hosted = hosted
        concurrency = hosted.concurrency
        if not hosted.main_thread and (concurrency is None or concurrency > 1):
            self._threads = Threads(self._run, min(concurrency or _MAX_THREADS, _MAX_THREADS))
            for stream in self._streams:
                stream.is_active = True
        elif [sys.stdout, sys.stderr] == self._streams:
            sys.stdout, sys.stderr = plain
        if arguments.get("describe", True):
            return hosted.describe()
        return {"main_thread": hosted.main_thread, "concurrency": concurrency}


_OPS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "describe": lambda hosted, given: hosted.describe(),
    "initialize": lambda hosted, given: hosted.initialize(given.get("config")),
    "reconfigure": lambda hosted, given: hosted.reconfigure(given.get("old"), given.get("new")),
    "prefetch": lambda hosted, given: hosted.prefetch(),
    "config_options": lambda hosted, given: hosted.config_options(),
    "health": lambda hosted, given: hosted.health(),
    "enable": lambda hosted, given: hosted.enable(),
    "disable": lambda hosted, given: hosted.disable(),
    "cleanup": lambda hosted, given: hosted.cleanup(),
    "monitor": lambda hosted, given: hosted.monitor(given["what"]),
}


def leave(code: int) -> None:
    """End the process at once; threads of the plugin have no say in it."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - contextlib costs a worker 3 ms
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    os._exit(code)


def give_up(exit_now: Callable[[int], NoReturn] = os._exit) -> NoReturn:
    """End a process that its plugin has broken so far that it cannot answer, and say what broke."""
    try:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the worker loop: broken this far, even that may fail
        exit_now(70)
    exit_now(70)


def main(fd: int) -> None:
    """Serve the host on a socket; never returns."""
    link = Link(fd)
    link.send(["hello", 0, hello()])
    welcome = _welcome(link)
    if welcome.get("zygote"):
        from toft_sdk.zygote import Zygote  # noqa: PLC0415 - opt-in

        prepare(welcome)
        Zygote(link, welcome, load=_hosted, born=main, leave=leave).serve()
    worker = Worker(link, welcome)
    if welcome.get("output") and len(link.fds) >= 4:
        worker.capture([link.fds.pop(0) for _ in range(4)])
    os.register_at_fork(after_in_child=worker.close_in_fork)
    prepare(welcome)
    worker.serve()


def _hosted(module: str, class_name: str | None) -> Any:
    from toft_sdk import hosting  # noqa: PLC0415 - the plugin's side; the handshake does not wait for it

    return hosting.load(module, class_name)


def hello() -> dict[str, Any]:
    """Return what the worker says of itself first."""
    return {
        "protocol": PROTOCOL,
        "sdk": __version__,
        "language": "python",
        "version": ".".join(map(str, sys.version_info[:3])),
        "pid": os.getpid(),
        "capabilities": ["output", "segments", "stacks", "zygote"],
    }


def _welcome(link: Link) -> dict[str, Any]:
    frame = None
    while frame is None:
        if not link.receive():
            leave(0)
        try:
            frame = link.take()
        except ProtocolError as error:
            link.send(["protocol_error", 0, str(error)[:1000]])
            leave(3)
    header = frame[0]
    if header[0] == "refused":
        sys.stderr.write(f"toft: the host refused this worker: {header[2]}\n")
        leave(3)
    if header[0] != "welcome" or len(header) < 3 or header[2].get("protocol") != PROTOCOL:
        theirs = header[2].get("protocol") if len(header) > 2 and type(header[2]) is dict else header[0]
        link.send(["protocol_error", 0, f"this worker speaks protocol {PROTOCOL}, the host {theirs!r}"])
        leave(3)
    welcome: dict[str, Any] = header[2]
    return welcome


def prepare(welcome: dict[str, Any]) -> None:
    """Set up the process as the host wants it, before anything of the plugin is imported."""
    os.environ.update(welcome.get("env") or {})
    if welcome.get("cwd"):
        os.chdir(welcome["cwd"])
    for path in reversed(welcome.get("paths") or []):
        sys.path.insert(0, path)
