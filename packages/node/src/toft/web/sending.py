"""What a browser sends of a form."""

from __future__ import annotations

from urllib.parse import parse_qsl

from fastapi import Request

from toft.kernel import errors
from toft.web import submissions

_MOST_FIELDS = 5000


async def sent(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        UsageError: It is none.
    """
    body = await request.body()
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise errors.UsageError("the form cannot be read", code="request.body") from error
    return submissions.gathered(pairs)
