"""Browsers: a link that works once makes a session, which a cookie then names.

Both live in memory only: they end with the daemon.
"""

from __future__ import annotations

import secrets as randomness
from collections import OrderedDict
from dataclasses import dataclass

from toft.access.principals import Principal
from toft.access.terms import Term
from toft.kernel import clock as clocks
from toft.kernel import errors

COOKIE = "toft_session"
CSRF_HEADER = "x-toft-csrf"
LINK_S = 60.0
SESSION_S = 12 * 3600.0
_LINKS = 256
_SESSIONS = 1024


@dataclass(frozen=True, kw_only=True)
class Session:
    """A browser that was let in.

    Attributes:
        id: What its cookie says.
        csrf: What its pages say; a page of somebody else cannot know it.
        principal: Whom it acts for.
        term: When it ends.
    """

    id: str
    csrf: str
    principal: Principal
    term: Term


class Browsers:
    """Links and sessions.

    Args:
        clock: The time.
    """

    def __init__(self, clock: clocks.Clock = clocks.SYSTEM) -> None:
        self._clock = clock
        self._links: OrderedDict[str, tuple[Principal, Term]] = OrderedDict()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def link(self, principal: Principal) -> str:
        """Return a code that lets a browser in once, within a minute, for a principal."""
        code = randomness.token_urlsafe(20)
        self._links[code] = (principal, Term.lasting(self._clock, LINK_S))
        while len(self._links) > _LINKS:
            self._links.popitem(last=False)
        return code

    def open(self, code: str) -> Session:
        """Make a session of a code.

        Raises:
            RefusedError: It was used before, or is too old.
        """
        principal, term = self._links.pop(code, (None, None))
        if principal is None or term is None or term.is_over(self._clock):
            raise errors.RefusedError(
                "this link was used before, or is older than a minute",
                code="access.link",
                hint="toft open makes another one",
            )
        session = Session(
            id=randomness.token_urlsafe(32),
            csrf=randomness.token_urlsafe(24),
            principal=principal,
            term=Term.lasting(self._clock, SESSION_S),
        )
        self._sessions[session.id] = session
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def find(self, id: str) -> Session | None:
        """Return a session that has not ended."""
        found = self._sessions.get(id)
        if found is not None and found.term.is_over(self._clock):
            del self._sessions[id]
            return None
        return found

    def close(self, id: str) -> None:
        """End a session."""
        self._sessions.pop(id, None)
