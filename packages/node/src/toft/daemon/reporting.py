"""What of a running node goes into the reports to its central."""

from __future__ import annotations

import dataclasses
import json

from toft.central import literals
from toft.daemon import applying, gating
from toft.kernel.settings import Settings
from toft.managed.document import Document
from toft.managed.reports import Details


async def details(
    loaded: Document,
    settings: Settings,
    kept: applying.Applying | None,
    gated: gating.Gating | None,
) -> Details:
    """Return what a report says beside the journal.

    Args:
        loaded: The document that runs.
        settings: Of the node, those included that the document names.
        kept: Keeps the document's instances loaded.
        gated: Looks at its gates.
    """
    told = await kept.told() if kept is not None else None
    in_force = json.loads(json.dumps(dataclasses.asdict(settings), default=str))
    return Details(
        gates=gated.told() if gated is not None else (),
        overrides=(told or {}).get("local_not_applied", ()),
        effective=literals.redacted({"document": dict(loaded.value), "settings": in_force}),
    )
