"""A program that measures one system, kept running and asked for one figure at a time."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from toft.host import process_tree
from toft.kernel import errors

HERE = os.path.dirname(os.path.abspath(__file__))
# Ray starts a small cluster before it can say anything.
PATIENCE_S = 180.0


class MeasureError(errors.NodeError):
    """A figure could not be had; the others still count."""

    code = "bench.measure_failed"


class Contender:
    """One measuring program, speaking lines of JSON; while others are asked, all of it stands still.

    Args:
        name: What it is called in the result.
        argv: How to start it.
        env: Its environment.
    """

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self.name = name
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the program
        # A session of its own, so that Ctrl-C is ours to pass on.
        self._process = subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,
        )
        self._send_all(signal.SIGSTOP)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Tell whether it can still be asked."""
        return self._process.poll() is None

    def ask(self, measure: str, within_s: float = PATIENCE_S) -> dict[str, float]:
        """Return the figures of one measure, empty when this system has no such thing.

        Raises:
            MeasureError: It failed, said nothing for too long, or has ended.
        """
        assert self._process.stdin is not None
        self._send_all(signal.SIGCONT)
        try:
            return self._answer(measure, within_s)
        finally:
            self._send_all(signal.SIGSTOP)

    def _answer(self, measure: str, within_s: float) -> dict[str, float]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"measure": measure}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._line(within_s)
        except BrokenPipeError:
            line = b""
        if not line:
            self._process.wait(PATIENCE_S)
            raise MeasureError(f"{self.name}, {measure}: the program ended: {self._last_complaint()}")
        answer: dict[str, float] = json.loads(line)
        if "error" in answer:
            raise MeasureError(f"{self.name}, {measure}: {answer['error']}")
        return answer

    def close(self) -> None:
        """Let it end by itself, and end it when it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._send_all(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._complaints.close()

    def _send_all(self, number: int) -> None:
        """Let it and all that it started go on, or stand still: an idle cluster takes others' time."""
        if self._process.poll() is not None:
            return
        own = process_tree.read(self._process.pid)
        for stat in [*process_tree.descendants(self._process.pid), *([own] if own is not None else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stat.pid, number)

    def _line(self, within_s: float) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(within_s):
                self._process.kill()
                self._process.wait()
                raise MeasureError(f"{self.name} said nothing for {within_s:g} s and was ended")
        return stdout.readline()

    def _last_complaint(self) -> str:
        self._complaints.seek(0, os.SEEK_END)
        self._complaints.seek(max(0, self._complaints.tell() - 4000))
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.poll()}"


def own(name: str, module: str, env: Mapping[str, str] = os.environ) -> Contender:
    """Start a measuring program that is a module of toft, in this interpreter."""
    return Contender(name, [sys.executable, "-m", module], env)


def peer(name: str, python: str, env: Mapping[str, str] = os.environ) -> Contender:
    """Start the measuring program of another system in that system's interpreter."""
    return Contender(name, [python, os.path.join(HERE, "peers", f"{name}_driver.py")], env)
