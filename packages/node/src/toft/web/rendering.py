"""Turns what rooms tell into HTML; whatever a plugin or a client wrote stays text in it.

Two rules hold for every template without its doing: values are escaped, and characters that turn the reading
order or drive a terminal are spelled out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import jinja2
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from markupsafe import Markup

from toft.api import permits, problems, service
from toft.jobs import glance, reasons, story
from toft.kernel import errors, quantities
from toft.kernel.visible import one_line, visible
from toft.plugins.manifests import signatures
from toft.plugins.plugin_errors import PluginError
from toft.web import assets, navigation

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def page(request: Request, name: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page; to htmx, which asks for what has changed, its body alone.

    Args:
        request: What was asked.
        name: `NAME.html` is the whole page, `NAME.body.html` what is in it.
        status: Of the answer.
        values: What the template shows.
    """
    is_part = request.headers.get("hx-request") == "true"
    return fragment(request, f"{name}.body.html" if is_part else f"{name}.html", status=status, **values)


def fragment(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Return what a template makes of values."""
    serves = service.here(request)
    face = _face(request)
    text = _ENVIRONMENT.get_template(template).render(
        path=request.url.path,
        origin=str(request.base_url).rstrip("/"),
        face=face,
        is_at=navigation.is_at,
        behind=f"?{query}" if (query := values.pop("behind", "")) else "",
        node=serves,
        csrf=permits.csrf_of(request),
        **values,
    )
    return HTMLResponse(text, status_code=status, headers=HEADERS)


def _face(request: Request) -> navigation.Face:
    face: navigation.Face = getattr(request.app.state, "face", navigation.NODE)
    return face


def part(template: str, **values: Any) -> str:
    """Return what a template makes of values that belong to no request, for a page that is there already."""
    return _ENVIRONMENT.get_template(template).render(**values)


class PageRoute(APIRoute):
    """A route for people: what goes wrong is a page as well, with the next step on it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await answer(request)
            except (errors.NodeError, PluginError, OSError) as error:
                return failure(request, problems.known(error))
            except RequestValidationError:
                return failure(
                    request, errors.UsageError("the address of this page does not fit", code="request.fields")
                )
            except HTTPException as error:
                return failure(request, errors.UsageError(str(error.detail), code="request.invalid"))

        return told


def failure(request: Request, error: errors.NodeError | PluginError) -> Response:
    """Return an error as a page; as a problem document to htmx, which shows it above the page."""
    if request.headers.get("hx-request") == "true":
        return problems.response(error)
    status = problems.status_of(error)
    template = f"{_face(request).folder}sign_in.html" if status == 401 else "failure.html"
    return fragment(request, template, status=status, status_code=status, error=problems.describe(error))


def _shown(value: Any) -> Any:
    """Return what is written for a value: never `None`, and no character that acts."""
    if value is None:
        return ""
    if isinstance(value, Markup):
        return value
    return visible(value) if isinstance(value, str) else value


def pretty(value: Any) -> str:
    """Return a value as people read JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _moment(at: str | None, form: str = "%H:%M:%S") -> Markup:
    """Return a moment: in the time of the node, until the browser writes it in its own."""
    if not at:
        return Markup("")
    local = datetime.fromisoformat(at).astimezone()
    text = local.strftime(form)
    return Markup('<time datetime="{}" data-form="{}" title="{}">{}</time>').format(
        at, "full" if "%Y" in form else "clock", local.strftime("%Y-%m-%d %H:%M:%S %Z"), text
    )


def _signature(described: Any, name: str) -> str:
    return signatures.action(name, described) if isinstance(described, Mapping) else name


def _clock(at: str) -> str | Markup:
    """Return the moment of a line of a log; what is none is shown as it is."""
    try:
        return _moment(at)
    except (ValueError, OverflowError):
        return at


def segment(text: Any) -> str:
    """Return text as one step of a path, whatever is in it."""
    return quote(str(text), safe="")


def _share(part: Any, whole: Any) -> float:
    """Return a share as a percentage between 0 and 100."""
    if not isinstance(part, (int, float)) or not isinstance(whole, (int, float)) or whole <= 0:
        return 0.0
    return round(min(max(part / whole, 0.0), 1.0) * 100, 2)


def _build() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("toft.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        called=glance.called,
        cause=lambda because: reasons.cause(str(because)) if because else "",
        clock=_clock,
        cut=lambda text, most: text if len(text) <= most else f"{text[: most - 1]}…",
        day=lambda at: _moment(at, "%Y-%m-%d %H:%M:%S"),
        duration=quantities.duration,
        line=lambda value, most=200: one_line(str(value), most),
        moment=_moment,
        note=glance.note,
        pretty=pretty,
        segment=segment,
        sentence=reasons.sentence,
        signature=_signature,
        size=quantities.size,
        skew=quantities.skew,
        took=glance.took,
        used=story.used,
        when=_clock,
    )
    environment.globals.update(asset=assets.url, share=_share)
    for name in environment.list_templates():
        environment.get_template(name)  # a mistake in one is found at the start, not by whom it is shown to
    return environment


_ENVIRONMENT = _build()
