"""The one decision: may this principal do this with that, and which rule says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from toft.access import scopes
from toft.access.principals import Identity, Principal
from toft.access.resources import Action, Kind, Resource

NO_SCOPE = "no scope"


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Attributes:
        allowed: Whether it may be done.
        rule: What decided it.
        reason: The same for people.
        needed: A scope that would do, when it is refused.
    """

    allowed: bool
    rule: str
    reason: str
    needed: str = ""


class Checker(Protocol):
    """A rule, or many: whatever one of them refuses is refused."""

    def decide(self, principal: Principal, action: Action, resource: Resource) -> Decision:
        """Decide about one thing, or about a kind as a whole."""
        ...

    def visible(self, principal: Principal, kind: Kind, action: Action) -> frozenset[str] | None:
        """Return the plugins that somebody is limited to; None for no limit."""
        ...


class Scopes:
    """The rule that is always there: a principal may do what its scopes say, and nothing else."""

    def decide(self, principal: Principal, action: Action, resource: Resource) -> Decision:
        """Decide by the first scope that covers it."""
        kind, plugin = resource.kind, resource.plugin
        for text in principal.scopes:
            scope = scopes.parse(text)
            if not scope.covers(kind, action):
                continue
            # For a kind as a whole a limit is no refusal: a list shows less, a change is looked at again.
            is_whole = resource.id is None and plugin is None
            if scope.plugin is None or is_whole or scope.plugin == plugin:
                return Decision(True, f"scope {text}", f"{text} allows to {action} {_said(resource)}")
        has = ", ".join(principal.scopes) or "no scope at all"
        needed = f"{kind}:{action}" + (f":{plugin}" if plugin and kind is not Kind.PLUGIN else "")
        return Decision(
            False, NO_SCOPE, f"to {action} {_said(resource)} needs {needed}; there is {has}", needed
        )

    def visible(self, principal: Principal, kind: Kind, action: Action) -> frozenset[str] | None:
        """Return what the scopes that cover a kind are limited to."""
        found = [each for each in map(scopes.parse, principal.scopes) if each.covers(kind, action)]
        if any(each.plugin is None for each in found):
            return None
        return frozenset(each.plugin for each in found if each.plugin is not None)


BUILT_IN = Scopes()


class Access:
    """Who may come in, and what they may do: identities in order, and checkers of which each must agree.

    Args:
        identities: The first that knows a token says whose it is.
        checkers: Further rules; the scopes are always looked at.
    """

    def __init__(self, identities: Sequence[Identity] = (), checkers: Sequence[Checker] = ()) -> None:
        self._identities = tuple(identities)
        self._checkers: tuple[Checker, ...] = (BUILT_IN, *checkers)

    async def resolve(self, raw_token: str) -> Principal | None:
        """Return whose token this is; None when nobody knows it."""
        for identity in self._identities:
            found = await identity.resolve(raw_token)
            if found is not None:
                return found
        return None

    def decide(self, principal: Principal, action: Action, resource: Resource) -> Decision:
        """Decide; the first rule that refuses is the one that is told."""
        found = BUILT_IN.decide(principal, action, resource)
        for checker in self._checkers[1:] if found.allowed else ():
            found = checker.decide(principal, action, resource)
            if not found.allowed:
                break
        return found

    def visible(self, principal: Principal, kind: Kind, action: Action) -> frozenset[str] | None:
        """Return the plugins that a list is limited to: those that every rule leaves; None for no limit."""
        limits = [each.visible(principal, kind, action) for each in self._checkers]
        given = [each for each in limits if each is not None]
        return frozenset.intersection(*given) if given else None


_ALONE = Access()


def decide(principal: Principal, action: Action, resource: Resource) -> Decision:
    """Decide by scopes alone."""
    return _ALONE.decide(principal, action, resource)


def visible(principal: Principal, kind: Kind, action: Action) -> frozenset[str] | None:
    """Return the plugins that scopes limit a list to; None for no limit, an empty set hides everything."""
    return _ALONE.visible(principal, kind, action)


def _said(resource: Resource) -> str:
    if resource.id is not None:
        return f"{resource.kind} {resource.id}"
    if resource.kind in (Kind.NODE, Kind.SYSTEM):
        return f"the {resource.kind}"
    return f"{resource.kind}s" + (f" of {resource.plugin}" if resource.plugin else "")
