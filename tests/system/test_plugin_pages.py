"""Pages of plugins in a real browser: settings are changed, mistakes told, and texts stay texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.routing import APIRoute
from playwright.sync_api import Browser
from tests import browsers, daemons, form_plugins
from tests.browsers import Doorway, Visitor
from tests.waiting import eventually

from toft.web import app

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script><b class=pwned>\u202egnp\x1b[31m'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give one browser for all tests; each opens a window of its own."""
    with browsers.started() as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a home with the plugins of this file."""
    browsers.binary()
    return form_plugins.install(tmp_path_factory.mktemp("forms"))


@pytest.fixture(scope="module")
def shared(home: Path) -> Iterator[Doorway]:
    """Give a daemon with those plugins, and the address of its pages."""
    with (
        daemons.running(home, home.parent, listen="127.0.0.1:0") as daemon,
        browsers.doorway(daemon.place.socket) as doorway,
    ):
        yield doorway


@pytest.fixture
def node(shared: Doorway) -> Doorway:
    """Give that daemon, with what the test before has set put back."""
    for what in ("config", "options"):
        asked(shared, "POST", f"/v1/plugins/painter/{what}", {"changes": {}, "replace": True})
    return shared


def asked(node: Doorway, method: str, path: str, body: Any = None) -> Any:
    status, told = node.ask(method, path, body)
    assert status < 300, told
    return told


def config_of(node: Doorway, plugin: str) -> Any:
    return asked(node, "GET", f"/v1/plugins/{plugin}/config")


def field(visitor: Visitor, label: str) -> Any:
    return visitor.page.get_by_label(label, exact=True)


def told_in_time(visitor: Visitor) -> bool:
    """Say whether the form has what the plugin says can be picked; the page is asked again when not."""
    visitor.page.wait_for_selector("#settings")
    late = visitor.page.get_by_role("link", name="ask again")
    if not late.count():
        return True
    with visitor.page.expect_navigation():
        late.click()
    return False


def save(visitor: Visitor, says: str) -> None:
    visitor.page.get_by_role("button", name="Save", exact=True).click()
    visitor.page.locator(".outcome", has_text=says).wait_for()


def test_settings_are_changed_with_their_types_and_only_those_that_were_touched(
    node: Doorway, browser: Browser
) -> None:
    asked(node, "POST", "/v1/instances", {"plugin": "painter"})
    before = config_of(node, "painter")
    with browsers.visiting(node.url, browser) as visitor:
        visitor.go("/plugins")
        visitor.see("Paints pictures from words")
        visitor.page.get_by_role("link", name="painter", exact=True).click()
        # A busy machine lets the page do without what the plugin says can be picked.
        eventually(lambda: told_in_time(visitor), 30)
        field(visitor, "Checkpoint").select_option(label="Extra large")
        field(visitor, "oil").check()
        field(visitor, "ink").uncheck()
        field(visitor, "Words").fill("dawn\n\n fog \n")
        field(visitor, "Seed").fill("12")
        field(visitor, "Tiled").check()
        field(visitor, "Palette").fill('{"sky": []}')
        field(visitor, "Threads").fill("8")
        save(visitor, "Saved.")
        changed = {
            "checkpoint": "xl",
            "styles": ["oil"],
            "words": ["dawn", "fog"],
            "seed": 12,
            "tiled": True,
            "palette": {"sky": []},
            "model": {"size": "small", "threads": 8, "strength": 0.75},
        }
        assert config_of(node, "painter") == {**before, **changed}
        save(visitor, "Nothing was changed.")
        field(visitor, "Seed").fill("")
        save(visitor, "Saved.")
        assert config_of(node, "painter")["seed"] is None
        # The page is waited for, and not the API: while nobody reads what the browser says, its question
        # whether one is sure stays unanswered.
        with visitor.page.expect_navigation():
            visitor.page.get_by_role("button", name="Back to the defaults").click()
        eventually(lambda: config_of(node, "painter") == before)


def test_a_mistake_is_told_beside_its_field_and_nothing_changes(node: Doorway, browser: Browser) -> None:
    before = config_of(node, "painter")
    with browsers.visiting(node.url, browser) as visitor:
        visitor.go("/plugins/painter")
        field(visitor, "Prefix").fill("far too long a prefix")
        field(visitor, "Threads").fill("many")
        field(visitor, "Palette").fill("{")
        save(visitor, "2 settings do not fit.")
        wrong = {each.inner_text() for each in visitor.page.locator(".wrong label").all()}
        assert wrong == {"Threads", "Palette"}
        assert field(visitor, "Threads").input_value() == "many"
        field(visitor, "Threads").fill("65")
        field(visitor, "Palette").fill("{}")
        save(visitor, "2 settings do not fit.")
        visitor.see("longer than 12 characters")
        assert field(visitor, "Threads").get_attribute("aria-invalid") == "true"
        assert config_of(node, "painter") == before


def test_how_an_instance_is_run_is_changed_as_its_configuration_is(node: Doorway, browser: Browser) -> None:
    asked(node, "POST", "/v1/instances", {"plugin": "painter"})
    with browsers.visiting(node.url, browser) as visitor:
        page = visitor.go("/plugins/painter")
        form = page.locator("#options")
        page.locator("#options-of summary").click()
        form.get_by_label("Calls at once").fill("-1")
        form.get_by_label("May write to").fill("/var/tmp\nscratch")
        form.get_by_label("Stay loaded").check()
        form.get_by_role("button", name="Save options").click()
        form.locator(".outcome", has_text="2 settings do not fit.").wait_for()
        assert set(form.locator(".wrong label").all_inner_texts()) == {"Calls at once", "May write to"}
        form.get_by_label("Calls at once").fill("3")
        form.get_by_label("May write to").fill("/var/tmp")
        form.get_by_role("button", name="Save options").click()
        form.locator(".outcome", has_text="it counts from the next load on").wait_for()
        page.get_by_role("button", name="Unload").click()
        page.get_by_role("button", name="Load", exact=True).click()
        page.get_by_role("button", name="Unload").wait_for()
        assert form.get_by_label("Stay loaded").is_checked()
        told = {"concurrency": 3, "writable": ["/var/tmp"], "pinned": True}
        assert asked(node, "GET", "/v1/instances/painter")["options"] == told


def test_a_form_that_somebody_else_overtook_is_not_taken_unseen(node: Doorway, browser: Browser) -> None:
    with browsers.visiting(node.url, browser) as visitor:
        visitor.go("/plugins/painter")
        asked(node, "POST", "/v1/plugins/painter/config", {"changes": {"prefix": "theirs"}})
        field(visitor, "Seed").fill("7")
        save(visitor, "Somebody else changed this meanwhile")
        assert config_of(node, "painter")["seed"] is None
        save(visitor, "Saved.")


def test_a_secret_is_stored_and_never_shown(node: Doorway, browser: Browser) -> None:
    with browsers.visiting(node.url, browser) as visitor:
        page = visitor.go("/plugins/painter")
        form = page.locator(".variable", has_text="PAINTER_KEY")
        form.get_by_label("Key").fill("hunter2-hunter2")
        form.get_by_role("button", name="Set").click()
        visitor.see("PAINTER_KEY is set.")
        page.locator(".variable", has_text="PAINTER_KEY").locator(
            ".state", has_text=re.compile("^set$")
        ).wait_for()
        assert "hunter2" not in page.content()
        visitor.go("/plugins/painter")
        assert "hunter2" not in page.content()


def test_an_instance_is_switched_and_its_log_is_told_as_it_is_printed(
    node: Doorway, browser: Browser
) -> None:
    second = {"plugin": "painter", "instance": "second"}
    asked(node, "POST", "/v1/instances", second)
    with browsers.visiting(node.url, browser) as visitor:
        visitor.expected = ["net::ERR_"]
        page = visitor.go("/plugins/painter/second")
        page.get_by_role("button", name="Disable").click()
        page.locator(".head .state-disabled").wait_for()
        assert asked(node, "GET", "/v1/instances/second")["enabled"] is False
        page.get_by_role("button", name="Enable").click()
        page.locator(".head .state-ready").wait_for()
        page.wait_for_selector("#link[data-link=live]")
        asked(node, "POST", "/v1/jobs", {**second, "arguments": {"words": "<b>snow</b>"}})
        visitor.see("painted <b>snow</b> with 4 threads")
        node.cut()
        page.wait_for_selector("#link[data-link=lost]")
        job = asked(node, "POST", "/v1/jobs", {**second, "arguments": {"words": "fog", "count": 99}})["id"]
        asked(node, "GET", f"/v1/jobs/{job}/wait?timeout_s=20")
        page.locator("#log .row").last.get_by_text("painted fog").wait_for(timeout=15_000)
        # What was printed meanwhile is there, once; and never more than a page holds.
        asked(node, "POST", "/v1/jobs", {**second, "arguments": {"words": "rain"}})
        page.locator("#log .row").last.get_by_text("painted rain").wait_for()
        assert page.locator("#log .row", has_text="painted fog").count() == 99
        assert page.locator("#log .row", has_text="snow").count() == 1
        asked(node, "POST", "/v1/jobs", {**second, "arguments": {"words": "hail", "count": 300}})
        page.locator(".figures div", has_text="calls").get_by_text("4", exact=True).wait_for()
        eventually(lambda: page.locator("#log .row").count() == 200)


def test_an_action_is_run_as_a_job_with_its_arguments(node: Doorway, browser: Browser) -> None:
    with browsers.visiting(node.url, browser) as visitor:
        page = visitor.go("/plugins/painter")
        run = page.get_by_role("button", name="Run execute")
        field(visitor, "count").fill("many")
        run.click()
        page.locator(".run .wrong").nth(1).wait_for()
        assert page.locator(".run .wrong label").all_inner_texts() == ["words", "count"]
        field(visitor, "words").fill("fog")
        field(visitor, "count").fill("2")
        run.click()
        page.wait_for_url("**/jobs/job_*")
        visitor.see("completed")
        job = page.url.rpartition("/")[2]
        assert asked(node, "GET", f"/v1/jobs/{job}/result") == ["fog", "fog"]
        visitor.go("/samples?span_s=900")
        page.wait_for_selector("html[data-plotted]")
        page.locator(".plot canvas").nth(3).wait_for()


def test_a_plugin_is_installed_renewed_and_removed_from_its_page(
    node: Doorway, browser: Browser, tmp_path: Path
) -> None:
    good, bad = tmp_path / "hello.py", tmp_path / "no.whl"
    good.write_text(
        "from toft_sdk import Plugin\n\n\nclass Hello(Plugin):\n"
        "    def execute(self) -> int:\n        return 3\n"
    )
    bad.write_bytes(b"<b>no</b>")
    with browsers.visiting(node.url, browser) as visitor:
        visitor.expected += ["status of 400"]
        page = visitor.go("/plugins")
        page.locator("#install summary").click()
        page.get_by_label("File", exact=True).set_input_files(bad)
        page.get_by_role("button", name="Install").click()
        page.locator(".note", has_text="the uploaded file cannot be used").wait_for()
        page.get_by_label("File", exact=True).set_input_files(good)
        page.get_by_role("button", name="Install").click()
        page.locator("#steps li", has_text="asking hello what it is").wait_for()
        page.locator("#steps li", has_text="installed").wait_for()
        page.get_by_role("link", name="hello", exact=True).click()
        with browsers.visiting(node.url, browser, **browsers.PHONE) as held:
            # With every button that a plugin can have.
            hand = held.go("/plugins/hello")
            hand.get_by_role("button", name="Load").click()
            hand.get_by_role("button", name="Unload").wait_for()
            assert hand.locator(".head .actions button").count() == 5
            assert hand.evaluate("document.documentElement.scrollWidth") <= 390
        # Loaded by somebody else, it gets another button before the answer to this one is here.
        page.get_by_role("button", name="Refresh").click()
        page.locator(".note", has_text="built anew").wait_for()
        assert asked(node, "GET", "/v1/plugins/hello")["toft"]["source"] == "browser:hello.py"
        page.get_by_role("button", name="Remove").click()
        page.wait_for_url("**/plugins")
        assert page.get_by_role("link", name="hello", exact=True).count() == 0


def concrete(template: str, jobs: list[str], sequence: str) -> list[str]:
    """Return the addresses of a kind of page; a new kind has to be named here."""
    paths = {
        "/": ["/"],
        "/jobs": ["/jobs", f"/jobs?plugin={quote(HOSTILE)}&error={quote(HOSTILE)}"],
        "/jobs/{id}": [f"/jobs/{each}" for each in jobs],
        "/sequences": ["/sequences"],
        "/sequences/{id}": [f"/sequences/{sequence}"],
        "/plugins": ["/plugins"],
        "/plugins/{name}": ["/plugins/mean"],
        "/plugins/{name}/{instance}": ["/plugins/mean/meaner"],
        "/samples": ["/samples"],
        "/configuration": ["/configuration"],
    }
    assert template in paths, f"name the addresses of {template} here"
    return paths[template]


PARTS = re.compile(r"/static/|/favicon|/now$|/logs$|/stream$|/sign-in|/open")


def templates() -> set[str]:
    found = {each.path for each in app.ROUTES if isinstance(each, APIRoute) and "GET" in (each.methods or ())}
    return {each for each in found if not PARTS.search(each)}


def test_no_text_of_a_plugin_or_a_client_becomes_anything_but_text(node: Doorway, browser: Browser) -> None:
    jobs = [
        asked(node, "POST", "/v1/jobs", {"plugin": "mean", "arguments": arguments})["id"]
        for arguments in ({"what": "raise"}, {"what": HOSTILE, "text": HOSTILE})
    ]
    for each in jobs:
        asked(node, "GET", f"/v1/jobs/{each}/wait?timeout_s=20")
    asked(node, "POST", "/v1/instances", {"plugin": "mean", "instance": "meaner"})
    steps = [{"plugin": "mean", "arguments": {"what": HOSTILE}}]
    sequence = asked(node, "POST", "/v1/sequences", {"steps": steps, "name": HOSTILE})["id"]
    asked(node, "GET", f"/v1/sequences/{sequence}/wait?timeout_s=20")
    paths = [path for each in sorted(templates()) for path in concrete(each, jobs, sequence)]
    paths += [f"/{where}/{quote(HOSTILE, safe='')}" for where in ("jobs", "plugins", "sequences", "nowhere")]
    seen = 0
    with browsers.visiting(node.url, browser) as visitor:
        visitor.expected += ["status of 40"]
        for path in paths:
            answer = visitor.page.goto(node.url + path)
            assert answer is not None
            if "json" in answer.headers["content-type"]:
                continue  # an answer of the API, which no browser takes for a page
            visitor.page.wait_for_selector("html[data-ready]")
            found = visitor.page.evaluate(LOOK)
            assert found["elements"] == [], (path, found["elements"])
            assert found["misleading"] == [], (path, found["misleading"])
            seen += found["attacks"]
    assert seen > 20, "the attacks were not shown at all"


# Elements that no template has, characters that mislead, and how often an attack is seen as text.
LOOK = r"""() => {
  const strange = ".pwned, img[src=x], script:not([src]), [onerror], [onclick], [style*=expression], iframe";
  const texts = [document.title, document.body.innerText];
  document.querySelectorAll("input, textarea, option").forEach(each => texts.push(each.value));
  document.querySelectorAll("*").forEach(each => {
    for (const one of each.attributes) { if (one.name !== "value") { texts.push(one.value); } }
  });
  const bad = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/;
  return {
    elements: Array.from(document.querySelectorAll(strange), each => each.outerHTML.slice(0, 200)),
    misleading: texts.filter(each => bad.test(each)).map(each => each.slice(0, 200)),
    attacks: document.body.innerText.split("onerror=alert").length - 1,
  };
}"""
