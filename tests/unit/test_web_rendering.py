"""The frame of every page, rendered without a daemon."""

from types import SimpleNamespace
from typing import cast

from fastapi import Request

from toft.api.service import Service
from toft.kernel import errors
from toft.kernel.clock import ManualClock
from toft.web import rendering


def asked(path: str) -> Request:
    """Return a request for a page of a node that is there."""
    serves = cast("Service", SimpleNamespace(state="ready", clock=ManualClock()))
    app = SimpleNamespace(state=SimpleNamespace(service=serves))
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "app": app}
    return Request({**scope, "server": ("localhost", 80), "scheme": "http"})


def test_a_failure_is_a_page_in_the_frame_of_all_pages_and_its_text_is_text() -> None:
    error = errors.NotFoundError("no <b>job</b> \u202egnp", code="job.not_found", hint="toft job list")
    answer = rendering.failure(asked("/jobs/x"), error)
    text = bytes(answer.body).decode()
    assert answer.status_code == 404
    assert 'class="state state-ready"' in text
    assert "no &lt;b&gt;job&lt;/b&gt; \\u202egnp" in text
    assert "toft job list" in text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
