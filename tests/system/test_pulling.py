"""A node and a central on real sockets: joined, given documents, sent back, cut off, and let go."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import fake_central
from tests.daemons import Daemon, running
from tests.fake_central import FakeCentral
from tests.waiting import eventually

from toft.managed import generations


@pytest.fixture
def central() -> Iterator[FakeCentral]:
    with fake_central.running() as made:
        yield made


def text(central: FakeCentral, lanes: int, **more: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "control": {"urls": [central.url], "poll_interval_s": 5},
        "settings": {"lanes": lanes},
        "health": {"settle_s": 0.1},
        **more,
    }


def shown(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.toft("config", "show", "--json").value
    return found


def test_a_node_joins_and_follows_its_central(central: FakeCentral, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    first = central.serve(text(central, 3), revision=1)
    generations.Generations.at(home).reset(fake_central.seed(central))
    with running(home, tmp_path) as daemon:
        eventually(lambda: shown(daemon)["confirmed"] == first, within_s=30)
        for path in home.rglob("*"):
            assert not path.is_file() or central.token.encode() not in path.read_bytes(), path
        second = central.serve(text(central, 2), revision=2)
        eventually(lambda: shown(daemon)["confirmed"] == second, within_s=30)
        asked = central.seen("/v1/config")
        assert "if-none-match" not in asked[0].headers
        assert len(central.seen("/v1/enroll")) == 1
