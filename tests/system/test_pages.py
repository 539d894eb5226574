"""Pages in a real browser: they show what is there, change as it changes, and load nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser
from tests import browsers, daemons, nodes
from tests.browsers import Doorway
from tests.waiting import eventually

from toft.kernel.clock import SYSTEM

COUNT_VALUES = """async (which) => {
    const seen = new Set(), until = performance.now() + 3000;
    while (performance.now() < until && seen.size < 5) {
        seen.add(document.querySelector(which).value);
        await new Promise(requestAnimationFrame);
    }
    return seen.size;
}"""
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give one browser for all tests; each opens a window of its own."""
    with browsers.started() as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doorway]:
    """Give a daemon with one plugin, and the address of its pages."""
    browsers.binary()
    directory = tmp_path_factory.mktemp("pages")
    nodes.register(directory / "home")
    with (
        daemons.running(directory / "home", directory) as daemon,
        browsers.doorway(daemon.place.socket) as doorway,
    ):
        yield doorway


@pytest.fixture
def node(shared: Doorway) -> Iterator[Doorway]:
    """Give that daemon; afterwards nothing runs in it."""
    yield shared
    for state in ("running", "pending"):
        for job in shared.ask("GET", f"/v1/jobs?state={state}")[1]:
            shared.ask("POST", f"/v1/jobs/{job['id']}/cancel", {"grace_s": 0})


def submit(node: Doorway, action: str, **arguments: object) -> str:
    status, told = node.ask(
        "POST", "/v1/jobs", {"plugin": "misbehaving", "action": action, "arguments": arguments}
    )
    assert status == 201, told
    return str(told["id"])


def test_a_browser_is_let_in_by_a_link_and_may_then_do_what_its_pages_offer(
    toft_home: Path, tmp_path: Path, browser: Browser
) -> None:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path) as daemon:
        link = daemon.toft("open", "--json").value["url"]
        base = link.partition("/sign-in/")[0]
        with browsers.visiting(base, browser) as visitor:
            # Signed out, its stream ends and what it asks for is refused.
            visitor.expected = ["status of 401", "ERR_INCOMPLETE_CHUNKED_ENCODING", "Error Code 401"]
            page = visitor.go("/")
            visitor.see("toft open")
            page.goto(link)
            page.wait_for_selector("#overview")
            visitor.see("No job was ever submitted here.")
            visitor.see("toft job submit PLUGIN key=value")
            work = {"plugin": "misbehaving", "action": "work", "arguments": {"seconds": 120}}
            job = daemon.request("POST", "/v1/jobs", work).value["id"]
            page = visitor.go(f"/jobs/{job}")
            page.wait_for_selector(".head .state-running")
            page.keyboard.press("c")
            page.wait_for_selector(".head .state-cancelled")
            page.get_by_role("button", name="Sign out").click()
            visitor.see("toft open")


def test_the_overview_shows_what_happens_as_it_happens_and_what_happened_while_it_was_cut_off(
    node: Doorway, browser: Browser
) -> None:
    with browsers.visiting(node.url, browser) as visitor:
        visitor.expected = ["net::ERR_"]
        page = visitor.go("/")
        done = page.locator(".count:has(.state-completed) .number")
        before = int(done.inner_text())
        job = submit(node, "echo", value=1)
        page.wait_for_selector(f".count:has(.state-completed) .number:text-is('{before + 1}')")
        failed = submit(node, "raise_error", kind="ValueError", message="no such <b>luck</b>")
        visitor.see(failed)
        visitor.see("no such <b>luck</b>")
        assert job != failed
        page.wait_for_selector("#link[data-link=live]")
        node.cut()
        page.wait_for_selector("#link[data-link=lost]")
        meanwhile = submit(node, "raise_error", message="meanwhile")
        page.wait_for_selector("#link[data-link=live]", timeout=15_000)
        visitor.see(meanwhile)


def test_jobs_are_found_by_what_is_asked_for_and_change_where_they_stand(
    node: Doorway, browser: Browser
) -> None:
    done = submit(node, "echo", value=1)
    failed = submit(node, "raise_error", kind="ValueError", message="the image is torn")
    running = submit(node, "work", seconds=60)
    with browsers.visiting(node.url, browser) as visitor:
        page = visitor.go("/jobs")
        for job in (done, failed, running):
            page.wait_for_selector(f"#row-{job}")
        page.locator(".chip", has_text="failed").click()
        page.wait_for_selector(f"#row-{done}", state="detached")
        assert page.locator("tr[data-row]").count() == page.locator("tr[data-row] .state-failed").count()
        assert page.url.endswith("/jobs?state=failed&plugin=&error=&span=")
        page.reload()
        visitor.see("the image is torn")
        assert page.get_by_label("failed").is_checked()
        page.locator(".chip", has_text="failed").click()
        page.wait_for_selector(f"#row-{running} progress")
        # Each report is drawn as it comes, not when the list is read again.
        assert page.evaluate(COUNT_VALUES, f"#row-{running} progress") == 5
        page.locator(f"#row-{running} button", has_text="Cancel").click()
        page.wait_for_selector(f"#row-{running} .state-cancelled")
        page.locator(f"#row-{failed} button", has_text="Retry").click()
        page.goto(node.url + f"/jobs/{failed}")
        page.wait_for_selector("text=attempt 2 began")


def test_a_job_shows_its_log_as_it_is_printed_and_its_story(node: Doorway, browser: Browser) -> None:
    job = submit(node, "flood", lines=5)
    failed = submit(node, "raise_error", kind="ValueError", message="the image is torn")
    running = submit(node, "work", seconds=120)
    with browsers.visiting(node.url, browser) as visitor:
        page = visitor.go(f"/jobs/{job}")
        page.wait_for_selector(".state-completed")
        page.wait_for_selector("#log .row >> nth=4")
        page = visitor.go(f"/jobs/{failed}")
        visitor.see("What went wrong")
        visitor.see("the image is torn")
        page.locator("#trace summary").click()
        visitor.see("raise_error")
        page.keyboard.press("r")
        page.wait_for_selector("text=attempt 2 began")
        # What a reader opened stays open, whatever happens.
        assert page.locator("#trace").get_attribute("open") is not None
        # A reader whose clock is five hours ahead sees how long it has run, not five hours more.
        page.clock.install(time=SYSTEM.now() + 5 * 3600)
        page = visitor.go(f"/jobs/{running}")
        page.wait_for_selector(".running progress[value]")
        lasts = page.locator(".running [data-since]")
        eventually(lambda: lasts.text_content())
        assert (lasts.text_content() or "").endswith(" s")
        page.keyboard.press("c")
        page.wait_for_selector(".head .state-cancelled")


def test_every_page_is_reached_by_keys_alone(node: Doorway, browser: Browser) -> None:
    jobs = [submit(node, "echo", value=number) for number in range(3)]
    with browsers.visiting(node.url, browser) as visitor:
        page = visitor.go("/")
        for key, path in (("j", "/jobs"), ("s", "/sequences"), ("o", "/"), ("j", "/jobs")):
            page.keyboard.press("g")
            page.keyboard.press(key)
            page.wait_for_url(node.url + path)
            page.wait_for_selector("html[data-ready]")
        page.keyboard.press("g")
        page.keyboard.press("s")
        page.wait_for_url(node.url + "/sequences")
        page.wait_for_selector("html[data-ready]")
        page.keyboard.press("/")
        page.wait_for_url(node.url + "/jobs#filter")
        page.wait_for_selector("input[data-filter]:focus")
        page.keyboard.press("Escape")
        page.wait_for_selector(f"#row-{jobs[0]}")
        page.keyboard.press("j")
        page.keyboard.press("j")
        assert page.locator("tr.chosen").get_attribute("id") == f"row-{jobs[1]}"
        page.keyboard.press("Enter")
        page.wait_for_url(node.url + f"/jobs/{jobs[1]}")
        page.go_back()
        page.wait_for_selector("html[data-ready]")
        page.keyboard.press("/")
        page.keyboard.type("no such plugin")
        page.keyboard.press("Enter")
        visitor.see("No job is like that.")
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert page.locator("#keys").is_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("t")
        assert page.locator("html").get_attribute("data-theme") == "light"
        page.keyboard.press("t")
        page.reload()
        assert page.locator("html").get_attribute("data-theme") == "dark"


def test_every_page_is_drawn_for_a_phone_and_a_desk_by_day_and_by_night(
    node: Doorway, browser: Browser
) -> None:
    """The pictures lie in `build/screenshots`, to be looked at."""
    pictures = Path(__file__).parents[2] / "build" / "screenshots"
    pictures.mkdir(parents=True, exist_ok=True)
    paths = fill(node)
    for name, look in (("desk", browsers.DESKTOP), ("phone", browsers.PHONE)):
        with browsers.visiting(node.url, browser, **look) as visitor:
            visitor.expected = ["status of 404"]
            for title, path in paths.items():
                page = visitor.go(path)
                for scheme in SCHEMES:
                    page.emulate_media(color_scheme=scheme)
                    page.screenshot(
                        path=pictures / f"{title}-{name}-{scheme}.png", full_page=True, scale="css"
                    )
                # A phone makes its window wider when a page is; so it is compared with the glass.
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= look["viewport"]["width"], f"{title} is wider than a {name}"


def fill(node: Doorway) -> dict[str, str]:
    """Let something of every kind be there, and return the address of each page."""
    submit(node, "flood", lines=40)
    failed = submit(node, "raise_error", kind="ValueError", message="the image is torn " * 8)
    steps = {
        "pages": {"action": "echo", "arguments": {"value": [0.01, 0.02, 0.03]}},
        "read": {"action": "work", "for_each": {"$from": "pages"}, "arguments": {"seconds": {"$item": []}}},
        "tables": {"action": "raise_error", "arguments": {"message": "no table"}, "after": ["pages"]},
        "join": {"action": "echo", "after": ["read"]},
        "report": {"action": "echo", "after": ["join", "tables"]},
    }
    status, graph = node.ask(
        "POST",
        "/v1/sequences",
        {
            "name": "scan to text",
            "mode": "best_effort",
            "steps": {"steps": [{"id": id, "plugin": "misbehaving", **step} for id, step in steps.items()]},
        },
    )
    assert status == 201, graph
    eventually(
        lambda: node.ask("GET", f"/v1/sequences/{graph['id']}")[1]["state"] in ("failed", "completed"), 20
    )
    running = submit(node, "work", seconds=300)
    for _ in range(3):
        submit(node, "echo", value=1)
    eventually(lambda: node.ask("GET", f"/v1/jobs/{running}")[1]["progress"], 10)
    return {
        "overview": "/",
        "jobs": "/jobs",
        "job-failed": f"/jobs/{failed}",
        "job-running": f"/jobs/{running}",
        "sequences": "/sequences",
        "sequence": f"/sequences/{graph['id']}",
        "plugins": "/plugins",
        "plugin": "/plugins/misbehaving",
        "samples": "/samples",
        "no-page": "/jobs/job_that_is_not_there",
    }
