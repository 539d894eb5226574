"""What every route works with: the node, and what the process around it is doing."""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fastapi import Request

from toft.access.decisions import Access
from toft.access.gate import Gate
from toft.api import frames
from toft.api.following import Turnstile
from toft.api.sessions import Session, Sessions
from toft.api.traffic import Traffic
from toft.dispatch.health import Health
from toft.dispatch.jobs import Jobs
from toft.dispatch.node import Node
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.kernel.version import VERSION
from toft.managed.console import Console
from toft.managed.staging import Staged
from toft.plugins.instance import Instance
from toft.plugins.supervision.calls import Call


class State(enum.StrEnum):
    """How far the life of the daemon is."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


_SCOPES_ALONE = Access()


class Documents(Protocol):
    """What a person does with the document of the node that runs here."""

    console: Console

    async def describe(self) -> dict[str, Any]:
        """Return how the node stands, with what only its daemon knows."""
        ...

    async def served(self) -> bytes:
        """Return the document that the central serves now."""
        ...

    async def drift(self) -> list[dict[str, str]]:
        """Return how this machine differs from what its document says."""
        ...

    async def apply(self, data: bytes, *, source: str, signatures: str) -> Staged:
        """Put a document in the place of the one that runs, on trial, and start again with it."""
        ...

    async def roll_back(self, reason: str) -> dict[str, Any]:
        """Go back to the document before, and start again with it."""
        ...


@dataclass(kw_only=True)
class Service:
    """The daemon as its routes see it.

    Attributes:
        node: The node.
        socket: Where it is asked.
        settings: What clients compare with their own.
        state: Whether it takes work.
        gate: Who may come in by TCP; None where nobody may.
        listen: The address of its TCP port, when it has one.
        document: Tells what the node's document declares, and how that stands; None for a node without one.
        documents: What a person does with the document of this node; None where no daemon keeps one.
        open_door: Returns where a browser comes in; opens a port for it when there is none.
    """

    node: Node
    socket: Path
    clock: clocks.Clock = clocks.SYSTEM
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: State = State.STARTING
    gate: Gate | None = None
    listen: str = ""
    document: Callable[[], Awaitable[Mapping[str, Any] | None]] | None = None
    documents: Documents | None = None
    open_door: Callable[[], Awaitable[str]] | None = None
    version: str = VERSION
    pid: int = field(default_factory=os.getpid)
    began: float = 0.0
    sessions: Sessions = field(init=False)
    health: Health = field(init=False)
    turnstile: Turnstile = field(default_factory=Turnstile)
    traffic: Traffic = field(default_factory=Traffic)
    _running: set[Call] = field(default_factory=set)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.began = self.clock.monotonic()
        self._idle.set()
        self.sessions = Sessions(self.node)
        self.health = Health(self.node.rooms.settings.home, self.node.jobs.open)

    @property
    def access(self) -> Access:
        """Return what decides who may do what."""
        return self.gate.access if self.gate is not None else _SCOPES_ALONE

    @property
    def jobs(self) -> Jobs:
        """Return the durable jobs of the node."""
        return self.node.jobs

    @property
    def uptime_s(self) -> float:
        """Return the seconds since it was started."""
        return self.clock.monotonic() - self.began

    def admit(self) -> None:
        """Let new work in.

        Raises:
            UnavailableError: The daemon is stopping.
        """
        if self.state is State.DRAINING:
            raise errors.UnavailableError(
                "the daemon is stopping and takes no new work",
                code="daemon.draining",
                retry_after_s=5.0,
                hint="toft up starts it again",
            )

    @property
    def running(self) -> int:
        """Return how many calls of clients run or wait."""
        return len(self._running)

    def begin(self, call: Call) -> None:
        """Take note of a call."""
        self._running.add(call)
        self._idle.clear()

    def end(self, call: Call) -> None:
        """Take note that a call has ended."""
        self._running.discard(call)
        if not self._running:
            self._idle.set()

    def call(self, instance: Instance, number: int) -> Call | None:
        """Return a running call of an instance, if there is one of that number."""
        return next(
            (
                each
                for each in self._running
                if each.number == number and each.belongs_to(instance.loaded_from.supervisor)
            ),
            None,
        )

    async def wait_idle(self) -> None:
        """Return when no call runs."""
        await self._idle.wait()

    def interrupt(self) -> None:
        """End every call, and tell its caller why."""
        for call in list(self._running):
            call.ask_to_end(
                errors.UnavailableError(
                    "the daemon stopped before this call had ended",
                    code="daemon.stopped",
                    hint="it may have had effects; run it again when that does no harm",
                )
            )


async def of(request: Request) -> Service:
    """Return the service of the application that a request came to.

    A coroutine, because what routes depend on is run in a thread when it is a plain function.
    """
    return here(request)


def here(request: Request) -> Service:
    """Return the same, for who asks directly."""
    found: Service = request.app.state.service
    return found


def session_of(request: Request) -> Session | None:
    """Return the session that a request names; None when it names none.

    Raises:
        NotFoundError: That one has ended.
    """
    id = request.headers.get(frames.SESSION_HEADER)
    return here(request).sessions.get(id) if id else None


def no_route(request: Request) -> errors.NotFoundError:
    """Return the error for a path that leads nowhere."""
    where = f"{request.method} {request.url.path[:200]}"
    return errors.NotFoundError(f"{where}: there is no such route", code="request.no_route")
