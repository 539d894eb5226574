"""A node and a central on real sockets: joined, given documents, sent back, cut off, and let go."""

import contextlib
import gzip
import itertools
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests import fake_central
from tests.daemons import Daemon, running
from tests.fake_central import FakeCentral, Reply
from tests.waiting import eventually

from toft.central import reports as taking
from toft.managed import document, generations, messages, protocol, standing


@pytest.fixture(scope="module")
def central() -> Iterator[FakeCentral]:
    with fake_central.running() as made:
        made.keeps = False  # a test that leaves connections behind would be said to leak
        yield made


def text(central: FakeCentral, lanes: int, **more: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "control": {"urls": [central.url], "poll_interval_s": 60},
        "settings": {"lanes": lanes},
        "health": {"settle_s": 0.1},
        **more,
    }


def shown(daemon: Daemon) -> dict[str, Any]:
    return standing.describe(daemon.toft.home)


def nudge(daemon: Daemon) -> None:
    """Make it ask now."""
    os.kill(daemon.pid, signal.SIGHUP)


def asked(central: FakeCentral) -> int:
    return len(central.seen(protocol.CONFIG))


def ask(daemon: Daemon, central: FakeCentral, *replies: Reply | fake_central.Hurt) -> None:
    """Let it ask once for each of these replies."""
    for reply in replies:
        count = asked(central)
        central.then(protocol.CONFIG, reply)
        nudge(daemon)
        eventually(lambda: asked(central) > count, within_s=20)  # noqa: B023 - asked at once


def endless(connection: socket.socket, request: fake_central.Request) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(bytes(65536))


def garbage(connection: socket.socket, request: fake_central.Request) -> None:
    connection.sendall(b"\x00\xff nothing of HTTP\r\n\r\n")


def offered(value: object, **headers: str) -> Reply:
    body = value if isinstance(value, bytes) else document.encode(value)
    return Reply(200, {"ETag": protocol.quoted(document.etag_of(body)), **headers}, body)


@pytest.fixture(scope="module")
def joined(central: FakeCentral, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("joined")
    home = directory / "home"
    home.mkdir()
    first = central.serve(text(central, 3), revision=1)
    generations.Generations.at(home).reset(fake_central.seed(central))
    with running(home, directory) as daemon:
        eventually(lambda: shown(daemon)["confirmed"] == first, within_s=30)
        yield daemon


def test_a_node_joins_and_follows_its_central(joined: Daemon, central: FakeCentral) -> None:
    home = joined.toft.home
    for path in home.rglob("*"):
        assert not path.is_file() or central.token.encode() not in path.read_bytes(), path
    assert "if-none-match" not in central.seen(protocol.CONFIG)[0].headers
    assert len(central.seen(protocol.ENROLL)) == 1

    # A question that is kept hears at once what is new.
    central.holds_s = 50.0
    nudge(joined)
    eventually(lambda: "prefer" in central.seen(protocol.CONFIG)[-1].headers, within_s=20)
    second = central.serve(text(central, 2), revision=2)
    eventually(lambda: shown(joined)["active"] == second, within_s=15)
    eventually(lambda: shown(joined)["confirmed"] == second, within_s=30)
    central.holds_s = 0.0

    # One without control URLs leaves the node with those of the join: it can always be mended from there.
    third = central.serve({"schema_version": 1, "settings": {"lanes": 4}, "health": {"settle_s": 0.1}})
    nudge(joined)
    eventually(lambda: shown(joined)["confirmed"] == third, within_s=30)
    # What ran on trial asked without waiting, and never for what it had only taken.
    names = [each.headers.get("if-none-match") for each in central.seen(protocol.CONFIG)]
    assert [name for name, _ in itertools.groupby(names)] == list(dict.fromkeys(names))
    firsts = [names.index(name) for name in dict.fromkeys(names)]
    assert all("prefer" not in central.seen(protocol.CONFIG)[at].headers for at in firsts)

    # What it was and what became of it, in the words that a central takes.
    def told() -> list[Any]:
        return [taking.check(each.value) for each in central.seen(protocol.REPORT)]

    eventually(lambda: told()[-1].get("running", {}).get("etag") == third, within_s=20)
    eventually(lambda: told()[-1].get("history", [{}])[-1].get("event") == "applied", within_s=20)
    latest = told()[-1]
    assert [each["event"] for each in latest["history"]] == ["staged", "applied"] * 3
    assert latest["desired"] == {"etag": third}
    assert [each["seq"] for each in told()] == sorted({each["seq"] for each in told()})
    assert len({each["boot_nonce"] for each in told()}) == 4, (
        "each document is loaded by a process of its own"
    )
    bodies = [each["effective"]["body"] for each in told() if "body" in (each.get("effective") or {})]
    assert bodies[-1]["settings"]["lanes"] == 4


def test_nothing_that_a_central_says_hurts_what_runs(joined: Daemon, central: FakeCentral) -> None:
    before, lanes = shown(joined), joined.status()["lanes"]
    good = text(central, 9)
    foreign = {**good, "audience": {"node_id": "node_" + "0" * 26}, "revision": 7}
    bomb = gzip.compress(bytes(8 << 20), 9)
    hostile: dict[str, Reply | fake_central.Hurt] = {
        "config_poll_error": garbage,
        "config_document_too_large": endless,
        "config_missing_etag": Reply(200, {}, document.encode(good)),
        "config_digest_mismatch": Reply(
            200, {"ETag": protocol.quoted("sha256-" + "0" * 64)}, document.encode(good)
        ),
        "config_invalid_json": offered(b"<html>sign in to the network</html>"),
        "config_poll_http_error": Reply(302, {"Location": central.url + "/elsewhere"}),
        "config_poll_throttled": Reply(503, {"Retry-After": "3000000"}),
        "config_poll_revoked": fake_central.problem(403, protocol.NODE_REVOKED),
        "config_no_document": fake_central.problem(404, protocol.NO_DOCUMENT),
    }
    for kind, reply in hostile.items():
        ask(joined, central, reply)
        eventually(lambda: f"event='{kind}'" in joined.log(), within_s=20)  # noqa: B023 - asked at once
    ask(
        joined,
        central,
        Reply(200, {"Content-Encoding": "gzip", "ETag": protocol.quoted("sha256-" + "0" * 64)}, bomb),
        offered({"schema_version": 1, "settings": {"lanes": "many"}}),
        offered(foreign),
        offered({**good, "tenant": "another", "revision": 8}),
        offered({**good, "min_agent_version": "99.0"}),
        offered({**good, "expires_at": "2020-01-01T00:00:00Z"}),
        offered({"schema_version": 1, "x-\x1b[31m": "\x1b]0;evil\x07", "schema_version_": 2}),
    )
    assert not central.seen("/elsewhere")
    # A clock in 1970, and a credential that it does not know any more.
    central.clock_s = -1.7e9
    central.credentials.clear()
    nudge(joined)
    eventually(lambda: central.credentials, within_s=20)
    assert messages.read_refresh(central.seen(protocol.REFRESH)[-1].value).at < 1e9, "signed with its time"
    after = shown(joined)
    for name in ("active", "confirmed", "phase"):
        assert after[name] == before[name]
    reasons = [each["reason"] for each in after["bad"]]
    assert reasons.count("validation_failed") == 5
    assert "document_expired" in reasons
    assert joined.status()["lanes"] == lanes
    assert "\x1b" not in joined.log()
    assert len(central.seen(protocol.ENROLL)) == 1

    figures = joined.request("GET", "/metrics").body.decode()
    assert 'toft_config_poll_total{code="config_document_too_large"} 2.0' in figures, "endless, and a bomb"
    assert "toft_config_apply_seconds " in figures

    # And a good one is still taken.
    central.clock_s = 0.0
    last = central.serve(text(central, 5), revision=2)
    nudge(joined)
    eventually(lambda: shown(joined)["confirmed"] == last, within_s=30)


def test_what_comes_while_one_is_on_trial_waits_for_it_and_goes_back_to_it(
    joined: Daemon, central: FakeCentral
) -> None:
    """T37: the first answer on trial is a newer document."""
    first = text(central, 7, health={"settle_s": 2.0})
    second = central.serve(text(central, 8), revision=11)
    central.then(protocol.CONFIG, offered({**first, "revision": 10}))
    etag = document.etag_of(document.encode({**first, "revision": 10}))
    began = asked(central)
    nudge(joined)
    eventually(lambda: shown(joined)["confirmed"] == second, within_s=60)
    happened = [(each["event"], each["etag"]) for each in shown(joined)["history"][-4:]]
    assert happened == [("staged", etag), ("applied", etag), ("staged", second), ("applied", second)]
    names = [each.headers["if-none-match"] for each in central.seen(protocol.CONFIG)[began:]]
    assert [name for name, _ in itertools.groupby(names)][1:3] == [
        protocol.quoted(etag), protocol.quoted(second)
    ]  # fmt: skip
    assert names.count(protocol.quoted(etag)) >= 2, "asked on trial, and once more when it was proven"
    assert "generation.probation_active" in joined.log()
    assert second not in [each["etag"] for each in shown(joined)["bad"]], "it came too early, and no more"

    assert joined.toft("config", "rollback", "--json").value["active"] == etag, "the first, and no older one"
    eventually(lambda: joined.status()["lanes"] == 7, within_s=30)
    assert joined.toft("config", "unpin").status == 0


def test_a_node_that_lost_all_it_had_is_mended_by_its_central(joined: Daemon, central: FakeCentral) -> None:
    wanted = central.serve(text(central, 6), revision=9)
    managed = joined.toft.home / "managed"
    joined.kill()
    for name in ("slot-a/document", "slot-b/meta.json", "journal.json", "journal.prev"):
        (managed / name).write_bytes(b"\x00" * 100)
    (managed / "enrollment.json").unlink()
    count = asked(central)
    assert joined.toft("up", "--detach").status == 0
    eventually(lambda: shown(joined)["confirmed"] == wanted, within_s=30)
    assert "if-none-match" not in central.seen(protocol.CONFIG)[count].headers
    assert len(central.seen(protocol.ENROLL)) == 1, "it is still who it was"
    # It is not the process that the others of this module had: it is left behind by nobody.
    assert joined.toft("down", "--now").status == 0
