"""What people ask of rollouts: to begin one, to hold it, to let it go on, to take it back."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toft.central import audit, rollouts, waves
from toft.central.book import Book
from toft.central.documents import Document, Documents
from toft.central.ledger import Record
from toft.central.offers import Offers, Served
from toft.central.previews import Previews
from toft.central.rollouts import State
from toft.kernel import clock as clocks
from toft.kernel import errors, ids
from toft.managed import document as node_documents
from toft.managed import phases


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A rollout that somebody wants.

    Attributes:
        number: The revision; None for the newest.
        rules: As `waves.rules` takes them.
        is_draft: It does not begin until somebody says so.
    """

    tenant: str
    document: str
    by: str
    number: int | None = None
    rules: Mapping[str, Any] | None = None
    message: str = ""
    is_draft: bool = False
    is_emergency: bool = False


class Launching:
    """Begins rollouts and changes them.

    Args:
        book: All rollouts.
        documents: What there is to roll out.
        offers: Makes the bytes of it.
        previews: Knows the combinations of layers.
        clock: The time.
    """

    def __init__(
        self,
        book: Book,
        documents: Documents,
        offers: Offers,
        previews: Previews,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._book = book
        self._documents = documents
        self._offers = offers
        self._previews = previews
        self._clock = clock
        self.changed: list[Callable[[], None]] = []
        """Told when there is something to be done."""

    async def create(self, wish: Wish) -> Record:
        """Make a rollout, and begin it unless it is a draft.

        Raises:
            ConflictError: The document is in another one, or nodes have this revision already, or nobody has
                signed what they would get.
        """
        audit.check_why(wish.message, "message")
        document = self._documents.get(wish.tenant, wish.document)
        number = wish.number if wish.number is not None else await self._newest(document)
        await self._documents.revision(document, number)
        if number == document.published:
            raise errors.ConflictError(
                f"revision {number} is what nodes get already",
                code="rollout.nothing",
                details={"document": document.id, "number": number},
                hint="toft central document save FILE stores another one; toft central node retry NODE lets "
                "a node try again what it refused",
            )
        async with self._book.changing:
            record = await self._create(wish, document, number)
        self._tell()
        return record

    async def _create(self, wish: Wish, document: Document, number: int) -> Record:
        rules = waves.rules(wish.rules or {}, await self._default_waves(document, number))
        record = Record(
            id=f"rollout_{ids.ulid(self._clock)}",
            tenant=wish.tenant,
            document=document.id,
            number=number,
            previous=document.published,
            rules=rules,
            salt=secrets.token_hex(8),
            attempt=self._book.attempts(document, number) + 1,
            created_by=wish.by,
            created_at=self._clock.now(),
            message=wish.message,
            state=State.DRAFT if wish.is_draft else State.RUNNING,
            is_emergency=wish.is_emergency,
        )
        if not wish.is_draft:
            await self.check_startable(document, number)
        await self._book.add(record, by=wish.by)
        return record

    async def ask(self, tenant: str, id: str, verb: str, *, by: str, reason: str = "") -> Record:
        """Start, pause, resume, promote, abort a rollout, or open all its waves.

        Raises:
            NotFoundError: There is none of that id.
            ConflictError: It is in no state for that.
        """
        audit.check_why(reason, "reason")
        async with self._book.changing:
            record = await self._book.get(tenant, id)
            known = record.known()
            rollouts.check_verb(verb, known)
            document = self._documents.get(tenant, record.document)
            if verb == "start" or (verb == "emergency" and record.state is State.DRAFT):
                await self.check_startable(document, record.number)
            changes = rollouts.asked(verb, known, self._clock.now())
            if changes.get("state") is State.DONE:
                await self._book.finish(record, by=by)
            else:
                await self._book.change(record, f"rollout.{verb}", by, {**changes, "reason": reason})
        self._tell()
        return record

    async def _newest(self, document: Document) -> int:
        found = await self._documents.revisions(document, most=1)
        if not found:
            raise errors.NotFoundError(
                "this document has no revision yet",
                code="central.no_revision",
                hint="toft central document save FILE",
            )
        return int(found[0]["number"])

    async def _default_waves(self, document: Document, number: int) -> Sequence[waves.Wave]:
        """Return the waves that fit the slowest of the documents that nodes would get."""
        slowest = 0.0
        settle_s = 0.0
        for served in await self.payloads(document, number):
            slowest = max(slowest, served.poll_interval_s)
            value = json.loads(served.data)
            settle_s = max(
                settle_s, float(value.get("health", {}).get("settle_s", node_documents.DEFAULT_SETTLE_S))
            )
        interval_s = slowest or float(node_documents.DEFAULT_POLL_S)
        return waves.default_waves(interval_s, phases.window_s(interval_s), settle_s)

    async def payloads(self, document: Document, number: int) -> list[Served]:
        """Return the bytes that nodes would get with a revision: one for each combination of layers."""
        return [
            await self._offers.merged(document.tenant, chosen)
            for chosen in self._previews.combinations(document, number)
        ]

    def check_free(self, document: Document) -> None:
        """Refuse what cannot be while a rollout brings a revision of a document to its nodes.

        Raises:
            ConflictError: One does.
        """
        other = self._book.of_document(document)
        if other is not None:
            raise errors.ConflictError(
                f"{other.id} is {other.state} with revision {other.number} of this document",
                code="rollout.busy",
                details={"rollout": other.id, "state": str(other.state)},
                hint=f"toft central rollout show {other.id} --watch; toft central rollout abort {other.id}",
            )

    async def check_startable(self, document: Document, number: int) -> None:
        """Refuse a revision that cannot be given to nodes now: whoever decides so holds `Book.changing`.

        Raises:
            ConflictError: A rollout brings another one to them; no document would come of it for some, which
                would silently stay where they are; or nodes ask for signatures and some are missing.
        """
        self.check_free(document)
        payloads = await self.payloads(document, number)
        wrong = next((each for each in payloads if each.problems), None)
        if wrong is not None:
            raise errors.ConflictError(
                f"some nodes would have no document with it: {'; '.join(wrong.problems[:3])}",
                code="rollout.unfit",
                details={"problems": list(wrong.problems[:20])},
                hint="another layer was changed since it was saved; save it again",
            )
        unsigned = [each.sha256 for each in payloads if not each.is_vouched]
        if unsigned:
            raise errors.ConflictError(
                f"{len(unsigned)} documents that nodes would get are not signed by enough keys",
                code="central.unsigned",
                details={"sha256": unsigned[:50]},
                hint=f"toft central document payloads {document.id} {number} --into DIR writes what to sign",
            )

    def _tell(self) -> None:
        for each in self.changed:
            each()
