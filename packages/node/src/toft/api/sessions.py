"""Who is connected, and which instances each of them has for itself.

Instances without settings of their own are shared and stay. What somebody loads with settings of the moment
is private: others keep what they have, and it ends with the session, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets as randomness
import weakref
from collections.abc import Mapping
from typing import Any

from toft.kernel import errors, ids, log
from toft.plugins import activity as activities
from toft.plugins import instance as handles
from toft.plugins import node as nodes
from toft.plugins.plugin_errors import PluginError

_log = log.get_logger("api.sessions")


class Session:
    """One client.

    Attributes:
        id: Named in each of its requests.
        private: Its own instances, by the name it gave them.
        shared: Names of the shared instances it has loaded.
    """

    def __init__(self) -> None:
        self.id = randomness.token_hex(16)
        self.private: dict[str, handles.Instance] = {}
        self.shared: set[str] = set()
        self._loading: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def lock(self, name: str) -> asyncio.Lock:
        """Return what keeps a name from being loaded twice at once."""
        return self._loading.setdefault(name, asyncio.Lock())


class Sessions:
    """All clients of a daemon.

    Args:
        node: The node.
    """

    def __init__(self, node: nodes.Node) -> None:
        self._node = node
        self._sessions: dict[str, Session] = {}

    def open(self) -> Session:
        """Begin a session."""
        session = Session()
        self._sessions[session.id] = session
        return session

    def get(self, id: str) -> Session:
        """Return a session.

        Raises:
            NotFoundError: It has ended.
        """
        found = self._sessions.get(id)
        if found is None:
            raise errors.NotFoundError(
                "this session has ended", code="session.not_found", hint="connect again: toft.connect()"
            )
        return found

    async def close(self, session: Session) -> None:
        """End a session and what only it had."""
        self._sessions.pop(session.id, None)
        ending = [each.unload() for each in session.private.values()]
        session.private = {}
        for ended in await asyncio.gather(*ending, return_exceptions=True):
            if isinstance(ended, BaseException):
                _log.warning("unload_failed", error=str(ended))

    async def load(
        self,
        session: Session,
        plugin: str,
        config: Mapping[str, Any] | None,
        *,
        instance: str | None,
        new: bool,
        options: Mapping[str, Any],
    ) -> handles.Instance:
        """Load an instance as `Node.load` does, for one client."""
        ids.check_name(plugin, "plugin name")
        name = self._node.fresh_name(plugin) if new else ids.check_name(instance or plugin, "instance name")
        async with session.lock(name):
            present = session.private.get(name)
            if present is not None:
                return handles.the_same(present, plugin, config, options)
            shared = self._node.find(name)
            if shared is not None and name in session.shared:
                return handles.the_same(shared, plugin, config, options)
            if not new and not options and (not config or (shared is not None and _has(shared, config))):
                loaded = await nodes.load_current(self._node, plugin, instance=name)
                if loaded is not None and (not config or _has(loaded, config)):
                    session.shared.add(name)
                    return loaded
            loaded = await self._node.load_apart(plugin, config, instance=name, options=options)
            session.private[name] = loaded
        if session.id not in self._sessions:
            # It went away while this was loading.
            await self.close(session)
            raise errors.UnavailableError("the session has ended", code="session.ended")
        return loaded

    def instance(self, session: Session | None, name: str) -> handles.Instance:
        """Return an instance as one client sees it."""
        if session is not None and name in session.private:
            return session.private[name]
        return self._node.instance(name)

    def instances(self, session: Session | None) -> list[handles.Instance]:
        """Return what one client sees loaded, by name."""
        seen = {each.id: each for each in self._node.instances()}
        if session is not None:
            seen |= session.private
        return [seen[name] for name in sorted(seen)]

    async def unload(self, session: Session | None, name: str) -> None:
        """End an instance for one client; a shared one only when nobody else has it and nothing runs."""
        if session is None:
            await self._node.unload(name)
            return
        mine = session.private.pop(name, None)
        if mine is not None:
            await mine.unload()
            return
        shared = self._node.instance(name)
        session.shared.discard(name)
        others = any(name in each.shared for each in self._sessions.values())
        is_declared = name in self._node.rooms.records.declared
        if not others and not is_declared and not activities.is_busy(shared):
            with contextlib.suppress(errors.NotFoundError):
                await self._node.unload(name)

    async def end_all(self) -> None:
        """End every session."""
        for session in list(self._sessions.values()):
            with contextlib.suppress(errors.NodeError, PluginError):
                await self.close(session)


def _has(instance: handles.Instance, config: Mapping[str, Any]) -> bool:
    return all(key in instance.config and instance.config[key] == value for key, value in config.items())
