"""What nodes send in rows, over HTTP to a real central: once each, bounded, and read again by whoever may."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests import centrals, daemons
from tests.centrals import Agent, Answer, Central
from tests.command_line import CommandLine
from tests.system.test_central_commands import Commands
from tests.waiting import eventually

from toft.managed import protocol


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Central]:
    directory = tmp_path_factory.mktemp("central")
    with centrals.running(directory, "--telemetry-bytes", "1000000") as running:
        running.save({})
        yield running


def chunk(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def send(agent: Agent, body: bytes, at: int = 0, *, signal: str = "logs", key: str | None = None) -> Answer:
    headers = {"Content_Type": "application/x-ndjson"}
    if key != "":
        headers["Idempotency_Key"] = key or protocol.chunk_key(signal, "file", at, body)
    return agent.ask("POST", f"{protocol.INGEST}/{signal}", body, **headers)


def rows(central: Central, agent: Agent, signal: str = "logs", **query: Any) -> list[Any]:
    found = central.admin("GET", f"nodes/{agent.node_id}/telemetry/{signal}", **query)
    return [each["row"] for each in found["rows"]]


def test_an_equal_chunk_is_kept_once_and_equal_bytes_elsewhere_twice(central: Central) -> None:
    """T87."""
    agent = Agent(central).join()
    body = chunk({"n": 1}, {"n": 2})
    assert [send(agent, body).status for _ in range(3)] == [202, 202, 202]
    assert rows(central, agent) == [{"n": 1}, {"n": 2}]
    assert send(agent, body, 100).status == 202
    assert rows(central, agent) == [{"n": 1}, {"n": 2}] * 2
    assert send(agent, body, signal="metrics").status == 202
    assert send(agent, body, signal="metrics", key=protocol.chunk_key("logs", "file", 0, body)).status == 202
    assert rows(central, agent, "metrics") == [{"n": 1}, {"n": 2}] * 2, "each signal has names of its own"
    other = Agent(central).join()
    assert send(other, body).status == 202
    assert rows(central, other) == [{"n": 1}, {"n": 2}], "and so has each node"


def test_what_was_acknowledged_is_there_after_a_kill_and_known_again(tmp_path: Path) -> None:
    with centrals.running(tmp_path) as central:
        central.save({})
        agent = Agent(central).join()
        body = chunk({"n": 1})
        assert send(agent, body).status == 202
        central.kill()
        central.start()
        assert send(agent, body).status == 202
        assert rows(central, agent) == [{"n": 1}]


def test_the_same_chunk_many_times_at_once_is_kept_once(central: Central) -> None:
    agent = Agent(central).join()
    body = chunk(*({"n": number} for number in range(500)))
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: send(agent, body).status, range(16)))
    assert set(statuses) <= {202, 503}
    assert 202 in statuses
    assert len(rows(central, agent, most=1000)) == 500


@pytest.mark.parametrize(
    "body",
    [
        b"\n",
        b"\n{}\n",
        b"[]\n",
        b"1\n",
        b"nothing\n",
        b'{"a": 1\n}\n',
        b'{"a": NaN}\n',
        b'{"a": -Infinity}\n',
        b'{"a": 1e999}\n',
        b'{"a": "\xff"}\n',
        b'{"a": "\\ud800"}\n',
        b'{"a": "\x00"}\n',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}\n",
        b'{"a": ' + b"1" * 10_000 + b"}\n",
        b"{}\r\nx",
    ],
)
def test_what_is_not_made_of_rows_is_refused_for_good(central: Central, body: bytes) -> None:
    agent = Agent(central).join()
    refused = send(agent, b'{"n": 1}\n' + body)
    assert (refused.status, refused.code) == (422, "ingest.invalid"), refused.body
    assert "line 2" in refused.value["detail"] or "line 3" in refused.value["detail"]
    assert rows(central, agent) == [], "all of it or nothing"


def test_a_row_that_is_taken_can_be_answered(central: Central) -> None:
    agent = Agent(central).join()
    deep = b'{"a": ' + b"[" * 63 + b"]" * 63 + b', "b": "' + b"[" * 500 + b'"}\n'
    assert send(agent, deep).status == 202
    assert rows(central, agent) == [json.loads(deep)]


def test_what_is_not_a_chunk_is_refused_by_name(central: Central) -> None:
    agent = Agent(central).join()
    good = chunk({"n": 1})
    for key in ("", "x", "0" * 31, "0" * 33, "A" * 32, "é" * 32):
        refused = send(agent, good, key=key)
        assert (refused.status, refused.code) == (400, "ingest.no_key"), key
    assert send(agent, b"").code == "ingest.invalid", "it has no row"
    for other in ("log", "LOGS", "..."):
        assert send(agent, good, signal=other).status == 404
    assert send(agent, good).status == 202
    again = send(agent, chunk({"n": 2}), key=protocol.chunk_key("logs", "file", 0, good))
    assert (again.status, again.code) == (422, "ingest.invalid"), "the same name for other bytes"
    assert rows(central, agent) == [{"n": 1}]


def test_a_chunk_has_an_end_in_bytes_and_in_rows(central: Central) -> None:
    agent = Agent(central).join()
    row = b'{"x": "' + b"y" * 992 + b'"}\n'
    assert len(row) == 1002
    many = b"{}\n" * protocol.MAX_CHUNK_ROWS
    assert send(agent, many).status == 202
    refused = send(agent, many + b"{}\n")
    assert (refused.status, refused.code) == (413, "request.too_large")
    # Nothing of it has to come: what it says of its length is enough.
    refused = agent.ask(
        "POST", f"{protocol.INGEST}/logs", b"", Content_Length=str(protocol.MAX_CHUNK_BYTES + 1)
    )
    assert (refused.status, refused.code) == (413, "request.too_large")
    whole = row * (protocol.MAX_CHUNK_BYTES // 1002)
    assert send(agent, whole).status == 202, "larger than all that is kept: it is the newest"
    assert len(rows(central, agent, most=1000)) == 1000


def test_the_newest_rows_are_kept_within_bounds(central: Central) -> None:
    agent = Agent(central).join()
    for number in range(12):
        body = chunk(*({"n": number, "x": "y" * 1000} for _ in range(100)))
        assert send(agent, body, number).status == 202
    found = central.admin("GET", f"nodes/{agent.node_id}/telemetry/logs", most=1000)["rows"]
    kept = [each["row"]["n"] for each in found]
    assert kept == sorted(kept)
    assert 700 <= len(kept) <= 1000, "a million bytes, or a little less"
    assert kept[-1] == 11
    assert send(agent, chunk(*({"n": 0, "x": "y" * 1000} for _ in range(100))), 0).status == 202
    assert rows(central, agent)[-1]["n"] == 11, "what is gone is still known"


def test_who_sends_too_much_waits_and_a_repeat_does_not_count(central: Central) -> None:
    agent = Agent(central).join()
    body = chunk({"x": "y" * 2_000_000})
    statuses = [send(agent, body, number) for number in range(6)]
    refused = [each for each in statuses if each.status == 429]
    assert refused
    assert [each.status for each in statuses[:3]] == [202] * 3
    assert refused[-1].code == "too_many_requests"
    assert 1 <= int(refused[-1].headers["Retry-After"]) <= 60, "until this chunk fits"
    assert send(agent, body, 0).status == 202, "what is here already costs nothing"
    assert send(Agent(central).join(), body).status == 202


def test_who_may_not_send_is_refused_and_who_may_not_read_sees_nothing(central: Central) -> None:
    body = chunk({"n": 1})
    stranger = Agent(central)
    stranger.credential = "nt_" + "A" * 43
    assert send(stranger, body).status == 401
    waiting = Agent(central).join(needs_approval=True)
    refused = send(waiting, body)
    assert (refused.status, refused.code) == (403, "pending_approval")
    gone = Agent(central).join()
    central.admin("POST", f"nodes/{gone.node_id}/revoke")
    assert send(gone, body).status in (401, 403)
    central.admin("POST", "tenants", {"name": "rows"})
    central.save({}, tenant="rows")
    theirs = Agent(central).join(tenant="rows")
    assert send(theirs, body).status == 202
    path = f"nodes/{theirs.node_id}/telemetry/logs"
    assert central.try_admin("GET", path).status == 404, "of another tenant"
    assert len(central.admin("GET", path, tenant="rows")["rows"]) == 1
    assert central.ask("GET", f"/v1/admin/{path}?tenant=rows", token=theirs.credential).status == 401


def test_rows_are_read_back_and_on_by_level_and_in_bounds(central: Central) -> None:
    agent = Agent(central).join()
    levels = ("debug", "info", "warning", "error", "odd", None, 7)
    for number in range(40):
        body = chunk(*({"n": number * 7 + place, "level": level} for place, level in enumerate(levels)))
        assert send(agent, body, number).status == 202
    path = f"nodes/{agent.node_id}/telemetry/logs"

    def ask(**query: Any) -> tuple[list[int], Any]:
        found = central.admin("GET", path, **query)
        return [each["row"]["n"] for each in found["rows"]], found

    last, found = ask(most=10)
    assert (last, found["more"]) == (list(range(270, 280)), True)
    seen, before = list(last), found["rows"][0]["id"]
    while found["more"]:
        numbers, found = ask(most=33, before=before)
        seen, before = [*numbers, *seen], found["rows"][0]["id"]
    assert seen == list(range(280)), "back to the first, none twice"
    on, found = ask(most=10, after=before)
    assert (on, found["more"]) == (list(range(1, 11)), True)
    numbers, found = ask(most=1000, after=found["rows"][-1]["id"])
    assert (numbers, found["more"]) == (list(range(11, 280)), False)
    assert ask(after=found["rows"][-1]["id"])[0] == []
    errors, _ = ask(most=1000, level="error")
    assert errors == [n for n in range(280) if n % 7 > 2], "what says no level that is known is there as well"
    for query in (
        {"most": 0},
        {"most": 1001},
        {"before": "x"},
        {"before": "1-1", "after": "1-1"},
        {"level": "x"},
    ):
        assert central.try_admin("GET", path, **query).status == 400, query
    assert central.try_admin("GET", f"nodes/{agent.node_id}/telemetry/log").status == 404
    assert central.try_admin("GET", "nodes/node_x/telemetry/logs").status == 404


def test_a_node_sends_its_log_and_samples_and_nothing_twice_over_a_kill(
    tmp_path: Path,
) -> None:
    """A real node: from its document to what an administrator reads, with a kill in the middle."""
    with centrals.running(tmp_path) as central:
        central.save(
            {
                "telemetry": {"logs": "info", "metrics": True, "every_s": 10},
                "health": {"settle_s": 0},
            }
        )
        toft = CommandLine(tmp_path / "home", tmp_path)
        try:
            joined = toft("join", central.url, "--wait", "60", "--json", stdin=central.join_token()).value
            assert joined["outcome"] == "confirmed"
            path = f"nodes/{joined['node_id']}/telemetry"

            def told(what: str) -> list[Any]:
                found = central.admin("GET", f"{path}/{what}", most=1000)
                assert not found["more"]
                return [each["row"] for each in found["rows"]]

            eventually(lambda: [each for each in told("logs") if "'ready'" in each["text"]], within_s=60)
            eventually(lambda: told("metrics"), within_s=60)
            sample = told("metrics")[0]
            assert sample["memory_total_bytes"] > sample["memory_used_bytes"] > 0
            status = toft("status", "--json").value
            shown = toft("config", "show", "--json").value["telemetry"]
            assert (shown["problem"], shown["signals"]["logs"]["dropped"]) == (None, 0)
            assert shown["signals"]["logs"]["sent"] >= 1
            os.kill(status["pid"], signal.SIGKILL)
            toft("up", "--detach")
            starts = [each for each in told("logs") if "'ready'" in each["text"]]
            eventually(
                lambda: sum("'ready'" in each["text"] for each in told("logs")) > len(starts), within_s=60
            )
            logged = (tmp_path / "home" / "logs" / "daemon.log").read_text()
            for each in told("logs"):
                line = f"timestamp='{each['at']}' level='{each['level']}' {each['text']}"
                assert logged.count(line) == 1, line
            lines = [(each["at"], each["text"]) for each in told("logs")]
            assert len(lines) == len(set(lines)), "each once"
        finally:
            toft("down", "--now")
            daemons.reap()


def test_samples_become_columns_in_the_order_of_their_moments(central: Central) -> None:
    agent = Agent(central).join()
    said = [
        {"at": "2026-11-27T12:02:00Z", "cpu_percent": 3, "lanes": None},
        {"at": "2026-11-27T12:00:00Z", "cpu_percent": 1.5, "lanes": True},
        {"at": "2026-11-27T12:01:00Z", "lanes": "x", "large": 10**300},
        {"at": "no moment", "cpu_percent": 9},
        {"cpu_percent": 9},
        {"at": 7},
    ]
    assert send(agent, chunk(*said), signal="metrics").status == 202
    path = f"nodes/{agent.node_id}/samples"
    found = central.admin("GET", path)
    assert [each - found["at"][0] for each in found["at"]] == [0, 60, 120]
    assert found["step_s"] == 60
    assert found["series"] == {"cpu_percent": [1.5, None, 3]}
    later = central.admin("GET", path, **{"from": "2026-11-27T12:01:00Z"})
    assert len(later["at"]) == 2
    assert central.try_admin("GET", path, **{"from": "x"}).status == 400
    assert central.admin("GET", f"nodes/{Agent(central).join().node_id}/samples")["at"] == []


def test_commands_show_what_came_and_say_why_nothing_did(central: Central) -> None:
    commands, agent = Commands(central), Agent(central).join()
    nothing = commands("node", "logs", agent.node_id)
    assert (nothing.status, nothing.out) == (0, ""), nothing
    assert "[telemetry]" in nothing.err
    assert commands("node", "metrics", agent.node_id, "--json").value == {"rows": [], "more": False}
    said = [
        {"at": "2026-11-27T12:00:00Z", "level": "info", "text": "event='ready'"},
        {"at": "2026-11-27T12:00:01Z", "level": "error", "text": "red \x1b[31m\nand more"},
        {"odd": "\x1b", "at": ["\x1b"]},
    ]
    assert send(agent, chunk(*said)).status == 202
    text = commands.text("node", "logs", agent.node_id)
    assert text.splitlines()[0] == "2026-11-27T12:00:00Z        info    event='ready'"
    assert "red \\x1b[31m\nand more\n" in text
    assert "\x1b" not in text, "nothing drives a terminal"
    exact = commands("node", "logs", agent.node_id, "--json").value
    assert [each["row"] for each in exact["rows"]] == said
    assert "ready" not in commands.text("node", "logs", agent.node_id, "--level", "error")
    lower = Agent(central).join()
    assert send(lower, chunk(said[0])).status == 202
    assert "no line here is of level error" in commands.text(
        "node", "logs", lower.node_id, "--level", "error"
    )
    assert commands.text("node", "logs", agent.node_id, "-n", "1").startswith("['\\x1b']")
    refused = commands("node", "logs", agent.node_id, "--level", "loud")
    assert refused.status == 2
    assert "debug, info, warning, error" in refused.err
    assert commands("node", "logs", "nobody").status != 0
    samples = [
        {
            "at": "2026-11-27T12:00:00Z",
            "cpu_percent": 12.4,
            "memory_used_bytes": 2 * 10**9,
            "memory_total_bytes": 8 * 10**9,
            "lanes_busy": 1,
            "lanes": 4,
            "queue_pending": 10**400,
            "gpu0_used_bytes": 10**9,
        },
        {"at": "\x1b", "cpu_percent": "\x1b", "gpu1_used_bytes": None},
    ]
    assert send(agent, chunk(*samples), signal="metrics").status == 202
    table = commands.text("node", "metrics", agent.node_id)
    assert "12 %" in table
    assert "2.0 GB of 8.0 GB" in table
    assert "1/4" in table
    assert "1.0 GB of ?" in table
    assert "\x1b" not in table


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_who_follows_goes_on_over_a_restart_of_the_central_until_ctrl_c(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    with centrals.running(tmp_path) as central:
        central.save({})
        agent = Agent(central).join()
        assert send(agent, chunk({"text": "first"}, {"text": "second"})).status == 202
        asked = ("--url", central.url, "--token-file", str(central.token_file), "central", "node", "logs")
        command = CommandLine(tmp_path / "unused", tmp_path, {"TOFT_HOME": ""})
        following = command.start(*asked, agent.node_id, "-n", "1", "--follow", *more)
        assert following.stdout is not None
        assert "second" in following.stdout.readline()
        central.kill()
        central.start()
        assert send(agent, chunk({"text": "third"}), 1).status == 202
        assert "third" in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=60)
        assert following.returncode == 130, said
        assert "Traceback" not in said
