"""Who may do what: scopes, the decision, and that no route forgets to ask."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI

from toft.access import decisions, scopes
from toft.access.decisions import Access, Decision
from toft.access.principals import OWNER, Principal
from toft.access.resources import Action, Kind, Resource
from toft.api import app as applications
from toft.api import permits
from toft.kernel import errors


def somebody(*given: str) -> Principal:
    return Principal("p", "local", "p", "token", given)


@pytest.mark.parametrize(
    ("scope", "action", "resource", "allowed"),
    [
        ("*", Action.ADMIN, Resource(Kind.TOKEN), True),
        ("read", Action.READ, Resource(Kind.SECRET), True),
        ("read", Action.CANCEL, Resource(Kind.JOB), False),
        ("*:write", Action.CANCEL, Resource(Kind.JOB, "job_1"), True),
        ("job:cancel", Action.WRITE, Resource(Kind.JOB, "job_1"), False),
        ("job:*", Action.ADMIN, Resource(Kind.JOB, "job_1"), True),
        ("job:write", Action.READ, Resource(Kind.RESULT, "job_1"), False),
        ("job:write:ocr", Action.WRITE, Resource(Kind.JOB, None, {"plugin": "ocr"}), True),
        ("job:write:ocr", Action.WRITE, Resource(Kind.JOB, None, {"plugin": "other"}), False),
        ("job:read:ocr", Action.READ, Resource(Kind.JOB, None), True),
        ("job:read:ocr", Action.READ, Resource(Kind.JOB, "job_1"), False),
        ("plugin:read:ocr", Action.READ, Resource(Kind.PLUGIN, "ocr"), True),
        ("plugin:read:ocr", Action.READ, Resource(Kind.PLUGIN, "ocr2"), False),
        ("*:admin:ocr", Action.READ, Resource(Kind.NODE), False),
        ("*:admin:ocr", Action.READ, Resource(Kind.TOKEN), False),
    ],
)
def test_a_scope_allows_what_it_says_and_nothing_else(
    scope: str, action: Action, resource: Resource, allowed: bool
) -> None:
    found = decisions.decide(somebody(scope), action, resource)
    assert found.allowed is allowed
    assert found.rule == (f"scope {scope}" if allowed else "no scope")
    assert allowed or decisions.decide(somebody(found.needed), action, resource).allowed


def test_nobody_without_a_scope_may_do_anything_and_the_owner_may_do_everything() -> None:
    for kind in Kind:
        for action in Action:
            assert not decisions.decide(somebody(), action, Resource(kind)).allowed
            assert decisions.decide(OWNER, action, Resource(kind, "x")).allowed


@pytest.mark.parametrize(
    "text",
    ["", "jobs:read", "job", "job:", "job:reed", "job:read:", "job:read:a/b", "node:read:ocr", "a:b:c:d"],
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        scopes.parse(text)
    assert refused.value.code == "access.scope"


def test_a_list_is_limited_to_what_every_rule_leaves() -> None:
    class Others:
        def decide(self, principal: Principal, action: Action, resource: Resource) -> Decision:
            return Decision(action is Action.READ, "others", "only reading")

        def visible(self, principal: Principal, kind: Kind, action: Action) -> frozenset[str] | None:
            return frozenset({"a", "b"})

    both = Access(checkers=[Others()])
    assert both.visible(somebody("job:read:b", "job:read:c"), Kind.JOB, Action.READ) == {"b"}
    assert both.visible(OWNER, Kind.JOB, Action.READ) == {"a", "b"}
    assert both.visible(somebody("node:read"), Kind.JOB, Action.READ) == frozenset()
    assert both.decide(OWNER, Action.WRITE, Resource(Kind.JOB)).rule == "others"
    assert both.decide(somebody(), Action.READ, Resource(Kind.JOB)).rule == "no scope"
    assert Access().visible(OWNER, Kind.JOB, Action.READ) is None


def test_every_route_says_who_may_use_it() -> None:
    found = list(permits.declared(applications.routes()))
    assert len(found) > 40
    open_to_all = {path for _, path, permit in found if permit.is_public}
    assert open_to_all <= {
        "/healthz",
        "/livez",
        "/readyz",
        "/sign-in",
        "/sign-in/{code}",
        "/static/{path:path}",
    }


def test_an_application_with_a_route_that_says_nothing_does_not_start() -> None:
    router = APIRouter()

    @router.get("/open")
    async def forgotten() -> None:
        return None

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(router)
    with pytest.raises(errors.NodeError, match="/open") as refused:
        permits.check(app)
    assert refused.value.code == "node.no_permit"
    with pytest.raises(errors.NodeError):
        permits.check(FastAPI())
