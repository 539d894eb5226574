"""Pages in a real browser: they show what is there, change as it changes, and load nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import browsers, daemons, nodes
from tests.browsers import Doorway


@pytest.fixture
def node(toft_home: Path, tmp_path: Path) -> Iterator[Doorway]:
    """Give a daemon with one plugin, and the address of its pages."""
    browsers.binary()
    nodes.register(toft_home)
    with (
        daemons.running(toft_home, tmp_path) as daemon,
        browsers.doorway(daemon.place.socket) as doorway,
    ):
        yield doorway


def submit(node: Doorway, action: str, **arguments: object) -> str:
    status, told = node.ask(
        "POST", "/v1/jobs", {"plugin": "misbehaving", "action": action, "arguments": arguments}
    )
    assert status == 201, told
    return str(told["id"])


def test_the_overview_shows_what_happens_as_it_happens(node: Doorway) -> None:
    with browsers.visiting(node.url) as visitor:
        page = visitor.go("/")
        visitor.see("No job was ever submitted here.")
        visitor.see("toft submit PLUGIN key=value")
        job = submit(node, "echo", value=1)
        page.wait_for_selector(".count:has(.state-completed) .number:text-is('1')")
        failed = submit(node, "raise_error", kind="ValueError", message="no such <b>luck</b>")
        visitor.see(failed)
        visitor.see("no such <b>luck</b>")
        assert job != failed
