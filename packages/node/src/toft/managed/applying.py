"""What a document makes of a node, in the words of the rooms below: instances, tokens, settings.

Nothing is started or changed here. What does not fit what is installed is found here too, before anything is
committed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toft.access import token
from toft.kernel import clock as clocks
from toft.kernel import errors, schemas
from toft.managed import document as documents
from toft.managed import generations, moments, trees
from toft.managed.document import Document
from toft.managed.trees import Artifact
from toft.plugins import instance as handles
from toft.plugins import instances, loading
from toft.plugins.instances import InstanceRecord
from toft.plugins.manifests import config
from toft.plugins.manifests import manifest as manifests
from toft.plugins.manifests.manifest import Manifest
from toft.plugins.plugin_errors import PluginError
from toft.plugins.supervision import launch, orders
from toft.secrets import store as secrets

Knows = Callable[[str], Manifest | None]
"""Returns what is known of a plugin that would be there, pinned or installed; None when it would not."""


@dataclass(frozen=True, kw_only=True)
class Applied:
    """One document, as the rooms of a node take it.

    Attributes:
        etag: Its name; empty for a node without one.
        settings: What it names of the settings.
        instances: By name, switched off ones too.
        tokens: By the hash of their text.
        schedules: As the document says them; each with its `plugin`.
        unusable: Instances that this version cannot take, and why; they were fit when it was committed.
        pinned: The plugins it pins, each with the file that says what it is.
    """

    etag: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    instances: Mapping[str, InstanceRecord] = field(default_factory=dict)
    tokens: Mapping[bytes, token.Token] = field(default_factory=dict)
    schedules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    pinned: Sequence[tuple[Manifest, Path]] = ()


NOTHING = Applied()


def of(
    document: Document, etag: str, fetched_at: float, pinned: Sequence[tuple[Manifest, Path]] = ()
) -> Applied:
    """Return what a checked document makes of a node.

    Args:
        document: The document.
        etag: What its changes are said to be from.
        fetched_at: When the node got it, in seconds since 1970.
        pinned: The plugins that were installed for it; see `pinned_by`.
    """
    made: dict[str, InstanceRecord] = {}
    unusable: dict[str, str] = {}
    monitors = document.value.get("monitors", ())
    for name, said in document.own("instances").items():
        try:
            made[name] = _record(name, said, etag, is_monitor=name in monitors)
        except (errors.NodeError, PluginError) as error:
            unusable[name] = error.message
    settings = document.own("settings")
    schedules = {
        name: {
            **said,
            "plugin": made[said["instance"]].plugin if said["instance"] in made else said["instance"],
        }
        for name, said in document.own("schedules").items()
    }
    return Applied(
        etag=etag,
        settings=settings,
        instances=made,
        tokens=_tokens(document, etag, fetched_at),
        schedules=schedules,
        unusable=unusable,
        pinned=pinned,
    )


def read(home: Path) -> Applied:
    """Return what the document of a home makes of it, for a process that is no daemon; blocks.

    What cannot be read makes nothing of it: the daemon says why.
    """
    standing = generations.Generations(home / "managed", moments.read).read()
    slot = standing.slots.get(standing.active or "")
    if slot is None or slot.problem or not slot.meta.etag:
        return NOTHING
    try:
        pinned = pinned_by(home, slot.meta.artifacts)
        return of(documents.parse(slot.document), slot.meta.etag, slot.meta.fetched_at, pinned)
    except documents.DocumentError:
        return NOTHING


def pinned_by(home: Path, artifacts: Sequence[Mapping[str, Any]]) -> list[tuple[Manifest, Path]]:
    """Return the plugins of a slot, each with the file that says what it is; blocks.

    Of what was lost nothing is known any more; it is told at boot, and made again where that can be done.
    """
    kept = trees.Trees(home)
    found = []
    for each in kept.pinned(artifacts).values():
        if not each.problem:
            with contextlib.suppress(manifests.ManifestError):
                found.append((manifests.parse(each.manifest), kept.path(each.artifact)))
    return found


class Present:
    """The installer of documents that pin nothing: what they speak of is here, or they are refused.

    Args:
        knows: Looks at what is installed, afresh each time; blocks.
    """

    def __init__(self, knows: Knows) -> None:
        self._knows = knows

    @contextlib.asynccontextmanager
    async def installed(self, offered: Document) -> AsyncGenerator[Sequence[Artifact]]:
        """See `toft.managed.staging.Installer.installed`."""
        found = await asyncio.to_thread(problems, offered, self._knows)
        documents.refuse(found, "the document", "does not fit this node")
        yield ()


def problems(document: Document, knows: Knows) -> list[schemas.Problem]:
    """Return what of a document does not fit the plugins that would be there with it."""
    found: list[schemas.Problem] = []
    declared = document.own("instances")
    for name, said in document.section("schedules").items():
        plugin = _plugin_of(document, said["instance"])
        found += _bad_schedule(("schedules", name), said, plugin, knows(plugin))
    for name, said in declared.items():
        plugin = said.get("plugin", name)
        manifest = knows(plugin)
        if manifest is None and said.get("enabled", True):
            why = f"is {plugin}, and no plugin of that name is pinned or installed"
            found.append(schemas.Problem(("instances", name, "plugin"), why, "plugin"))
        found += _misfits(("instances", name), said, manifest)
    return found


def _tokens(document: Document, etag: str, fetched_at: float) -> dict[bytes, token.Token]:
    return dict(
        token.declared(
            name,
            said["sha256"],
            said["scopes"],
            created_at=fetched_at,
            expires_at=clocks.from_rfc3339(said["expires_at"]) if "expires_at" in said else None,
            declared_by=etag,
        )
        for name, said in document.section("access").get("tokens", {}).items()
        if not documents.is_note(name)
    )


def _record(name: str, said: Mapping[str, Any], etag: str, *, is_monitor: bool) -> InstanceRecord:
    options = instances.checked_options(said.get("options", {}))
    if is_monitor:
        options["is_monitor"] = True
    return InstanceRecord(
        name=name,
        plugin=said.get("plugin", name),
        config=said.get("config", {}),
        options=instances.InstanceOptions.from_dict(options),
        enabled=said.get("enabled", True),
        secrets=said.get("secrets", {}),
        declared_by=etag,
    )


def _misfits(
    path: tuple[str, ...], said: Mapping[str, Any], manifest: Manifest | None
) -> Iterator[schemas.Problem]:
    options: Mapping[str, Any] = {}
    try:
        options = instances.checked_options(said.get("options", {}))
    except PluginError as error:
        yield from _listed((*path, "options"), error, "options")
    if manifest is not None:
        runtime, code = manifest.runtime, manifest.code
        try:
            config.validate(code.config_schema, said.get("config", {}), runtime.config_defaults)
        except PluginError as error:
            yield from _listed((*path, "config"), error, "config")
        except schemas.SchemaError as error:
            yield schemas.Problem((*path, "config"), error.message, "config")
        try:
            launch.declared_values(code.worker_env, manifest.install.env_vars, options.get("env", {}))
        except errors.UsageError as error:
            yield schemas.Problem((*path, "options", "env"), f"{error.message}: see secrets", "secret")
    for variable, reference in said.get("secrets", {}).items():
        yield from _bad_reference((*path, "secrets", variable), reference, manifest)


def _bad_schedule(
    path: tuple[str, ...], said: Mapping[str, Any], plugin: str, manifest: Manifest | None
) -> Iterator[schemas.Problem]:
    if manifest is None:
        why = (
            f"is {said['instance']}: the document declares no such instance, and there is no plugin {plugin}"
        )
        yield schemas.Problem((*path, "instance"), why, "plugin")
        return
    action = said.get("action", handles.DEFAULT_ACTION)
    known = loading.binders(manifest)
    if action not in known:
        why = f"is {action}, and {plugin} has {', '.join(sorted(known))}"
        yield schemas.Problem((*path, "action"), why, "action")
        return
    try:
        known[action].bind(said.get("arguments", {}))
    except PluginError as error:
        yield from _listed((*path, "arguments"), error, "arguments")


def _bad_reference(
    path: tuple[str, ...], reference: str, manifest: Manifest | None
) -> Iterator[schemas.Problem]:
    variable = path[-1]
    try:
        plugin, key = orders.place_of(reference, "plugin")
        secrets.check_place(plugin, key, secrets.DEFAULT_SCOPE)
    except errors.UsageError as error:
        yield schemas.Problem(path, f"{error.message}; {error.hint}", "secret")
    if manifest is not None:
        declared = {str(spec["name"]) for spec in manifest.code.worker_env if spec.get("secret")}
        if variable not in declared:
            listed = ", ".join(sorted(declared)) or "none"
            yield schemas.Problem(path, f"{manifest.name} declares no such secret; it has {listed}", "secret")


def _listed(path: tuple[str, ...], error: PluginError, keyword: str) -> Iterator[schemas.Problem]:
    """Give each problem that an error lists its own place."""
    fields: Mapping[str, str] = getattr(error, "fields", None) or {"": error.message}
    for name, message in fields.items():
        yield schemas.Problem((*path, name) if name else path, message, keyword)


def _plugin_of(document: Document, instance: str) -> str:
    """Return whose an instance is: what the document says, or the plugin of its name."""
    plugin: str = document.section("instances").get(instance, {}).get("plugin", instance)
    return plugin
