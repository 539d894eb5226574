"""Everything one can ask about the document of a node; a part of the list in `operations.py`."""

from __future__ import annotations

from toft.api import document_bodies
from toft.api.asked import Operation

_AT = "/v1/configuration"
_PAGE = "/configuration"
_NO_PAGE = "- for whoever writes documents"

DOCUMENTS = (
    Operation(
        "document.show", f"GET {_AT}", "toft config show", "documents.describe", _PAGE, gives="NodeDocument"
    ),
    Operation(
        "document.text",
        f"GET {_AT}/document",
        "toft config show",
        "documents.text",
        "- it may hold what only its author is to read",
        gives="DocumentText",
        fails=(404,),
    ),
    Operation(
        "document.diff",
        f"GET {_AT}/diff",
        "toft config diff",
        "documents.diff",
        _PAGE,
        gives="Difference",
        fails=(404,),
    ),
    Operation(
        "document.effective",
        f"GET {_AT}/effective",
        "toft config show",
        "documents.effective",
        _PAGE,
        gives="Effective",
    ),
    Operation(
        "document.explain",
        f"GET {_AT}/explain",
        "toft config explain",
        "documents.explain",
        _NO_PAGE,
        gives="Explained",
        fails=(404,),
    ),
    Operation(
        "document.drift", f"GET {_AT}/drift", "toft config drift", "documents.drift", _PAGE, gives="Drift"
    ),
    Operation(
        "document.validate",
        f"POST {_AT}/validate",
        "toft config validate",
        "documents.validate",
        _NO_PAGE,
        takes=document_bodies.CHECK_DOCUMENT,
        gives="CheckedDocument",
    ),
    Operation(
        "document.apply",
        f"POST {_AT}/apply",
        "toft config apply",
        "documents.apply",
        "- a document is a file that somebody keeps",
        takes=document_bodies.APPLY_DOCUMENT,
        gives="AppliedDocument",
        fails=(409, 422, 507),
    ),
    Operation(
        "document.roll_back",
        f"POST {_AT}/rollback",
        "toft config rollback",
        "documents.roll_back",
        _PAGE,
        takes=document_bodies.WHY,
        gives="NodeDocument",
        fails=(409,),
    ),
    Operation(
        "document.pin",
        f"POST {_AT}/pin",
        "toft config pin",
        "documents.pin",
        _PAGE,
        takes=document_bodies.WHY,
        gives="NodeDocument",
    ),
    Operation(
        "document.unpin",
        f"POST {_AT}/unpin",
        "toft config unpin",
        "documents.unpin",
        _PAGE,
        gives="NodeDocument",
    ),
    Operation(
        "document.acknowledge",
        f"POST {_AT}/acknowledge",
        "toft config ack",
        "documents.acknowledge",
        _PAGE,
        gives="NodeDocument",
    ),
)
