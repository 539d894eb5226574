"""The page of a node's document in a real browser, and the same over HTTP: a trial, the way back, a pin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests import browsers, daemons
from tests.browsers import DESKTOP, PHONE
from tests.daemons import Daemon
from tests.waiting import eventually


def document(lanes: int, settle_s: float) -> str:
    gates = {name: {"kind": "exec", "command": name} for name in ("ok", "never")}
    value = {
        "schema_version": 1,
        "settings": {"lanes": lanes},
        "health": {"settle_s": settle_s, "gates": gates},
        "x-note": "kept <b>as it is</b> \u202e",
    }
    return json.dumps(value)


def apply(daemon: Daemon, text: str) -> Any:
    done = daemon.request("POST", "/v1/configuration/apply", {"document": text, "source": "a test"})
    return done.value


def standing(daemon: Daemon) -> dict[str, Any]:
    """How it stands; empty while it starts again."""
    try:
        found = daemon.request("GET", "/v1/configuration")
    except OSError:
        return {}
    return dict(found.value) if found.status == 200 else {}


def test_a_person_sees_a_trial_goes_back_and_takes_note(tmp_path: Path) -> None:
    browsers.binary()
    home = tmp_path / "home"
    listed = ["ok=/bin/true", "never=/bin/false"]
    with (
        daemons.running(home, tmp_path, gate_commands=listed) as daemon,
        browsers.doorway(daemon.place.socket) as doorway,
        browsers.visiting(doorway.url) as visitor,
    ):
        visitor.expected = ["net::ERR_", "status of 5", "htmx:"]  # while it starts again nobody answers
        page = visitor.go("/configuration")
        visitor.see("There is no document")
        first = apply(daemon, document(3, 0.1))
        assert first["action"] == "applied"
        eventually(lambda: standing(daemon).get("confirmed") == first["etag"], within_s=40)
        second = apply(daemon, document(2, 800))
        eventually(lambda: standing(daemon).get("running") == second["etag"], within_s=40)
        refused = daemon.request("POST", "/v1/configuration/apply", {"document": document(1, 1)})
        assert (refused.status, refused.value["code"]) == (409, "generation.probation_active")

        visitor.see("on trial")
        visitor.see("time left")
        page.wait_for_selector("tr:has-text('ok') .state-completed")
        page.wait_for_selector("tr:has-text('never'):has-text('does not count')")
        page.wait_for_selector(".diff .added:has-text('\"lanes\": 2')")
        look(visitor.page, tmp_path, "trial")
        assert "<b>as it is" not in page.content()
        assert "\u202e" not in page.content(), "no text turns the reading order"

        page.get_by_role("button", name="Roll back").click()
        eventually(lambda: standing(daemon).get("running") == first["etag"], within_s=40)
        found = standing(daemon)
        assert found["pinned"] == "asked for on its page"
        assert found["acknowledged"], "whoever goes back by hand has seen it"
        page = visitor.go("/configuration")
        page.wait_for_selector("#history")
        visitor.see("rolled back")
        page.get_by_role("button", name="Unpin").click()
        eventually(lambda: standing(daemon)["pinned"] is None)
        look(page, tmp_path, "back")

        explained = daemon.request("GET", "/v1/configuration/explain?key=lanes").value
        assert (explained["won"], explained["value"]) == ("document", 3)
        unknown = daemon.request("GET", "/v1/configuration/explain?key=lames")
        assert (unknown.status, unknown.value["code"]) == (404, "configuration.unknown_key")
        text = daemon.request("GET", "/v1/configuration/document")
        assert text.body.decode() == document(3, 0.1), "exactly these bytes"
        assert daemon.request("GET", "/v1/configuration/document?which=served").status == 404


def look(page: Any, directory: Path, name: str) -> None:
    """Take pictures, for whoever wants to see them, and hold that nothing is wider than the glass."""
    for kind, size in (("desktop", DESKTOP), ("phone", PHONE)):
        page.set_viewport_size(size["viewport"])
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=directory / f"{name}-{kind}-{scheme}.png", full_page=True, scale="css")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size["viewport"]["width"], f"{name} is wider than a {kind}"
    page.set_viewport_size(DESKTOP["viewport"])
    page.emulate_media(color_scheme="light")
