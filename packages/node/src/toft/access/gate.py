"""Makes a caller of what a request shows on a network: a bearer token, or the cookie of a browser."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from http import cookies

from toft.access.browsers import COOKIE, Browsers, Session
from toft.access.decisions import Access, Checker
from toft.access.failures import Failures
from toft.access.leases import Leases
from toft.access.principals import OWNER, Principal
from toft.access.terms import Term
from toft.access.token import Token
from toft.access.tokens import Tokens
from toft.kernel import clock as clocks
from toft.kernel import errors

_BEARER = "Bearer "
_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN_SITE = ("", "same-origin", "none")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a request shows of who sends it.

    Attributes:
        method: Of the request.
        address: Where it comes from.
        authorizations: The `Authorization` headers.
        cookie: The `Cookie` header.
        csrf: The `X-Toft-CSRF` header.
        site: The `Sec-Fetch-Site` header.
    """

    method: str
    address: str = ""
    authorizations: Sequence[str] = ()
    cookie: str = ""
    csrf: str = ""
    site: str = ""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody who was let in.

    Attributes:
        principal: Who it is.
        token: Id of the token by which it is here; empty for the owner.
        until: When that ends by itself.
        session: Id of the browser's session; empty for others.
        csrf: What the pages of that session say.
    """

    principal: Principal
    token: str = ""
    until: Term | None = None
    session: str = ""
    csrf: str = ""


def unauthenticated(why: str, reason: str) -> errors.RefusedError:
    """Return the error for whoever does not show who they are, or not any more.

    Args:
        why: For people.
        reason: One word for programs: `none`, `form`, `unknown`, `expired`, `revoked` or `ended`.
    """
    return errors.RefusedError(
        why,
        code="access.unauthenticated",
        details={"reason": reason},
        hint="toft token create NAME --scope SCOPE on the node makes one; --token-file FILE shows it, or the "
        "header Authorization: Bearer TOKEN",
    )


class Gate:
    """All that the access room knows, for those who come in and for those who ask about it.

    Args:
        tokens: Those of this node.
        checkers: Rules beside the scopes.
        clock: The time.
    """

    def __init__(
        self, tokens: Tokens, *, checkers: Sequence[Checker] = (), clock: clocks.Clock = clocks.SYSTEM
    ) -> None:
        self.tokens = tokens
        self.access = Access([tokens], checkers)
        self.browsers = Browsers(clock)
        self.failures = Failures(clock)
        # A stream that ended with its session has shown that it is over, as a request would have.
        self.leases.when_over.append(self.browsers.close)

    @property
    def leases(self) -> Leases:
        """Return what is open because of a token."""
        return self.tokens.leases

    async def enter(self, shown: Shown) -> Caller | None:
        """Return who sends a request; None when it shows nothing, or the cookie of a session that ended.

        Raises:
            RefusedError: It shows a token that is none, or comes from a page of somebody else.
        """
        if shown.authorizations:
            return await self._by_token(shown)
        session = self._session(shown.cookie)
        if session is None:
            return None
        if shown.method not in _SAFE:
            self._check_origin(shown, session)
        token = self._token_of(session.principal)
        return Caller(
            principal=session.principal,
            token=token.id if token else "",
            until=session.term.first(self.tokens.term(token) if token else None),
            session=session.id,
            csrf=session.csrf,
        )

    def open(self, code: str, address: str) -> Session:
        """Let a browser in by a link.

        Raises:
            RefusedError: The link is not good any more.
        """
        try:
            return self.browsers.open(code)
        except errors.RefusedError as error:
            self.failures.add(address, error.message)
            raise

    def sign_out(self, session: str) -> None:
        """End a browser's session, and what it has open."""
        self.browsers.close(session)
        self.leases.end(session)

    async def _by_token(self, shown: Shown) -> Caller:
        header, *more = shown.authorizations
        if more or not header.startswith(_BEARER):
            raise self._refused(shown, "the header must be one Authorization: Bearer TOKEN", "form")
        raw = header[len(_BEARER) :]
        principal = await self.access.resolve(raw)
        if principal is None:
            found = self.tokens.find(raw)
            reason = self.tokens.state(found) if found else "unknown"
            told = f"the token {found.name} is {reason}" if found else "this is no token of this node"
            raise self._refused(shown, told, reason)
        token = self._token_of(principal)
        return Caller(
            principal=principal,
            token=token.id if token else "",
            until=self.tokens.term(token) if token else None,
        )

    def _refused(self, shown: Shown, why: str, reason: str) -> errors.RefusedError:
        self.failures.add(shown.address, why)
        return unauthenticated(why, reason)

    def _session(self, cookie: str) -> Session | None:
        if COOKIE not in cookie:
            return None
        jar: cookies.SimpleCookie = cookies.SimpleCookie()
        try:
            jar.load(cookie)
        except cookies.CookieError:
            return None
        found = self.browsers.find(jar[COOKIE].value) if COOKIE in jar else None
        if found is None or found.principal is OWNER or found.principal.principal_type != "token":
            return found
        # A browser that was let in by a token stays no longer than the token.
        return found if self._token_of(found.principal) is not None else None

    def _token_of(self, principal: Principal) -> Token | None:
        return self.tokens.get(principal.external_id) if principal.principal_type == "token" else None

    def _check_origin(self, shown: Shown, session: Session) -> None:
        is_theirs = shown.csrf.isascii() and hmac.compare_digest(shown.csrf, session.csrf)
        if is_theirs and shown.site in _OWN_SITE:
            return
        raise errors.RefusedError(
            "a change that a browser asks for must come from a page of this node",
            code="access.csrf",
            details={"header": "X-Toft-CSRF"},
            hint="load the page again; programs show a token instead of a cookie",
        )
