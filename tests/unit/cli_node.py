"""A node in memory, with the interface the command line uses; nothing is started and nothing is written."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toft.cli import app
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.kernel.errors import NotFoundError
from toft.plugins import catalog
from toft.plugins.manifests.manifest import Code, Install, Manifest, Runtime
from toft_sdk.errors import CancelledError

SIGNATURE = {
    "parameters": {"text": {"type": "string"}, "times": {"type": "integer", "default": 1}},
    "required": [],
    "additional": False,
}


@dataclasses.dataclass
class Line:
    """A line a plugin printed."""

    text: str
    time: float = 1_700_000_000.0
    stream: str = "stdout"
    call: int = 1


@dataclasses.dataclass
class Handle:
    """A call that does what it was told to."""

    act: Callable[[], Any]
    usage: Mapping[str, float]
    cancelled: int = 0

    def result(self, timeout_s: float | None = None) -> Any:
        if self.cancelled:
            raise CancelledError("cancelled")
        return self.act()

    def __iter__(self) -> Iterator[Any]:
        yield from self.act()

    def cancel(self) -> None:
        self.cancelled += 1

    @property
    def call(self) -> Handle:
        return self


@dataclasses.dataclass
class Instance:
    """A loaded instance that remembers how it was called."""

    node: FakeNode
    plugin: str
    id: str
    handle: Handle | None = None

    def start_with(self, action: str | None, arguments: Mapping[str, Any], **options: Any) -> Handle:
        self.node.calls.append((action, dict(arguments), options.get("timeout_s")))
        self.handle = Handle(lambda: self.node.act(options), self.node.usage)
        self.node.handles.append(self.handle)
        return self.handle

    stream_with = start_with


@dataclasses.dataclass
class FakeNode:
    """A node with one plugin, `ocr`; `act` gets the callbacks of a call and makes its result."""

    act: Callable[[Mapping[str, Any]], Any] = lambda options: None
    usage: Mapping[str, float] = dataclasses.field(default_factory=dict)
    calls: list[Any] = dataclasses.field(default_factory=list)
    loads: list[Any] = dataclasses.field(default_factory=list)
    handles: list[Handle] = dataclasses.field(default_factory=list)
    closed: int = 0

    @property
    def installed(self) -> FakeNode:
        return self

    def get(self, name: str) -> Manifest:
        if name != "ocr":
            raise NotFoundError(
                f"no plugin is called {name}", code="plugin.not_found", hint="toft plugin list"
            )
        actions = {name: {"input": SIGNATURE, "output": {"type": "string"}} for name in ("execute", "page")}
        schema = {"type": "object", "properties": {"dpi": {"type": "integer", "minimum": 1, "default": 150}}}
        code = Code("ocr", "1.2", "Read text", "ocr_plugin", "Ocr", config_schema=schema)
        runtime = Runtime(environment="e" * 32, python_version="3.11.7", actions=actions)
        return Manifest(Install(python_path="/python", package_source="./ocr"), code, runtime)

    def load(self, name: str, *, config: Any = None, instance: str | None = None) -> Instance:
        self.loads.append((name, config, instance))
        return Instance(self, name, instance or name)

    def plugins(self) -> list[catalog.Entry]:
        return [catalog.Entry("ocr", "1.2", "ready", "e" * 32, "3.11.7", False, ("ocr",))]


@dataclasses.dataclass
class Told:
    """What a command did."""

    status: int
    out: str
    err: str


def run(
    node: Any, *arguments: str, home: Path = Path("/nonexistent"), out: io.StringIO | None = None
) -> Told:
    """Run one command line against a node in memory."""

    @contextlib.contextmanager
    def connect(**options: Any) -> Iterator[Any]:
        try:
            yield node
        finally:
            node.closed += 1

    out, err = out or io.StringIO(), io.StringIO()
    session = Session(Terminal(out, err, {}), connect, {"TOFT_HOME": str(home)})
    status = app.run(arguments, session)
    return Told(status, out.getvalue(), err.getvalue())
