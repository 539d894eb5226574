"""Runs an action as a job from the page of its plugin: a form of its arguments, and what is sent back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import permits, service
from toft.api.service import Service
from toft.kernel import errors
from toft.plugins.manifests.manifest import Manifest
from toft.plugins.plugin_errors import PluginError
from toft.web import fields, forms, rendering, sending, settings, submissions

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
Serves = Annotated[Service, Depends(service.of)]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One action that can be run.

    Attributes:
        action: Its name.
        form: Its arguments.
        said: What came of the last try; empty before.
    """

    action: str
    form: fields.Form
    said: str = ""


def runs(manifest: Manifest) -> list[Run]:
    """Return every action of a plugin with a form of its arguments."""
    return [Run(action=name, form=_form(described)) for name, described in manifest.runtime.actions.items()]


@router.post(
    "/plugins/{name}/{instance}/jobs/{action}",
    dependencies=[permits.needs(Action.WRITE, Kind.JOB, id=None)],
)
async def submit(request: Request, serves: Serves, name: str, instance: str, action: str) -> Response:
    """Store a job and lead to its page; what does not fit is told beside its field."""
    await permits.require(request, Action.WRITE, Kind.JOB, plugins=[name])
    subject = await settings.find(serves, name, instance)
    found = next((each for each in runs(subject.manifest) if each.action == action), None)
    if found is None:
        raise errors.NotFoundError(
            f"{name} has no action {action[:80]!r}",
            code="action.not_found",
            details={"actions": sorted(subject.manifest.runtime.actions)},
            hint=f"toft plugin show {name}",
        )
    sent = await sending.sent(request)
    reading = submissions.read(found.form, sent)
    problems, said = dict(reading.problems), ""
    if not problems:
        try:
            job = await serves.jobs.submit(
                subject.plugin, reading.changes, action=action, instance=subject.instance
            )
        except PluginError as error:
            problems = dict(getattr(error, "fields", {}))
            said = "" if problems else error.message
        except errors.NodeError as error:
            said = error.message
        else:
            return Response(status_code=204, headers={"HX-Redirect": f"/jobs/{job.id}"})
    run = Run(action=action, form=fields.with_errors(found.form, problems, sent), said=said)
    return rendering.fragment(request, "plugin.run.html", subject=subject, run=run)


def _form(described: Any) -> fields.Form:
    given = described.get("input") if isinstance(described, Mapping) else None
    given = given if isinstance(given, Mapping) else {}
    parameters = given.get("parameters")
    known = parameters if isinstance(parameters, Mapping) else {}
    usual = {
        name: schema["default"]
        for name, schema in known.items()
        if isinstance(schema, Mapping) and "default" in schema
    }
    # Arguments that stay as they are by default are not sent, so that the job says what was asked for.
    return forms.build({"properties": known, "required": given.get("required")}, usual)
