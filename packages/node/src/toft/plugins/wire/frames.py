"""What goes over a worker's socket, as typed records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toft_sdk import wire

PROTOCOL = wire.PROTOCOL


@dataclass(frozen=True)
class Hello:
    """What a worker says of itself first.

    Attributes:
        protocol: The protocol number it speaks.
        language: Such as `python` or `javascript`.
        version: Version of that language's runtime.
        sdk: Version of the SDK it runs with.
        pid: Its own process number, as it sees it.
        capabilities: Optional parts of the protocol it can do.
    """

    protocol: int
    language: str
    version: str
    sdk: str
    pid: int
    capabilities: frozenset[str]


@dataclass(frozen=True)
class Welcome:
    """What a worker is told before it imports anything of the plugin.

    Attributes:
        module: Dotted name of the plugin's module.
        class_name: Its class; None takes the only one there is.
        paths: Directories to put in front of `sys.path`.
        env: Variables, secrets among them, that enter the environment.
        cwd: Working directory; None leaves it.
        log: Settings of the capture of output.
        is_zygote: It imports the plugin and forks workers, and hosts nothing itself.
    """

    module: str
    class_name: str | None = None
    paths: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    log: Mapping[str, Any] = field(default_factory=dict)
    is_zygote: bool = False

    def to_dict(self, capabilities: frozenset[str]) -> dict[str, Any]:
        """Return it as it travels."""
        return {
            "protocol": PROTOCOL,
            "module": self.module,
            "class": self.class_name,
            "paths": list(self.paths),
            "env": dict(self.env),
            "cwd": self.cwd,
            "log": dict(self.log),
            "zygote": self.is_zygote,
            "capabilities": sorted(capabilities),
        }


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line a worker printed or logged.

    Attributes:
        time: Seconds since 1970, when the node received it.
        stream: `stdout`, `stderr` or `log`.
        call: The call that printed it; 0 when that is none, or not known.
        text: The line without its end, or the event word of a log line.
        level: Of a log line; empty for printed ones.
        fields: Of a log line.
    """

    time: float
    stream: str
    call: int
    text: str
    level: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Beat:
    """What a worker's reader answers, even while a call runs.

    Attributes:
        op: The request that runs; empty when there is none.
        quiet_s: Seconds since that request last showed progress.
        calls: Numbers of the running requests.
        waiting: Requests that wait in the worker.
        stacks: Where each thread is, innermost first; only when asked for.
    """

    op: str
    quiet_s: float
    calls: tuple[int, ...]
    waiting: int
    stacks: tuple[tuple[str, tuple[str, ...]], ...] = ()


def read_hello(fields: Any) -> Hello:
    """Return what a worker said of itself, or refuse it."""
    if not isinstance(fields, dict) or not isinstance(fields.get("protocol"), int):
        raise wire.ProtocolError("the first frame names no protocol number")
    capabilities = fields.get("capabilities")
    pid = fields.get("pid")
    return Hello(
        protocol=fields["protocol"],
        language=str(fields.get("language", ""))[:40],
        version=str(fields.get("version", ""))[:40],
        sdk=str(fields.get("sdk", ""))[:40],
        pid=pid if isinstance(pid, int) else 0,
        capabilities=frozenset(map(str, capabilities)) if isinstance(capabilities, list) else frozenset(),
    )


def read_beat(fields: Any) -> Beat:
    """Return the answer to a ping, or refuse it."""
    try:
        stacks = tuple((str(name), tuple(map(str, lines))) for name, lines in fields.get("stacks", ()))
        return Beat(
            op=str(fields["op"]),
            quiet_s=float(fields["quiet_s"]),
            calls=tuple(map(int, fields["calls"])),
            waiting=int(fields["waiting"]),
            stacks=stacks,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise wire.ProtocolError(f"a pong is malformed: {error!r}") from None
