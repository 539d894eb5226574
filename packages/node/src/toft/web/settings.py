"""Gathers what the page of an instance shows: its state, its settings as a form, its options."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from toft.api.service import Service
from toft.kernel import errors, ids
from toft.plugins import configuring, instances
from toft.plugins.instance import Instance
from toft.plugins.manifests import config as configurations
from toft.plugins.manifests.manifest import Manifest
from toft.plugins.plugin_errors import PluginError
from toft.plugins.supervision import states
from toft.web import fields, forms, submissions

_PATIENCE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An instance, loaded or remembered or only possible.

    Attributes:
        plugin: Its plugin.
        instance: Its name.
        manifest: Of its plugin.
        record: What is remembered of it.
        loaded: The instance itself, while it is loaded.
    """

    plugin: str
    instance: str
    manifest: Manifest
    record: instances.InstanceRecord
    loaded: Instance | None

    @property
    def path(self) -> str:
        """Where its page is; names are checked, so that they need no quoting."""
        own = self.plugin == self.instance
        return f"/plugins/{self.plugin}" if own else f"/plugins/{self.plugin}/{self.instance}"

    @property
    def is_known(self) -> bool:
        """Whether the node knows of it; what carries a name that nobody has may be left of another plugin."""
        is_own = self.plugin == self.instance
        return is_own or self.loaded is not None or bool(self.record.updated_at)

    @property
    def is_enabled(self) -> bool:
        """Whether it takes calls."""
        return self.loaded.is_enabled if self.loaded is not None else self.record.enabled

    @property
    def given(self) -> Mapping[str, Any]:
        """What somebody has set."""
        return self.loaded.loaded_from.given if self.loaded is not None else self.record.config


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The form of an instance.

    Attributes:
        form: What can be set.
        etag: Of the configuration that it was made for.
        said: What came of the last try to change it; empty before.
        live: How much of it is what the plugin says of this moment: `yes`, `no` (not loaded) or `late`.
    """

    form: fields.Form
    etag: str
    said: str = ""
    live: str = "no"


async def find(serves: Service, plugin: str, instance: str) -> Subject:
    """Return an instance of a plugin.

    Raises:
        NotFoundError: There is no such plugin, or the instance is another one's.
    """
    node = serves.node
    manifest = await node.installed.get(plugin)
    await configuring.check_owner(node, manifest.name, ids.check_name(instance, "instance name"))
    record = await node.rooms.records.of(manifest.name, instance)
    loaded = node.find(instance)
    return Subject(plugin=manifest.name, instance=instance, manifest=manifest, record=record, loaded=loaded)


async def settings(serves: Service, subject: Subject) -> Settings:
    """Return the form of an instance, with what is wrong about what is remembered of it."""
    options, live = await _options(subject)
    config, problems = _effective(serves, subject)
    code = subject.manifest.code
    made = forms.build(
        code.config_schema, config, defaults=subject.manifest.runtime.config_defaults, live=options
    )
    return Settings(form=fields.with_errors(made, problems), etag=submissions.etag(config), live=live)


async def change(serves: Service, subject: Subject, sent: Mapping[str, str]) -> Settings:
    """Do what a form says, and return the form as it is then."""

    async def put(changes: Mapping[str, Any]) -> Settings:
        await serves.node.configure(subject.plugin, changes, instance=subject.instance)
        return await settings(serves, await find(serves, subject.plugin, subject.instance))

    return await taken(await settings(serves, subject), sent, put)


async def taken(
    before: Settings,
    sent: Mapping[str, str],
    put: Callable[[Mapping[str, Any]], Awaitable[Settings]],
    done: str = "Saved.",
) -> Settings:
    """Do what a form says, if it was made for what is there and all of it fits.

    Args:
        before: The form of what is there.
        sent: What came.
        put: Remembers changes, and returns the form as it is then.
        done: What is said of a change.
    """
    clean = fields.Form(before.form.fields)
    reading = submissions.read(clean, sent)
    said, problems = "", dict(reading.problems)
    if sent.get("etag", before.etag) != before.etag:
        said = "Somebody else changed this meanwhile. Look at it again, then save."
    elif problems:
        said = _counted(problems)
    elif not reading.changes:
        return replace(before, said="Nothing was changed.")
    else:
        try:
            return replace(await put(reading.changes), said=done)
        except PluginError as error:
            problems = dict(getattr(error, "fields", {}))
            said = _counted(problems) if problems else error.message
        except errors.NodeError as error:
            said = error.message
    return replace(before, form=fields.with_errors(clean, problems, sent), said=said)


def _counted(problems: Mapping[str, str]) -> str:
    return "1 setting does not fit." if len(problems) == 1 else f"{len(problems)} settings do not fit."


def _effective(serves: Service, subject: Subject) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Return the configuration; one that does not fit any more as it would be, and what is wrong with it."""
    if subject.loaded is not None:
        return subject.loaded.config, {}
    manifest = subject.manifest
    try:
        return serves.node.rooms.loader.validator(manifest)(subject.given), {}
    except (PluginError, errors.NodeError) as error:
        schema = manifest.code.config_schema or {}
        usual = configurations.merge(
            configurations.schema_defaults(schema), dict(manifest.runtime.config_defaults), schema
        )
        problems = getattr(error, "fields", None) or {"configuration": error.message}
        return configurations.merge(usual, dict(subject.given), schema), problems


async def _options(subject: Subject) -> tuple[Mapping[str, Any], str]:
    """Ask the plugin what each setting can be right now; a page does not wait long for it."""
    if subject.loaded is None or subject.loaded.state is not states.State.READY:
        return {}, "no"
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await subject.loaded.config_options(), "yes"
    except TimeoutError:
        return {}, "late"
