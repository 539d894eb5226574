"""What an entry of the list of operations is, and what many say; the list itself is in `operations.py`."""

from __future__ import annotations

from dataclasses import dataclass

from toft.api import frames
from toft.api.schemas import Body

# What a plugin does wrong, and what its environment, its worker or the machine cannot do.
RUNS = (409, 422, 502, 504, 507)
CHANGES = (409, 422, 507)
NO_PAGE = "- for programs"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked.

    Attributes:
        name: What it is and what is done with it.
        route: Method and path.
        cli: The command; options and what is said in words after it are left out.
        client: The method of the Python client, below the node that `connect` returns.
        page: Where a person with a browser does it.
        takes: The body of the request.
        brings: The kind of the bytes that it carries instead of a body; as many as `request_bytes` says.
        gives: The name of the schema of the answer.
        status: Of the answer, when it is done.
        media: What kind of answer, where it is not JSON.
        fails: Status codes of its own, beside those that every route of its shape has.
    """

    name: str
    route: str
    cli: str
    client: str
    page: str
    takes: Body | None = None
    gives: str = "Nothing"
    status: int = 200
    media: tuple[str, ...] = (frames.JSON_TYPE,)
    fails: tuple[int, ...] = ()
    brings: str = ""
