"""A real central and nodes that only talk: joining, documents, long polls, reports, wheels, and refusals."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests import centrals
from tests.centrals import Agent, Central

from toft.managed import protocol


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Central]:
    with centrals.running(tmp_path_factory.mktemp("central")) as running:
        running.save({})
        yield running


def test_a_node_joins_and_is_given_the_bytes_that_their_name_says(central: Central) -> None:
    agent = Agent(central).join()
    answer = agent.poll(takes=False)
    assert answer.status == 200
    sha256 = hashlib.sha256(answer.body).hexdigest()
    assert answer.headers["ETag"] == f'"sha256-{sha256}"'
    assert protocol.read_digest(answer.headers["Repr-Digest"]) == sha256
    assert int(answer.headers["X-Revision"]) == answer.value["revision"]
    agent.etag = f"sha256-{sha256}"
    assert agent.poll().status == 304
    assert agent.ask("GET", f"{protocol.CONFIG}/{sha256}").body == answer.body


def test_who_waits_is_given_a_new_revision_at_once(central: Central) -> None:
    agent = Agent(central).join()
    agent.poll()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(agent.poll, 30)
        time.sleep(0.2)
        assert not waiting.done()
        began = time.monotonic()
        central.save({"x-note": "new"})
        assert waiting.result().value["x-note"] == "new"
        assert time.monotonic() - began < 5
