"""How an instance is run, as a form of the options that the table of options allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toft.api.service import Service
from toft.plugins.instances import OPTIONS_SCHEMA, InstanceOptions
from toft.web import forms, settings, submissions

# Variables have a form of their own, which knows what the plugin declares and which of them are secrets.
_ELSEWHERE = ("env",)
_SCHEMA = {
    **OPTIONS_SCHEMA,
    "properties": {
        name: each for name, each in OPTIONS_SCHEMA["properties"].items() if name not in _ELSEWHERE
    },
}


def options(held: InstanceOptions) -> settings.Settings:
    """Return the form of the options that an instance will be loaded with."""
    values = _values(held)
    made = forms.build(_SCHEMA, values, defaults=_values(InstanceOptions()))
    return settings.Settings(form=made, etag=submissions.etag(values))


async def change(serves: Service, subject: settings.Subject, sent: Mapping[str, str]) -> settings.Settings:
    """Do what a form says, and return the form as it is then."""

    async def put(changes: Mapping[str, Any]) -> settings.Settings:
        return options(await serves.node.set_options(subject.plugin, changes, instance=subject.instance))

    done = (
        "Saved." if subject.loaded is None else "Saved; it counts from the next load on: Unload, then Load."
    )
    return await settings.taken(options(subject.record.options), sent, put, done)


def _values(held: InstanceOptions) -> dict[str, Any]:
    found = {name: value for name, value in dataclasses.asdict(held).items() if name not in _ELSEWHERE}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
