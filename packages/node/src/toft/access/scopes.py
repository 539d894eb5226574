"""Scopes, the words of a permission: `KIND:ACTION[:PLUGIN]`.

`*` stands for every kind and every action. `read` is short for `*:read`, and so on; `*` alone is everything.
An action includes what is less: admin, write, cancel, read. With a plugin at its end, a scope is limited to
what belongs to that plugin; at a central, to that tenant.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from toft.access.resources import LIMITED, Action, Kind
from toft.kernel import errors, ids, suggestions

_RANK = {action: rank for rank, action in enumerate(Action)}


@dataclass(frozen=True)
class Scope:
    """One scope.

    Attributes:
        kind: None for every kind.
        action: The most that may be done.
        plugin: What it is limited to; None for no limit.
    """

    kind: Kind | None
    action: Action
    plugin: str | None = None

    def __str__(self) -> str:
        parts = [self.kind or "*", self.action, *([self.plugin] if self.plugin else [])]
        return ":".join(parts)

    def covers(self, kind: Kind, action: Action) -> bool:
        """Say whether it allows this with things of a kind, perhaps of one plugin only."""
        if self.kind not in (None, kind) or _RANK[self.action] < _RANK[action]:
            return False
        return self.plugin is None or kind in LIMITED

    def includes(self, other: Scope) -> bool:
        """Say whether whoever has this one has the other too."""
        return (
            self.kind in (None, other.kind)
            and _RANK[self.action] >= _RANK[other.action]
            and self.plugin in (None, other.plugin)
        )


@functools.lru_cache(4096)
def parse(text: str) -> Scope:
    """Return the scope that a text says.

    Raises:
        UsageError: It says none.
    """
    if text == "*":
        return Scope(None, Action.ADMIN)
    if text in list(Action):
        return Scope(None, Action(text))
    kind, _, rest = text.partition(":")
    action, _, plugin = rest.partition(":")
    if kind != "*" and kind not in list(Kind):
        raise _wrong(text, f"{kind!r} is no kind", kind, [*Kind])
    if action != "*" and action not in list(Action):
        raise _wrong(text, f"{action!r} is no action", action, [*Action])
    found = Scope(
        None if kind == "*" else Kind(kind),
        Action.ADMIN if action == "*" else Action(action),
        plugin or None,
    )
    if text.count(":") > 1:
        try:
            ids.check_name(plugin, "plugin name")
        except errors.NodeError as error:
            raise _wrong(text, error.message, plugin, []) from error
        if found.kind is not None and found.kind not in LIMITED:
            raise _wrong(text, f"a {found.kind} belongs to no plugin and no tenant", "", [])
    return found


def _wrong(text: str, why: str, word: str, known: list[str]) -> errors.UsageError:
    near = suggestions.nearest(word, known) if known else None
    return errors.UsageError(
        f"{text[:80]!r} is no scope: {why}" + (f"; did you mean {near}?" if near else ""),
        code="access.scope",
        details={"scope": text[:200], "kinds": [*Kind], "actions": [*Action]},
        hint="a scope is KIND:ACTION[:PLUGIN], such as job:write, *:read or job:write:ocr",
    )
