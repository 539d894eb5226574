"""The document of a node: one JSON Schema says what may stand in it; its bytes are what is kept and signed.

People write TOML, YAML or JSON (`author`); from there on it is the bytes of one JSON text that travel, are
hashed and lie in a slot. Nothing that is written is left out silently: what nobody serves is refused.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from toft.access import scopes
from toft.kernel import authored, schemas
from toft.kernel import clock as clocks
from toft.kernel.errors import UsageError
from toft.kernel.timetable import Timetable
from toft.managed import addresses, pins

MAX_BYTES = 1 << 20
SCHEMA_VERSION = 1
DEFAULT_POLL_S = 300
DEFAULT_OFFLINE_GRACE_S = 86_400
DEFAULT_SETTLE_S = 30.0
DEFAULT_TELEMETRY_S = 60

NOT_SERVED: Mapping[str, str] = {
    "actions": "actions do not exist yet",
    "apps": "container apps do not exist yet",
    "routes": "the gateway does not exist yet",
}
"""What the schema has room for and this node does not honour yet, and why; it is not applied."""


class DocumentError(UsageError):
    """A document cannot be used; `details["problems"]` has everything wrong with it, with its place."""

    code = "document.invalid"


@dataclass(frozen=True)
class Document:
    """A checked document.

    Attributes:
        data: The exact bytes.
        value: What they say.
    """

    data: bytes
    value: Mapping[str, Any]

    @property
    def etag(self) -> str:
        """Return what names exactly these bytes."""
        return etag_of(self.data)

    @property
    def revision(self) -> int | None:
        """Return the number that central gave it."""
        return self.value.get("revision")

    @property
    def control_urls(self) -> tuple[str, ...]:
        """Return where the node asks for its next document, the first one first."""
        return tuple(self.section("control").get("urls", ()))

    @property
    def poll_interval_s(self) -> int:
        """Return the seconds between two questions."""
        return int(self.section("control").get("poll_interval_s", DEFAULT_POLL_S))

    @property
    def offline_grace_s(self) -> int:
        """Return the seconds for which nobody answering is held against nobody."""
        return int(self.section("control").get("offline_grace_s", DEFAULT_OFFLINE_GRACE_S))

    @property
    def settle_s(self) -> float:
        """Return the seconds that its gates must stay green for."""
        return float(self.section("health").get("settle_s", DEFAULT_SETTLE_S))

    @property
    def telemetry_every_s(self) -> int:
        """Return the seconds between two times that rows of its log and samples go to its central."""
        return int(self.section("telemetry").get("every_s", DEFAULT_TELEMETRY_S))

    def not_served(self) -> list[schemas.Problem]:
        """Return what stands in it that a node like this one does not honour."""
        found = []
        for place, why in NOT_SERVED.items():
            path = tuple(place.split("."))
            value: Any = self.value
            for step in path:
                value = value.get(step, {})
            if value:
                found.append(schemas.Problem(path, f"is not served by this node: {why}", "not_served"))
        return found

    def section(self, name: str) -> Mapping[str, Any]:
        """Return one section, empty when it is left out."""
        found: Mapping[str, Any] = self.value.get(name, {})
        return found

    def own(self, name: str) -> dict[str, Any]:
        """Return what a section says to the node, without what its writer keeps in it."""
        return {name: value for name, value in self.section(name).items() if not is_note(name)}


def is_note(name: str) -> bool:
    """Say whether a name is of something that the writer of a document keeps in it, and nobody here reads."""
    return name.startswith("x-")


def etag_of(data: bytes) -> str:
    """Return the name of some bytes: `sha256-` and their hash; it changes exactly when they do."""
    return f"sha256-{hashlib.sha256(data).hexdigest()}"


def author(text: bytes, name: str, *, language: str | None = None) -> Document:
    """Make a document of what somebody wrote.

    Args:
        text: TOML, YAML or JSON.
        name: Where it is from; the ending tells the language.
        language: One of `authored.LANGUAGES`, where the name does not tell.

    Raises:
        UsageError: It is not in its language.
        DocumentError: It is, and no document all the same; every problem is named.
    """
    value = authored.parse(text, name, language=language, longest=MAX_BYTES)
    refuse(problems(value), name)
    return parse(encode(value), name)


def encode(value: Any) -> bytes:
    """Return the one JSON text of a value: equal documents have equal bytes, however they were written."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def parse(data: bytes, name: str = "the document") -> Document:
    """Check bytes that were served or kept.

    Raises:
        DocumentError: They are no document; every problem is named.
    """
    if len(data) > MAX_BYTES:
        raise DocumentError(
            f"{name} has {len(data)} bytes; {MAX_BYTES} is the most",
            code="document.too_large",
            details={"bytes": len(data), "most": MAX_BYTES},
        )
    try:
        value = authored.parse(data, name, language="json", longest=MAX_BYTES)
    except UsageError as error:
        raise DocumentError(error.message) from error
    refuse(problems(value), name)
    return Document(data, value)


def problems(value: Any) -> list[schemas.Problem]:
    """Return everything wrong with what a document says, with its place."""
    found = _validator().problems(value)
    # With a wrong shape, what the rest means is anybody's guess.
    return found or sorted(_beyond_the_schema(value), key=lambda each: list(map(str, each.path)))


def schema() -> dict[str, Any]:
    """Return the schema."""
    loaded: dict[str, Any] = json.loads(schema_text())
    return loaded


def schema_text() -> str:
    """Return the schema as it is published."""
    return resources.files("toft.managed").joinpath("document.schema.json").read_text(encoding="utf-8")


@functools.cache
def _validator() -> schemas.Validator:
    return schemas.Validator(schema())


def refuse(found: Sequence[schemas.Problem], name: str, verdict: str = "is no document of a node") -> None:
    """Raise for what was found, if anything was.

    Args:
        found: Everything wrong.
        name: Of the document.
        verdict: What that comes to.

    Raises:
        DocumentError: With all of it, in words and in `details["problems"]`.
    """
    if not found:
        return
    listed = [
        {"path": schemas.path_text(each.path), "message": each.message, "keyword": each.keyword}
        for each in found
    ]
    shown = "\n".join(f"  {each['path'] or 'the document'}: {each['message']}" for each in listed[:20])
    more = f"\n  and {len(listed) - 20} more" if len(listed) > 20 else ""
    raise DocumentError(
        f"{name} {verdict}:\n{shown}{more}",
        details={"problems": listed},
    )


def _beyond_the_schema(value: Mapping[str, Any]) -> Iterator[schemas.Problem]:
    first, last = value.get("not_before"), value.get("expires_at")
    for name, text in (("not_before", first), ("expires_at", last)):
        if text is not None and _moment(text) is None:
            yield schemas.Problem((name,), f"{text} is no moment", "format")
    start, end = _moment(first), _moment(last)
    if start is not None and end is not None and end <= start:
        yield schemas.Problem(("expires_at",), "is not after not_before", "order")
    yield from _floor_problems(value)
    plugins = value.get("plugins", {})
    for name, each in value.get("instances", {}).items():
        pin = plugins.get(each.get("plugin", name), {})
        if each.get("enabled", True) and not pin.get("enabled", True):
            yield schemas.Problem(
                ("instances", name, "plugin"), "is a plugin that this document disables", "order"
            )
    yield from _gate_problems(value.get("health", {}).get("gates", {}))
    yield from pins.problems(plugins)
    for index, name in enumerate(value.get("monitors", ())):
        if not value.get("instances", {}).get(name, {"enabled": False}).get("enabled", True):
            why = f"is {name}, and this document declares no such instance that is switched on"
            yield schemas.Problem(("monitors", index), why, "order")
    yield from _schedule_problems(value)
    yield from _token_problems(value.get("access", {}).get("tokens", {}))


def _floor_problems(value: Mapping[str, Any]) -> Iterator[schemas.Problem]:
    floor, revision = value.get("revision_floor", 0), value.get("revision", 0)
    if floor > revision:
        # Whoever had confirmed it would take nothing any more: neither this document again nor the next ones.
        said = "has none" if "revision" not in value else f"is {revision}"
        yield schemas.Problem(
            ("revision_floor",), f"is {floor}, and this document's revision {said}", "order"
        )


def _gate_problems(gates: Mapping[str, Any]) -> Iterator[schemas.Problem]:
    needed = {"http": "url", "tcp": "address", "exec": "command"}
    for name, gate in gates.items():
        lacks = needed.get(gate["kind"])
        if lacks and lacks not in gate:
            yield schemas.Problem(
                ("health", "gates", name), f"is of kind {gate['kind']} and lacks {lacks}", "gate"
            )
        for place, is_one in (("url", addresses.is_url), ("address", addresses.is_place)):
            if place in gate and not is_one(gate[place]):
                yield schemas.Problem(("health", "gates", name, place), "is no address", "format")


def _schedule_problems(value: Mapping[str, Any]) -> Iterator[schemas.Problem]:
    instances = value.get("instances", {})
    for name, said in value.get("schedules", {}).items():
        instance = instances.get(said["instance"], {})
        if not instance.get("enabled", True):
            why = "is an instance that this document switches off"
            yield schemas.Problem(("schedules", name, "instance"), why, "order")
        try:
            # Whether a date ever comes does not depend on the moment that is asked from.
            Timetable(every_s=said.get("every_s"), cron=said.get("cron")).check(0.0)
        except UsageError as error:
            yield schemas.Problem(("schedules", name, "cron"), error.message, "cron")


def _token_problems(tokens: Mapping[str, Any]) -> Iterator[schemas.Problem]:
    owners: dict[str, str] = {}
    for name, token in tokens.items():
        path = ("access", "tokens", name)
        other = owners.setdefault(token["sha256"], name)
        if other != name:
            yield schemas.Problem((*path, "sha256"), f"is that of {other} too", "unique")
        if token.get("expires_at") is not None and _moment(token["expires_at"]) is None:
            yield schemas.Problem((*path, "expires_at"), f"{token['expires_at']} is no moment", "format")
        for index, scope in enumerate(token["scopes"]):
            try:
                scopes.parse(scope)
            except UsageError as error:
                yield schemas.Problem((*path, "scopes", index), error.message, "scope")


def _moment(text: str | None) -> float | None:
    try:
        return None if text is None else clocks.from_rfc3339(text)
    except ValueError:
        return None
