"""Every route against every kind of caller: what is refused and what is not, printed as a table."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fastapi.routing import APIRoute, iter_route_contexts
from tests import nodes
from tests.waiting import eventually_async

from toft.access.gate import Gate
from toft.access.hosts import Hosts
from toft.access.resources import OF_PLUGINS, Action, Kind
from toft.access.tokens import Tokens
from toft.api import app as applications
from toft.api import frames, guard, permits, visible
from toft.api.permits import Permit
from toft.api.service import Service, State
from toft.kernel import errors
from toft.kernel.clock import ManualClock
from toft.plugins.node import load_current
from toft.plugins.wire.frames import LogLine
from toft.web import app as pages
from toft.web import drawing, happenings, settings

LESS = {Action.CANCEL: "read", Action.WRITE: "cancel", Action.ADMIN: "write"}
PARTS = {"number": "1", "step": "enable", "key": "KEY", "code": "guess"}
MOST_CALLS = 120_000
NOWHERE = "job_01ARZ3NDEKTSV4RRFFQ69G5FAV"
CALLERS = ("none", "expired", "revoked", "guess", "other kind", "less", "other plugin", "right", "all")


class World:
    """A node with a door to the network, and a token for whatever is wanted."""

    service: Service

    def __init__(
        self, door: Any, gate: Gate, clock: ManualClock, routes: list[tuple[str, str, Permit]]
    ) -> None:
        self.app = door
        self.gate = gate
        self.clock = clock
        self.routes = routes
        self._tokens: dict[str, str] = {}

    async def token(self, scope: str) -> str:
        """Return a token with one scope."""
        if scope not in self._tokens:
            _, self._tokens[scope] = await self.gate.tokens.create(f"t{len(self._tokens)}", [scope])
        return self._tokens[scope]

    async def ask(
        self,
        method: str,
        path: str,
        token: str | None,
        body: Any = None,
        meanwhile: Callable[[], Awaitable[Any]] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Return the status of an answer and its body, as far as it came before a stream would go on.

        What happens `meanwhile` happens before the body of the request comes.
        """
        status, text, is_whole = await self.read(method, path, token, body, meanwhile=meanwhile)
        try:
            found = json.loads(text) if is_whole else {}
        except ValueError:
            found = {}
        return status, found if isinstance(found, dict) else {"list": found}

    async def read(
        self,
        method: str,
        path: str,
        token: str | None,
        body: Any = None,
        pieces: int = 1,
        meanwhile: Callable[[], Awaitable[Any]] | None = None,
    ) -> tuple[int, bytes, bool]:
        """Return the status of an answer, its body, and whether that is all of it.

        A stream is read until it has sent so many pieces, its head among them.
        """
        headers = [(b"host", b"localhost")]
        if token is not None:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        scope = {
            "type": "http", "method": method, "path": path.partition("?")[0], "raw_path": path.encode(),
            "query_string": path.partition("?")[2].encode(),
            "headers": headers, "client": ("192.0.2.1", 1), "server": ("localhost", 80), "scheme": "http",
            "http_version": "1.1", "root_path": "", "state": {},
        }  # fmt: skip
        told: list[Any] = []
        begun, whole = asyncio.Event(), asyncio.Event()
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        coming: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": data, "more_body": False}])

        async def receive() -> Any:
            message = next(coming, None)
            if message is not None:
                if meanwhile is not None:
                    await meanwhile()
                return message
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            told.append(message)
            if len(told) >= pieces:
                begun.set()
            if not message.get("more_body", message["type"] == "http.response.start"):
                whole.set()

        await asyncio.wait_for(self.app(scope, receive, send), 20)
        status = told[0]["status"]
        return status, b"".join(each.get("body", b"") for each in told[1:]), whole.is_set()


@pytest_asyncio.fixture
async def world(toft_home: Path) -> AsyncIterator[World]:
    nodes.register(toft_home)
    clock = ManualClock()
    async with nodes.running(toft_home, lanes=1) as node:
        engine = await node.jobs.open()  # type: ignore[attr-defined]
        gate = Gate(await Tokens(engine.means.store, clock=clock).open(), clock=clock)
        service = Service(node=node, socket=toft_home / "toft.sock", gate=gate, state=State.READY)  # type: ignore[arg-type]
        built = applications.build(service, faces=(pages.mount,))
        door = guard.NetworkDoor(gate, Hosts())
        routes = [
            (method, str(each.path), permit)
            for each in iter_route_contexts(built.app.routes)
            if isinstance(each.original_route, APIRoute) and (permit := permits.permit_of(each)) is not None
            for method in sorted(each.methods or ())
        ]
        found = World(built.behind(door), gate, clock, list(dict.fromkeys(routes)))
        found.service = service
        yield found
        await gate.tokens.close()


def scope_of(caller: str, permit: Permit) -> str | None:
    """Return the scope with which a caller comes; None where there is no such caller."""
    kind, action = permit.kind, permit.action
    if caller == "all":
        return "*"
    if kind is None or action is None:
        return "node:read" if caller == "right" else None
    if caller == "right":
        return f"{kind}:{action}"
    if caller == "other kind":
        return f"{Kind.SYSTEM if kind is not Kind.SYSTEM else Kind.NODE}:admin"
    if caller == "less":
        return f"{kind}:{LESS[action]}" if action in LESS else None
    # For a kind as a whole a limit means a shorter list; what is in it is another test's.
    return f"{kind}:admin:stranger" if kind in OF_PLUGINS and permit.id is not None else None


async def column(world: World, caller: str, method: str, path: str, permit: Permit) -> int | None:
    parts = {**PARTS, "id": NOWHERE, "name": "misbehaving", "path": "x"}
    where = "/".join(
        parts.get(step.strip("{}").partition(":")[0], "x") if step.startswith("{") else step
        for step in path.split("/")
    )
    world.clock.advance(
        60
    )  # a guess now and then is answered with what is wrong, not with how many there were
    if caller == "none":
        return (await world.ask(method, where, None))[0]
    if caller in ("expired", "revoked"):
        made, text = await world.gate.tokens.create("old", ["*"], lasts_s=1)
        if caller == "revoked":
            await world.gate.tokens.revoke(made.id)
        world.clock.advance(2)
        status = (await world.ask(method, where, text))[0]
        if caller == "expired":
            await world.gate.tokens.revoke(made.id)
        return status
    if caller == "guess":
        return (await world.ask(method, where, "toft_" + "a" * 32))[0]
    scope = scope_of(caller, permit)
    if scope is None:
        return None
    return (await world.ask(method, where, await world.token(scope)))[0]


async def test_every_route_refuses_and_allows_as_it_says(world: World) -> None:
    assert len(world.routes) > 55
    rows, wrong = [], []
    for method, path, permit in world.routes:
        found = {caller: await column(world, caller, method, path, permit) for caller in CALLERS}
        needed = (
            "open"
            if permit.is_public
            else "anybody"
            if permit.kind is None
            else f"{permit.kind}:{permit.action}"
        )
        rows.append(
            f"{method:6} {path:52} {needed:18} " + " ".join(f"{found[each] or '-':>12}" for each in CALLERS)
        )
        for caller, status in found.items():
            is_let_in = status not in (401, 403) or (path == "/sign-in/{code}" and status == 403)
            if caller in ("expired", "revoked", "guess"):
                is_right = status == 401
            elif permit.is_public or status is None:
                is_right = status is None or is_let_in
            elif caller == "none":
                is_right = status == 401
            else:
                is_right = is_let_in if caller in ("right", "all") else status == 403
            if not is_right or (status or 0) == 500:
                wrong.append(f"{caller}: {method} {path} -> {status}")
    head = f"{'':6} {'':52} {'needs':18} " + " ".join(f"{each:>12}" for each in CALLERS)
    print("\n".join(["", head, *rows]))  # noqa: T201 - the table is for whoever runs this with -s
    assert wrong == []


async def test_a_scope_of_one_plugin_submits_for_it_and_sees_only_it(world: World) -> None:
    mine = await world.token("*:write:misbehaving")
    other = await world.token("*:write:stranger")
    status, job = await world.ask(
        "POST", "/v1/jobs", mine, {"plugin": "misbehaving", "action": "echo", "arguments": {"value": 1}}
    )
    assert status == 201, job
    graph = {"steps": [{"id": "a", "plugin": "misbehaving", "action": "echo", "arguments": {"value": 1}}]}
    status, sequence = await world.ask("POST", "/v1/sequences", mine, graph)
    assert status == 201, sequence
    for path, body in (
        ("/v1/jobs", {"plugin": "misbehaving", "action": "echo", "arguments": {"value": 1}}),
        ("/v1/jobs/batch", {"jobs": [{"plugin": "stranger"}, {"plugin": "misbehaving"}]}),
        ("/v1/sequences", {"steps": [{"plugin": "stranger"}, *graph["steps"]]}),
        ("/v1/sequences", graph),
        ("/v1/instances", {"plugin": "misbehaving"}),
    ):
        status, told = await world.ask("POST", path, other, body)
        assert (status, told.get("code")) == (403, "access.refused"), path
    # What is not there and what must not be seen are told apart by nobody, and no plugin is named.
    for room, id in (("jobs", job["id"]), ("sequences", sequence["id"])):
        for path in (f"/v1/{room}/{id}", f"/v1/access/why?action=read&kind={room[:-1]}&id={id}"):
            hidden = await world.ask("GET", path, other)
            nothing = await world.ask("GET", path.replace(id, NOWHERE), other)
            assert json.dumps(hidden).replace(id, NOWHERE) == json.dumps(nothing)
            assert "misbehaving" not in json.dumps(hidden)
        assert hidden[1]["allowed"] is False
        assert (await world.ask("GET", f"/v1/{room}/{id}", other))[0] == 403
    for path in (f"/v1/jobs/{job['id']}", f"/v1/sequences/{sequence['id']}"):
        assert (await world.ask("GET", path, mine))[0] == 200
    for path in ("/v1/jobs", "/v1/sequences", "/v1/plugins", "/v1/events", "/v1/instances"):
        assert (await world.ask("GET", path, other))[1] == {"list": []}, path
    for path in ("/v1/jobs", "/v1/sequences", "/v1/plugins", "/v1/events"):
        assert (await world.ask("GET", path, mine))[1]["list"], path
    # How a plugin is run is more than to use it.
    status, _ = await world.ask(
        "POST", "/v1/instances", mine, {"plugin": "misbehaving", "options": {"writable": ["/"]}}
    )
    assert status == 403


async def test_no_key_that_only_reads_like_another_one_wins_over_what_was_permitted(
    world: World, toft_home: Path
) -> None:
    nodes.register(toft_home, "stranger")
    mine = await world.token("*:write:misbehaving")
    step, theirs = {"plugin": "misbehaving", "action": "echo"}, {"plugin": "stranger", "action": "echo"}
    for path, body in (
        ("/v1/sequences", {"steps": [{**step, Path("plugin"): "stranger"}]}),
        ("/v1/sequences", {"steps": {"steps": [step], Path("steps"): [theirs]}}),
        ("/v1/sequences", {"steps": [step], Path("steps"): [theirs]}),
        ("/v1/jobs", {**step, Path("plugin"): "stranger"}),
        ("/v1/jobs/batch", {"jobs": [{**step, Path("plugin"): "stranger"}]}),
        ("/v1/instances", {"plugin": "misbehaving", Path("plugin"): "stranger"}),
    ):
        status, told = await world.ask("POST", path, mine, frames.pack(body))
        assert (status, told.get("code")) in ((400, "graph.invalid"), (400, "request.body")), (path, told)
    assert await world.service.jobs.list() == []


async def test_why_tells_which_rule_and_which_scope_would_do(world: World) -> None:
    limited = await world.token("job:cancel:stranger")
    status, told = await world.ask("GET", "/v1/access/why?action=write&kind=job", limited)
    assert (status, told["allowed"], told["rule"], told["needed"]) == (200, False, "no scope", "job:write")
    status, told = await world.ask("GET", "/v1/access/why?action=read&kind=job", limited)
    assert (told["allowed"], told["rule"], told["scopes"]) == (
        True,
        "scope job:cancel:stranger",
        ["job:cancel:stranger"],
    )
    # Of somebody else only for whoever may read tokens.
    status, told = await world.ask("GET", "/v1/access/why?action=read&kind=job&token=t0", limited)
    assert status == 403
    status, told = await world.ask(
        "GET", "/v1/access/why?action=read&kind=node&token=t0", await world.token("token:read")
    )
    assert (status, told["principal"], told["needed"]) == (200, "token:t0", "node:read")


async def test_a_scope_of_one_plugin_runs_no_other_one_under_the_name_of_its_instance(
    world: World, toft_home: Path
) -> None:
    nodes.register(toft_home, "stranger")
    mine = await world.token("*:write:misbehaving")
    job = {"plugin": "misbehaving", "action": "echo", "arguments": {"value": 1}, "instance": "stranger"}
    graph = {"steps": [{"id": "a", **job}]}
    load = {"plugin": "misbehaving", "instance": "stranger"}
    for is_loaded in (False, True):
        if is_loaded:
            theirs = await world.service.node.load("stranger")
        for path, body in (("/v1/jobs", job), ("/v1/jobs/batch", {"jobs": [job]}), ("/v1/sequences", graph),
                           ("/v1/instances", load)):  # fmt: skip
            status, told = await world.ask("POST", path, mine, body)
            refused = (400 if path == "/v1/sequences" else 404, "instance.not_found")
            assert (status, told["code"]) == refused, (path, told)
    # Nor does anybody who may name both put one in the place of the other.
    with pytest.raises(errors.ConflictError, match="loaded already"):
        await load_current(world.service.node, "misbehaving", instance="stranger")
    status, told = await world.ask("POST", "/v1/instances", await world.token("*"), load)
    assert (status, told["code"]) == (409, "instance.loaded")
    assert world.service.node.find("stranger") is theirs
    # A name that was nobody's when the job was stored, and is another one's when it is its turn.
    jobs = world.service.jobs
    late = await jobs.submit("misbehaving", action="echo", instance="later", delay_s=0.5)
    await world.service.node.load("stranger", instance="later")
    ended = await jobs.wait(late.id, 20)
    assert (ended.state, ended.error["code"]) == ("failed", "instance.not_found")


async def test_a_name_that_became_another_plugins_while_a_body_came_is_not_used(
    world: World, toft_home: Path
) -> None:
    nodes.register(toft_home, "stranger")
    node = world.service.node
    mine = await world.token("*:admin:misbehaving")

    async def becomes_theirs() -> None:
        await node.unload("later")
        await node.load("stranger", instance="later")

    wrong = []
    page, instance = "/plugins/misbehaving/later", "/v1/instances/later"
    for path, body, refused in (
        (f"{instance}/calls", {"action": "echo", "arguments": {"value": 1}}, 403),
        (f"{instance}/calls/1/cancel", {}, 403),
        (f"{instance}/reconfigure", {"changes": {"label": "open"}}, 403),
        (f"{page}/settings", b"label=open", 404),
        (f"{page}/options", b"pinned=on", 404),
        (f"{page}/variables", b"key=KEY&value=1", 404),
    ):
        await node.load("misbehaving", instance="later")
        status, told = await world.ask("POST", path, mine, body, becomes_theirs)
        if status != refused or "stranger" in json.dumps(told):
            wrong.append((path, status, told))
        await node.unload("later")
    assert wrong == []
    # Nor does the node take one plugin's instance for another one's.
    theirs = await node.load("stranger", instance="later")
    for changing in (
        node.config("misbehaving", instance="later"),
        node.configure("misbehaving", {"label": "open"}, instance="later"),
        node.set_enabled("misbehaving", False, instance="later"),
        node.set_options("misbehaving", {"pinned": True}, instance="later"),
    ):
        with pytest.raises(errors.ConflictError) as caught:
            await changing
        assert caught.value.code == "instance.other_plugin"
    assert (theirs.is_enabled, theirs.config.get("label")) == (True, "plain")
    assert await node.rooms.records.find("later") is None


async def test_the_log_of_a_name_is_told_no_longer_than_it_is_its_own(world: World, toft_home: Path) -> None:
    nodes.register(toft_home, "stranger")
    serves, node = world.service, world.service.node
    log = node.rooms.loader.log_of("later")
    for next_one, last in ((None, ["state"]), ("stranger", [])):
        await node.load("misbehaving", instance="later")
        subject = await settings.find(serves, "misbehaving", "later")
        told = happenings.watch(serves, subject, None)
        while (await anext(told)).type != "state":
            pass
        await node.unload("later")
        if next_one is not None:
            await node.load(next_one, instance="later")
        # What is loaded next prints before the node knows it.
        log.add(LogLine(time=0.0, stream="stdout", call=0, text="theirs"))
        assert "theirs" in (await log.tail(1))[0]
        async with asyncio.timeout(10):
            rest = [each async for each in told]
        assert [each.type for each in rest] == last, rest
        if next_one is not None:
            await node.unload("later")


async def test_what_a_job_returned_is_seen_by_whoever_may_read_results(world: World) -> None:
    jobs = world.service.jobs
    job = await jobs.submit("misbehaving", {"value": "secret"}, action="echo")
    await jobs.wait(job.id, 20)
    for scope, sees in (
        ("job:admin", False),
        ("job:admin:misbehaving", False),
        ("read", True),
        ("*:write:misbehaving", True),
    ):
        text = await world.token(scope)
        _, shown = await world.ask("GET", f"/v1/jobs/{job.id}", text)
        _, waited = await world.ask("GET", f"/v1/jobs/{job.id}/wait", text)
        _, listed = await world.ask("GET", "/v1/jobs", text)
        for told in (shown, waited, *listed["list"]):
            assert (told["state"], told["result"]) == ("completed", "secret" if sees else None), scope


async def test_a_page_is_filled_with_what_ones_own_plugins_have(world: World, toft_home: Path) -> None:
    nodes.register(toft_home, "stranger")
    jobs = world.service.jobs
    mine, theirs, both = [
        await jobs.submit_graph([{"id": name, "plugin": name, "action": "echo"} for name in names])
        for names in (["misbehaving"], ["stranger"], ["misbehaving", "stranger"])
    ]
    for each in (mine, theirs, both):
        await jobs.wait_sequence(each.id, 20)
    text = await world.token("*:write:misbehaving")
    _, told = await world.ask("GET", "/v1/sequences?limit=1", text)
    assert [each["id"] for each in told["list"]] == [mine.id]
    seen = []
    while True:
        after = seen[-1]["cursor"] if seen else 0
        _, told = await world.ask("GET", f"/v1/events?limit=3&after={after}", text)
        seen += told["list"]
        if len(told["list"]) < 3:
            break
    events = [each.to_dict() for each in await jobs.events()]
    known = {each.id: each.plugin for each in await jobs.list()}
    assert [each["cursor"] for each in seen] == [
        each["cursor"]
        for each in events
        if (known[each["job"]] == "misbehaving" if each["job"] else each["sequence"] == mine.id)
    ]
    assert {each["sequence"] for each in seen if each["job"] is None} == {mine.id}
    for part in (f"sequence={both.id}", f"job={seen[-1]['job']}"):
        _, told = await world.ask("GET", f"/v1/events?{part}", text)
        name, _, id = part.partition("=")
        assert told["list"] == [each for each in seen if each[name] == id]
    hidden = next(id for id, plugin in known.items() if plugin == "stranger")
    assert (await world.ask("GET", f"/v1/events?job={hidden}", text))[1] == {"list": []}


async def test_whoever_waits_is_told_that_their_token_has_ended(world: World) -> None:
    job = await world.service.jobs.submit("misbehaving", action="echo", delay_s=3600)
    text = await world.token("job:read")
    waiting = asyncio.ensure_future(world.ask("GET", f"/v1/jobs/{job.id}/wait", text))
    (made,) = await world.gate.tokens.list()
    await eventually_async(lambda: world.gate.leases.count(made.id) == 1)
    await world.gate.tokens.revoke(made.id)
    status, told = await waiting
    assert (status, told["code"], told["details"]["reason"]) == (401, "access.unauthenticated", "ended")


async def test_strangers_hear_of_health_and_not_of_the_machine(world: World) -> None:
    for path in ("/healthz", "/readyz"):
        _, told = await world.ask("GET", path, None)
        assert {(each["ok"], each["evidence"], each["hint"]) for each in told["checks"]} == {(True, "", "")}
        _, told = await world.ask("GET", path, await world.token("job:read"))
        assert not any(each["evidence"] for each in told["checks"])
        _, told = await world.ask("GET", path, await world.token("node:read"))
        assert all(each["evidence"] for each in told["checks"])


async def test_the_plugin_that_a_scope_names_is_within_reach(world: World) -> None:
    mine = await world.token("*:admin:misbehaving")
    for method, path, body in (
        ("GET", "/v1/plugins/misbehaving", None),
        ("GET", "/v1/plugins/misbehaving/config", None),
        ("POST", "/v1/plugins/misbehaving/enabled", {"enabled": True}),
        ("POST", "/v1/instances", {"plugin": "misbehaving"}),
        ("GET", "/v1/instances/misbehaving", None),
        ("GET", "/v1/instances/misbehaving/stats", None),
        ("DELETE", "/v1/instances/misbehaving", None),
    ):
        assert (await world.ask(method, path, mine, body))[0] == 200, path
    for path in ("/v1/status", "/v1/tokens", "/v1/environments", "/v1/secrets", "/v1/system", "/v1/queue"):
        assert (await world.ask("GET", path, mine))[0] == 403, path


async def test_a_token_that_ends_itself_is_still_told_so(world: World) -> None:
    own = await world.token("token:admin")
    status, told = await world.ask("DELETE", "/v1/tokens/t0", own)
    assert (status, told["state"]) == (200, "revoked")
    assert (await world.ask("GET", "/v1/tokens", own))[0] == 401


async def test_nobody_in_particular_hears_nothing_of_which_routes_there_are(world: World) -> None:
    for method, path in (("GET", "/v1/no-such-route"), ("PATCH", "/v1/jobs"), ("GET", "/livez/more")):
        assert (await world.ask(method, path, None))[0] == 401, path
    # Whoever is limited to a plugin does not hear which jobs there are, either.
    mine = await world.token("job:read:misbehaving")
    assert (await world.ask("GET", f"/v1/jobs/{NOWHERE}", mine))[0] == 403


async def test_a_stream_shows_what_happens_to_ones_own_plugins_only(world: World) -> None:
    jobs = world.service.jobs
    ours, theirs = (
        visible.Eyes(world.service, frozenset({plugin})).filter(jobs.watch(after=0))
        for plugin in ("misbehaving", "stranger")
    )
    hidden = asyncio.ensure_future(anext(theirs))
    job = await jobs.submit("misbehaving", {"value": 1}, action="echo")
    await jobs.wait(job.id, 20)
    seen = [await asyncio.wait_for(anext(ours), 5) for _ in range(3)]
    assert {each.job for each in seen} == {job.id}
    assert not hidden.done()
    hidden.cancel()
    await asyncio.gather(hidden, return_exceptions=True)
    await ours.aclose()
    await theirs.aclose()


MINE, THEIRS = "misbehaving", "stranger"


async def furnished(world: World, tmp_home: Path) -> dict[str, list[str]]:
    """Let two plugins have something of everything; return what stands for each part of a path."""
    node, jobs = world.service.node, world.service.jobs
    nodes.register(tmp_home, THEIRS)
    ids: dict[str, list[str]] = {"jobs": [NOWHERE], "sequences": [NOWHERE]}
    for plugin, word in ((MINE, "open"), (THEIRS, "hush")):
        for instance in (plugin, f"{word}-second"):
            await node.load(plugin, instance=instance)
        await node.configure(plugin, {"label": f"{word} label"}, instance=f"{word}-second")
        for action, arguments in (
            ("raise_error", {"message": f"{word} failed"}),
            ("echo", {"value": f"{word} result"}),
            ("flood", {"lines": 3}),
        ):
            job = await jobs.submit(plugin, arguments, action=action, instance=f"{word}-second")
            await jobs.wait(job.id, 20)
            ids["jobs"].append(job.id)
        graph = await jobs.submit_graph([{"plugin": plugin, "action": "echo"}], name=f"{word} graph")
        await jobs.wait_sequence(graph.id, 20)
        ids["sequences"].append(graph.id)
    # What an instance leaves that nobody knows any more.
    (tmp_home / "logs" / "hush-gone.log").write_text("2026-01-01T00:00:00.000Z stdout - hush\n")
    return ids


async def test_no_page_and_no_part_of_one_shows_anything_of_another_plugin(
    world: World, toft_home: Path
) -> None:
    ids = await furnished(world, toft_home)
    hidden = {each.id for each in await world.service.jobs.list(plugin=THEIRS)} | {ids["sequences"][2]}
    _, limited = await world.gate.tokens.create("limited", ["node:read", "system:read", f"*:admin:{MINE}"])
    asked, seen = 0, ""
    for route in pages.ROUTES:
        assert permits.permit_of(next(iter_route_contexts([route]))) is not None, route.path
        if "GET" not in (route.methods or ()) or "/static/" in route.path:
            continue
        for path in paths(route.path, ids):
            pieces = 3 if path.endswith("/stream") else 1
            # A stream of what is hidden would send as much; what is refused is whole at once.
            status, body, _ = await world.read("GET", path, limited, pieces=pieces)
            text = body.decode()
            of_theirs = any(each in path for each in (THEIRS, "hush", *hidden))
            assert status in ((403, 404) if of_theirs and "hush-gone" not in path else (200, 404, 403)), path
            shown = text.replace(path, "")
            for word in ("hush label", "hush failed", "hush result", "hush graph", "- hush", "hush</bdi>"):
                assert word not in shown, (path, word)
            if not of_theirs:
                for word in (THEIRS, "hush", *hidden):
                    assert word not in shown, (path, word)
                seen += shown
            asked += 1
    assert asked > 30
    for word in ("open label", "open failed", "open result", "open graph", "open-second"):
        assert word in seen, word
    # What a job returned is more than the job.
    _, less = await world.gate.tokens.create("less", [f"job:admin:{MINE}"])
    for id in ids["jobs"][1:4]:
        status, body, _ = await world.read("GET", f"/jobs/{id}", less)
        assert (status, b"open result" in body) == (200, False)


def paths(template: str, ids: dict[str, list[str]]) -> list[str]:
    """Return the addresses of a kind of page, for everything that one could ask for by it."""
    room = template.split("/")[1]
    found = [template]
    for part, values in (
        ("{id}", ids.get(room, [NOWHERE])),
        ("{name}", [MINE, THEIRS]),
        ("{instance}", [MINE, THEIRS, "open-second", "hush-second", "hush-gone"]),
    ):
        found = [each.replace(part, value) for each in found for value in (values if part in each else [""])]
    return found


async def test_no_page_does_more_work_because_there_is_more_behind_it(world: World, toft_home: Path) -> None:
    """Counted in calls of functions on the event loop, as times are those of the machine."""
    jobs = world.service.jobs
    for number in range(60):
        nodes.register(toft_home, f"plugin-{number}")
    large = await jobs.submit_graph({"steps": tangled(1000)}, name="large")
    drawn = await jobs.submit_graph({"steps": tangled(drawing.MOST_STEPS)}, name="drawn")
    talker = await jobs.submit(MINE, {"value": 1}, action="echo")
    await jobs.wait(talker.id, 60)
    for graph in (large, drawn):
        await jobs.wait_sequence(graph.id, 60)
    (member,) = await jobs.list(sequence=large.id, limit=1)
    (seen,) = await jobs.list(sequence=drawn.id, limit=1)
    store = (await jobs.open()).means.store
    await store.write(
        lambda connection: connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
            " INSERT INTO events (cursor, at, type, job, attempt, data)"
            " SELECT 1000000 + i, 1.0, 'progress', (SELECT seq FROM jobs WHERE id = ?), 1,"
            " json_object('progress', i / 10000.0) FROM n",
            (talker.id,),
        )
    )
    told = {}
    for path in (
        "/", "/jobs", f"/jobs/{talker.id}", f"/jobs/{member.id}", "/sequences", f"/sequences/{large.id}",
        f"/sequences/{drawn.id}", f"/jobs/{seen.id}",
        "/plugins", f"/plugins/{MINE}", f"/plugins/{MINE}/{MINE}/now", "/samples",
    ):  # fmt: skip
        await world.read("GET", path, await world.token("*"))
        with counted() as calls:
            status, body, _ = await world.read("GET", path, await world.token("*"))
        assert status == 200, body
        told[path] = calls[0]
    print(told)  # noqa: T201 - for whoever runs this with -s
    assert max(told.values()) < MOST_CALLS, told


def tangled(count: int) -> list[dict[str, Any]]:
    """Return steps that wait for up to three others each."""
    return [
        {
            "id": f"s{number}",
            "plugin": MINE,
            "action": "echo",
            "after": sorted({f"s{number - 20}", f"s{number * 7 % 19}", f"s{number * 11 % 17}"})
            if number >= 20
            else [],
        }
        for number in range(count)
    ]


@contextlib.contextmanager
def counted() -> Iterator[list[int]]:
    """Count the calls of functions in this thread."""
    calls = [0]

    def note(frame: Any, event: str, argument: Any) -> None:
        calls[0] += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
