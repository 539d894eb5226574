"""How the commands of `toft central` ask one, and the words that several of them take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from toft.cli.session import Session, option
from toft.kernel.errors import UsageError

TenantOption = Annotated[
    str | None, option("--tenant", metavar="NAME", help="Whose; main where you say nothing.")
]
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def ask(
    session: Session,
    method: str,
    route: str | Sequence[str],
    body: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, Any] | None = None,
) -> Any:
    """Ask the central that the command line names.

    Args:
        session: Of the command.
        method: Of the request.
        route: A whole path, or the parts of one below the administration.
        body: As JSON.
        query: What stands behind the path.
    """
    from toft.client import administration  # noqa: PLC0415 - 60 ms that `toft --help` does not pay

    path = route if isinstance(route, str) else administration.path(*route)
    return administration.ask(target(session), method, path, body, query=query)


def target(session: Session) -> Any:
    """Return the central that the command line names.

    Raises:
        UsageError: It names none.
    """
    found = session.target()
    if found is None:
        raise UsageError(
            "which central is to be asked is not said",
            code="central.no_url",
            hint="toft --url https://central.example --token-file FILE central ..., or set TOFT_URL and "
            "TOFT_TOKEN_FILE",
        )
    return found


def query_of(tenant: str | None, **more: Any) -> dict[str, Any]:
    """Return what stands behind a path."""
    return {"tenant": tenant, **more}


def labels_of(texts: Sequence[str] | None, *, takes_away: bool = False) -> dict[str, Any]:
    """Return labels that were written as NAME=VALUE; where that is allowed, `NAME-` takes one away.

    Raises:
        UsageError: One is written in another way.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if takes_away and not equals and text.endswith("-"):
            found[text[:-1]] = None
        elif not equals or not name:
            raise UsageError(
                f"{text[:80]!r} is no NAME=VALUE", code="central.labels", hint="such as --label role=gpu"
            )
        else:
            found[name] = value
    return found


def lasting(text: str) -> float:
    """Return the seconds that a text such as 12h says.

    Raises:
        UsageError: It says none.
    """
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isdecimal():
        return int(number) * _UNITS[unit]
    raise UsageError(
        f"{text[:40]!r} is no length of time", code="access.expiry", hint="such as 90d, 12h, 30m or 45s"
    )
