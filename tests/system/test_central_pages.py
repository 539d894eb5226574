"""Central's pages in a real browser: what is there as it changes, whatever nodes say of themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser
from tests import browsers, centrals
from tests.browsers import Visitor
from tests.centrals import Agent, Central
from tests.waiting import eventually

from toft.kernel.clock import SYSTEM, rfc3339
from toft.managed import protocol

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe\x1b[2J'\"&{{7*7}}"
SPELLED = "<img src=x onerror=alert(1)>\\u202egnp.exe\\x1b[2J'\"&{{7*7}}"
RULES = {
    "waves": [{"percent": 10, "bake_s": 600}, {"percent": 50, "bake_s": 600}, {"percent": 100, "bake_s": 600}]
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.started() as found:
        yield found


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Central]:
    browsers.binary()
    with centrals.running(tmp_path_factory.mktemp("central-pages")) as running:
        running.save({"settings": {"lanes": 2}}, message="the first")
        yield running


@pytest.fixture(scope="module")
def fleet(central: Central) -> list[Agent]:
    central.admin("PUT", "groups/gpu", {"selector": {"role": "gpu"}, "priority": 10})
    agents = []
    for number in range(12):
        agent = Agent(central, f"machine-{number:02d}")
        agents.append(agent.join(labels={"role": "gpu" if number % 3 else "edge"}))
        agent.poll()
        tell(agent, "applied")
    return agents


def tell(agent: Agent, event: str, etag: str = "", **more: Any) -> None:
    seq = agent.__dict__["seq"] = agent.__dict__.get("seq", 0) + 1
    said = {"etag": etag or agent.etag, "event": event, "at": rfc3339(SYSTEM.now()), **more}
    body = {
        "running": {"etag": agent.etag, "revision": 1},
        "phase": "idle",
        "history": [said],
        "agent_version": "0.1.0",
    }
    gates = [{"name": "poll", "state": "green", "since": rfc3339(SYSTEM.now()), "message": "asked 3 s ago"}]
    assert agent.report(seq, gates=gates, **body).status == 204


def link(central: Central) -> str:
    made = central.ask("POST", "/v1/links", {}, token=central.token_file.read_text().strip())
    return str(made.value["url"])


def signed_in(central: Central, visitor: Visitor) -> Visitor:
    visitor.page.goto(link(central))
    visitor.page.wait_for_selector("#fleet")
    return visitor


def document(central: Central) -> str:
    return str(central.admin("GET", "documents")[0]["id"])


def test_a_browser_comes_in_by_a_link_once_and_sees_nothing_without(
    central: Central, browser: Browser
) -> None:
    with browsers.visiting(central.url, browser) as visitor:
        visitor.expected = [
            "status of 401",
            "status of 403",
            "ERR_INCOMPLETE_CHUNKED_ENCODING",
            "Error Code 401",
        ]
        visitor.go("/")
        visitor.see("--token-file FILE open")
        address = link(central)
        visitor.page.goto(address)
        visitor.page.wait_for_selector("#fleet")
        visitor.page.goto(address)
        visitor.see("was used before")
        visitor.go("/rollouts")
        visitor.see("Nothing was rolled out yet.")
        visitor.page.get_by_role("button", name="Sign out").click()
        visitor.see("--token-file FILE open")


def test_a_rollout_is_watched_held_and_taken_back_with_the_keyboard_alone(
    central: Central, fleet: list[Agent], browser: Browser
) -> None:
    saved = central.save({"settings": {"lanes": 4}}, publish=False, message="more lanes")
    with browsers.visiting(central.url, browser) as visitor:
        page = signed_in(central, visitor).page
        page.wait_for_selector(".count:has(.state-current) .number:text-is('12')")
        for key, path in (("d", "/documents"), ("r", "/rollouts"), ("a", "/audit"), ("d", "/documents")):
            page.keyboard.press("g")
            page.keyboard.press(key)
            page.wait_for_url(central.url + path)
            page.wait_for_selector("html[data-ready]")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_selector("#document")
        visitor.see(f"What revision {saved['number']} would change")
        page.wait_for_selector(".diff .add:has-text('\"lanes\": 4')")
        page.keyboard.press("o")
        page.wait_for_selector("#rollouts")
        page.locator("tr[data-row] a").first.click()
        page.wait_for_selector(".head .state-running")
        page.wait_for_selector(".squares .s-offered")
        id = page.url.rpartition("/")[2]
        moved = [each["node"] for each in central.admin("GET", f"rollouts/{id}")["nodes"]]
        agent = next(each for each in fleet if each.node_id in moved)
        agent.poll()
        tell(agent, "applied")
        page.wait_for_selector(f"#at-{agent.node_id} .state-applied")
        page.keyboard.press("p")
        page.wait_for_selector(".head .state-paused")
        page.keyboard.press("u")
        page.wait_for_selector(".head .state-running")
        page.keyboard.press("x")
        page.wait_for_selector(".head .state-aborted")
        agent.poll()
        tell(agent, "applied")
        page.keyboard.press("g")
        page.keyboard.press("a")
        visitor.see("rollout.abort")


def send_rows(agent: Agent, what: str, *rows: Any) -> None:
    """Send rows of the log or of samples, as a node does."""
    body = b"".join(json.dumps(each).encode() + b"\n" for each in rows)
    key = protocol.chunk_key(what, "file", 0, body)
    answer = agent.ask("POST", f"{protocol.INGEST}/{what}", body, Idempotency_Key=key)
    assert answer.status == 202, answer.body


def test_the_log_of_a_node_is_read_and_its_samples_are_drawn(central: Central, browser: Browser) -> None:
    agent = Agent(central, "talker").join()
    with browsers.visiting(central.url, browser) as visitor:
        page = signed_in(central, visitor).page
        visitor.go(f"/nodes/{agent.node_id}")
        page.keyboard.press("l")
        visitor.see("It has sent nothing")
        assert page.locator("[data-plot]").count() == 0
        levels = ("info", "warning", "error")
        send_rows(
            agent,
            "logs",
            *(
                {
                    "at": "2026-11-27T12:00:00Z",
                    "level": levels[number % 3],
                    "text": f"event='line {number}'\nand more",
                }
                for number in range(450)
            ),
        )
        now = SYSTEM.now()
        samples = [
            {"at": rfc3339(now - 60 * number), "cpu_percent": number, "memory_used_bytes": 10**9}
            for number in range(40)
        ]
        send_rows(agent, "metrics", *samples)
        visitor.go(f"/nodes/{agent.node_id}/telemetry")
        rows = page.locator(".log-lines tbody tr")
        assert rows.count() == 200
        assert "line 449" in rows.first.inner_text()
        assert "error" in rows.first.inner_text()
        page.get_by_role("link", name="older").click()
        visitor.see("line 249")
        page.get_by_role("link", name="error", exact=True).click()
        visitor.see("line 449")
        assert page.locator(".level-error").count() == 150
        assert page.locator(".said bdi").first.inner_text() == "event='line 449'\nand more"
        page.wait_for_selector(".plot canvas")
        assert page.locator(".plot canvas").count() == 4, "processor, memory, lanes, queue"
        assert page.locator(".u-legend").first.inner_text()


def test_what_nodes_say_is_shown_as_text_on_every_page(central: Central, browser: Browser) -> None:
    agent = Agent(central, HOSTILE.replace("\x1b", "")).join()
    agent.poll()
    said = {
        "etag": agent.etag,
        "event": HOSTILE[:32],
        "reason": HOSTILE[:64],
        "detail": HOSTILE,
        "at": HOSTILE[:40],
    }
    bad = {**said, "event": "rolled_back", "at": "0001-01-01T00:00:00Z"}
    answer = agent.report(
        1,
        running={"etag": agent.etag, "since": HOSTILE[:40]},
        phase=HOSTILE[:64],
        history=[said, bad],
        gates=[
            {"name": HOSTILE, "state": HOSTILE, "since": HOSTILE, "message": HOSTILE},
            {"name": ["<b>"]},
            {},
        ],
        artifacts=[
            {"name": HOSTILE, "version": HOSTILE, "state": HOSTILE, "message": HOSTILE, "sha256": HOSTILE}
        ],
        effective={"sha256": "0" * 64, "body": {HOSTILE: HOSTILE, "password": "hunter2"}},
        overrides=[{"section": HOSTILE, "key": HOSTILE, "reason": HOSTILE}, HOSTILE, 7],
        agent_version=HOSTILE[:64],
        platform=HOSTILE,
    )
    assert answer.status == 204, answer.body
    for what, row in (
        ("logs", {"at": HOSTILE, "level": HOSTILE, "text": HOSTILE}),
        ("logs", {"at": "2026-01-01T00:00:00Z", "level": ["error"], "text": {HOSTILE: 1}, HOSTILE: HOSTILE}),
        ("metrics", {"at": HOSTILE, HOSTILE: 1, "cpu_percent": HOSTILE, "gpu0_used_bytes": HOSTILE}),
        ("metrics", {"at": "2026-01-01T00:00:00Z", HOSTILE: 1, "cpu_percent": 10**400}),
    ):
        send_rows(agent, what, row)
    central.save({"x-note": HOSTILE}, publish=False, message=HOSTILE)
    body = {"document": document(central), "message": HOSTILE, "rules": RULES}
    rollout = central.admin("POST", "rollouts", body)["id"]
    central.admin("POST", f"rollouts/{rollout}/pause", {"reason": HOSTILE})
    with browsers.visiting(central.url, browser) as visitor:
        page = signed_in(central, visitor).page
        paths = ["/", "/?find=" + "%3Cimg", f"/nodes/{agent.node_id}", "/rollouts", f"/rollouts/{rollout}"]
        paths += [
            "/documents",
            f"/documents/{document(central)}",
            "/audit",
            f"/nodes/{agent.node_id}/telemetry",
        ]
        for path in paths:
            visitor.go(path)
            content = page.content()
            assert "<img src=x" not in content, path
            assert not any(each in content for each in ("\u202e", "\x1b", "hunter2")), path
            page.wait_for_selector("#link[data-link=live], #audit, #telemetry")
        visitor.go(f"/nodes/{agent.node_id}")
        visitor.see(SPELLED)
        visitor.go("/?runs=none")
        page.fill("#filter [name=find]", "host")
        page.click("#filter button")
        page.wait_for_url("**/?*find=host*runs=none*")
    central.admin("POST", f"rollouts/{rollout}/abort", {})


def test_every_page_is_drawn_for_a_phone_and_a_desk_by_day_and_by_night(
    central: Central, fleet: list[Agent], browser: Browser
) -> None:
    """The pictures lie in `build/screenshots`, to be looked at."""
    pictures = Path(__file__).parents[2] / "build" / "screenshots"
    pictures.mkdir(parents=True, exist_ok=True)
    paths = fill(central, fleet)
    for name, look in (("desk", browsers.DESKTOP), ("phone", browsers.PHONE)):
        with browsers.visiting(central.url, browser, **look) as visitor:
            visitor.expected = ["status of 404"]
            signed_in(central, visitor)
            for title, path in paths.items():
                page = visitor.go(path)
                for scheme in SCHEMES:
                    page.emulate_media(color_scheme=scheme)
                    picture = pictures / f"central-{title}-{name}-{scheme}.png"
                    page.screenshot(path=picture, full_page=True, scale="css")
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= look["viewport"]["width"], f"{title} is wider than a {name}"


def fill_telemetry(agent: Agent) -> None:
    now, gigabyte = SYSTEM.now(), 10**9
    texts = (
        ("info", "event='polled' status=304 url='https://central.example:8710'"),
        ("warning", "event='slow' call='transcribe' took_s=93.2 instance='whisper'"),
        (
            "error",
            "event='rolled_back' etag='sha256-3f1c' reason='health_failed' detail='gate web: 503 for 30 s'",
        ),
        (
            "warning",
            "Traceback (most recent call last):\n  File \"ocr.py\", line 12, in read\nKeyError: 'page'",
        ),
    )
    lines = [
        {"at": rfc3339(now - 40 * (40 - number)), "level": texts[number % 4][0], "text": texts[number % 4][1]}
        for number in range(40)
    ]
    send_rows(agent, "logs", *lines)
    samples = [
        {
            "at": rfc3339(now - 60 * number),
            "cpu_percent": 50 + 40 * math.sin(number / 4),
            "memory_used_bytes": (9 + 4 * math.cos(number / 5)) * gigabyte,
            "memory_total_bytes": 24 * gigabyte,
            "lanes_busy": number % 5,
            "lanes": 8,
            "queue_pending": (number * 7) % 11,
            "queue_running": number % 5,
            "gpu0_used_bytes": (30 + number) * gigabyte,
            "gpu0_total_bytes": 80 * gigabyte,
        }
        for number in range(45)
    ]
    send_rows(agent, "metrics", *samples)


def fill(central: Central, fleet: list[Agent]) -> dict[str, str]:
    """Let something of every kind be there, and return the address of each page."""
    central.save({"plugins": {}, "settings": {"lanes": 8}}, publish=False, message="twice the lanes")
    body = {"document": document(central), "message": "twice the lanes", "rules": {**RULES, "abort_count": 3}}
    rollout = central.admin("POST", "rollouts", body)["id"]
    eventually(lambda: central.admin("GET", f"rollouts/{rollout}")["nodes"])
    central.admin("POST", f"rollouts/{rollout}/promote", {})
    moved = eventually(
        lambda: len(told := central.admin("GET", f"rollouts/{rollout}")["nodes"]) >= 6 and told
    )
    known = {each.node_id: each for each in fleet}
    ours = [known[each["node"]] for each in moved if each["node"] in known]
    for number, agent in enumerate(ours):
        offered = agent.poll(takes=False).headers["ETag"].strip('"')
        if number < 2:
            detail = "gate web: http://127.0.0.1:8080/health answered 503 for 30 s; it was green before"
            tell(agent, "rolled_back", offered, reason="health_failed", detail=detail)
        elif number < 4:
            agent.poll()
            tell(agent, "applied")
        elif number < 5:
            tell(agent, "staged", offered)
    for agent in fleet:
        agent.poll(takes=False)
    fill_telemetry(ours[0])
    return {
        "fleet": "/",
        "node": f"/nodes/{ours[0].node_id}",
        "telemetry": f"/nodes/{ours[0].node_id}/telemetry",
        "rollouts": "/rollouts",
        "rollout": f"/rollouts/{rollout}",
        "documents": "/documents",
        "document": f"/documents/{document(central)}",
        "audit": "/audit",
        "no-page": "/nodes/node_none",
    }
