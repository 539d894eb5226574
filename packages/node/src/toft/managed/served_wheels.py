"""Wheels from the central of a node: asked for by their hash, with the node's credential."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Protocol

from toft.kernel.errors import NodeError, NotFoundError, UnavailableError
from toft.managed import protocol

if TYPE_CHECKING:
    from toft.managed import connections

_LATER = (401, 403, 408, 425, 429)
"""Also who is not let in yet, or not for the moment: the document is not to blame for that."""


class Credentials(Protocol):
    """Who the node is; see `toft.managed.enrolling.Credentials`."""

    async def credential(self, url: str, *, refused: str = "") -> str:
        """Return what to show at an address."""
        ...


async def read(
    streams: connections.Connections, credentials: Credentials, urls: Sequence[str], sha256: str
) -> AsyncGenerator[bytes]:
    """Yield the bytes of a wheel, from the first of some addresses that has it.

    Raises:
        NotFoundError: None has it.
        UnavailableError: One that may have it does not answer now.
    """
    failed: list[NodeError] = []
    for url in urls:
        try:
            token, refused = await credentials.credential(url), ""
            while True:
                headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
                address = f"{url}{protocol.ARTIFACTS}/{sha256}"
                async with streams.stream(address, headers=headers) as (status, _, parts):
                    if status == 200:
                        async for part in parts:
                            yield part
                        return
                if status != 401 or refused:
                    raise _refusal(url, status)
                refused, token = token, await credentials.credential(url, refused=token)
        except NodeError as error:
            failed.append(error)
    raise next(
        (each for each in failed if not isinstance(each, NotFoundError)),
        NotFoundError(f"no central has the wheel {sha256}", code="control.no_artifact"),
    )


def _refusal(url: str, status: int) -> NodeError:
    told = {"url": url, "status": status}
    if status in _LATER or status >= 500:
        return UnavailableError(f"{url} answers {status}", code="control.no_artifact", details=told)
    return NotFoundError(f"{url} answers {status}", code="control.no_artifact", details=told)
