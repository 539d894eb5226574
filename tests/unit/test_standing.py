"""How a node stands, from its files alone; which layer of its configuration wins; what has drifted."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from toft.cli import config_lines
from toft.kernel import settings
from toft.kernel.errors import NotFoundError
from toft.managed import console, document, generations, joining, layering, phases, standing
from toft.managed.moments import Moment
from toft.managed.phases import Severity
from toft.plugins.manifests import manifest
from toft.plugins.manifests.registry import Registry
from toft.web import rendering


def home_with(directory: Path, *values: dict[str, object]) -> Path:
    """Give a home whose documents were each proven, the last one being active."""
    engine = generations.Generations.at(directory)
    for number, value in enumerate(values):
        engine.boot(f"before-{number}")
        data = document.encode({"schema_version": 1, **value})
        engine.commit(generations.offer(data, source="a \x1b[31mtest\n"), "another")
        assert engine.confirm(engine.boot(f"after-{number}"))
    return directory


def local(directory: Path, environ: dict[str, str], **given: object) -> layering.Local:
    (directory / "settings.toml").write_text("lanes = 7\nqueue_limit = 9\n")
    chosen = settings.read(environ, directory=directory, home=directory, **given)
    return layering.Local.of(environ, chosen, directory)


def test_a_node_that_never_joined_and_has_no_document_has_nothing_to_tell(tmp_path: Path) -> None:
    found = standing.describe(tmp_path)
    assert not standing.is_managed(found)
    assert (found["standing"], found["exit_code"]) == ("healthy", 0)
    assert not (tmp_path / "managed").exists(), "looking makes nothing"


def test_a_way_back_is_told_until_somebody_takes_note(tmp_path: Path) -> None:
    home = home_with(tmp_path, {"x-n": 1}, {"x-n": 2})
    engine = generations.Generations.at(home)
    engine.revert("health_failed", Severity.PERMANENT, "ocr \x1b]0;pwned\x07 is red")
    found = standing.describe(home)
    assert (found["standing"], found["exit_code"], found["rollbacks"]) == (
        "rolled_back",
        4,
        {"health_failed": 1},
    )
    assert found["diagnostics"][0]["code"] == "config_rolled_back"
    assert found["rolled_back"]["detail"] == "ocr \x1b]0;pwned\x07 is red", "exact in JSON"
    text = "\n".join(config_lines.of(found))
    assert "toft config ack" in text
    assert not any(ord(letter) < 32 and letter != "\n" for letter in text), "stripped for terminals"
    engine.record(phases.acknowledged)
    assert standing.describe(home)["exit_code"] == 0
    engine.revert("health_failed", Severity.PERMANENT, "")
    engine.record(lambda state: phases.pinned(state, ""))
    assert standing.describe(home)["exit_code"] == 0, "unpin takes note too"


@pytest.mark.parametrize("garbage", [b"", b"{", b"null", b"[1]", b"\xff" * 30, b"[" * 100_000])
@pytest.mark.parametrize(
    "name", ["journal.json", "active", "slot-b/meta.json", "seed.json", "enrollment.json"]
)
def test_nothing_in_the_files_makes_it_fail(tmp_path: Path, name: str, garbage: bytes) -> None:
    home = home_with(tmp_path, {"x-n": 1})
    path = home / "managed" / name
    path.unlink(missing_ok=True)
    path.write_bytes(garbage)
    found = standing.describe(home)
    json.dumps(found)
    if garbage and name != "active":
        assert found["problems"], "told as a diagnostic"
        assert found["exit_code"] in (1, 3)
    assert list(config_lines.of(found)) is not None


def test_a_join_that_waits_for_its_first_answer_is_not_enrolled(tmp_path: Path) -> None:
    seed = joining.Seed(url="https://c.example", token="jt_secret")
    generations.Generations.at(tmp_path).reset(seed.to_value("once"))
    found = standing.describe(tmp_path)
    assert (found["standing"], found["exit_code"]) == ("not_enrolled", 3)
    assert found["control_url"] == "https://c.example"
    assert "jt_secret" not in json.dumps(found)
    assert "central     https://c.example does not know this node yet" in config_lines.of(found)


def test_a_red_gate_that_counts_and_polls_that_fail_degrade_a_node(tmp_path: Path) -> None:
    found = standing.describe(home_with(tmp_path, {"x-n": 1}))
    gate = {"name": "a", "kind": "tcp", "required": True, "counts": True, "state": "red"}
    assert standing.with_live(found, {"gates": [gate]})["exit_code"] == 1
    assert standing.with_live(found, {"gates": [{**gate, "counts": False}]})["exit_code"] == 0
    assert standing.with_live(found, {"consecutive_failures": 2})["exit_code"] == 0
    assert standing.with_live(found, {"consecutive_failures": 3})["exit_code"] == 1
    elsewhere = standing.with_live(found, {"central": "withheld"})
    assert elsewhere["exit_code"] == 1
    assert "rollback" in elsewhere["diagnostics"][0]["hint"], "and nobody is told to leave"
    for word in ("revoked", "refused"):
        out = standing.with_live(found, {"central": word})
        assert out["exit_code"] == 1
        assert [(each["code"], "toft join" in each["hint"]) for each in out["diagnostics"]] == [
            (f"config_{word}", True)
        ], "with what to do about it"


def test_a_node_that_waits_for_approval_has_not_joined_yet_and_says_who_lets_it_in(tmp_path: Path) -> None:
    found = standing.with_live(
        {**standing.describe(tmp_path), "node_id": "node_1"}, {"central": "pending_approval"}
    )
    assert (found["standing"], found["exit_code"]) == ("not_enrolled", 3)
    (told,) = found["diagnostics"]
    assert (told["code"], told["hint"]) == ("config_pending", "there: toft central node approve node_1")


LIVE: dict[str, Any] = {
    "central": "revoked",
    "last_poll": {
        "at": "2026-11-27T05:00:00Z",
        "code": 403,
        "latency_ms": 41.2,
        "problem": "this node is no longer welcome \x1b[2J",
        "hint": None,
    },
    "next_poll_in_s": 61.5,
    "consecutive_failures": 1,
    "clock_skew_s": -300.0,
    "telemetry": {
        "signals": {
            "logs": {"sent": 1200, "dropped": 3, "last_at": "2026-11-27T05:00:00Z"},
            "metrics": {"sent": 0, "dropped": 0, "last_at": None},
        },
        "problem": "https://c.example answers 503",
    },
}


def thrown_out(home: Path) -> dict[str, Any]:
    """A node with code, a signature and a central, all of which were written by somebody else."""
    engine = generations.Generations.at(home)
    engine.reset({"control_urls": ["https://c.example/\x1b[31m"], "token": "jt_x"})
    engine.boot("one")
    code = {
        "name": "ocr\x1b[1m",
        "version": "1.2",
        "sha256": "ab" * 32,
        "tree": "t",
        "tree_sha256": "cd" * 32,
    }
    data = document.encode({"schema_version": 1})
    engine.commit(
        generations.offer(data, source="c", artifacts=(code,), key_ids=("0123456789abcdef",)), "two"
    )
    return standing.with_live(standing.describe(home), LIVE)


def test_the_text_tells_all_that_status_knows_of_code_polls_and_the_central(tmp_path: Path) -> None:
    found = thrown_out(tmp_path)
    lines = list(config_lines.of(found))
    told = {line[:12].strip(): line[12:] for line in lines if line[:12].strip()}
    assert told["stands"] == "not enrolled"
    assert told["signed by"] == "0123456789abcdef"
    assert told["code"] == f"ocr\\x1b[1m 1.2 {'ab' * 32}"
    assert lines[[line[:7] for line in lines].index("central") + 1].strip() == "revoked"
    assert told["last poll"] == "2026-11-27T05:00:00Z: 403, 41.2 ms"
    assert told["next poll"] == "in 61.5 s"
    assert told["clock skew"] == "5.0 min ahead of the central"
    assert told["logs"] == "1200 rows sent, the last at 2026-11-27T05:00:00Z, 3 refused for good"
    assert told["metrics"] == "no rows sent"
    assert "answers 503" in lines[-1]
    assert not any(ord(letter) < 32 for line in lines for letter in line), "stripped for terminals"
    later = {**found, "clock_skew_s": 90.0, "signature": {"key_ids": [], "verified": False}}
    assert "clock skew  90.0 s behind the central" in config_lines.of(later)
    assert "signed by   nobody" in config_lines.of(later)
    assert "clock skew  none" in config_lines.of({**found, "clock_skew_s": -0.9})
    assert found["artifacts"][0]["name"] == "ocr\x1b[1m", "exact in JSON"
    assert list(config_lines.of(standing.describe(tmp_path / "unused"))) == ["phase       idle"]


def test_the_page_tells_the_same(tmp_path: Path) -> None:
    found = thrown_out(tmp_path)
    given = {"difference": [], "drift": [], "may_change": False}
    html = rendering.part("configuration.body.html", found=found, **given)
    rows = dict(re.findall(r"<dt>([^<]*)</dt><dd[^>]*>(.*?)</dd>", html))
    text = {name: re.sub(r"<[^>]*>", "", row) for name, row in rows.items()}
    assert text["signed by"] == "0123456789abcdef"
    assert text["stands"] == "revoked"
    assert "state-failed" in rows["stands"]
    assert (text["last answer"], text["next poll"]) == ("403", "61.5 s")
    assert 'datetime="2026-11-27T05:00:00Z"' in rows["last poll"]
    assert text["last poll"].endswith(", 41 ms")
    assert text["clock skew"] == "5.0 min ahead of the central"
    assert (text["logs sent"], text["metrics sent"]) == ("1200 rows, 3 refused", "no rows")
    assert "https://c.example answers 503" in html
    assert re.search(r"<bdi>ocr\\x1b\[1m</bdi></td><td><bdi>1.2</bdi></td><td [^>]*>abababababab<", html)
    assert "\x1b" not in html
    fresh = rendering.part(
        "configuration.body.html", found={**standing.describe(tmp_path), "artifacts": [{}]}, **given
    )
    assert "unknown" in fresh, "nothing is known of the central before a daemon asks it"


def test_it_is_explained_which_layer_wins(tmp_path: Path) -> None:
    home = home_with(tmp_path, {"settings": {"lanes": 3}, "health": {"settle_s": 5}})
    desk = console.Console(home, local(home, {"TOFT_OFFLINE": "1"}, jobs_keep_count=5))
    lanes = desk.explain("lanes")
    assert (lanes["won"], lanes["value"]) == ("document", 3)
    assert [(each["layer"], each["value"]) for each in lanes["layers"]] == [
        ("document", 3),
        ("file", 7),
        ("default", 0),
    ]
    assert lanes["layers"][1]["where"] == str(home / "settings.toml")
    assert desk.explain("settings.queue_limit")["won"] == "file"
    assert desk.explain("offline")["layers"][0] == {
        "layer": "environment",
        "where": "TOFT_OFFLINE",
        "value": True,
    }
    assert desk.explain("jobs_keep_count")["won"] == "caller"
    assert desk.explain("drain_s")["won"] == "default"
    assert desk.explain("health.settle_s")["won"] == "document"
    assert desk.explain("control.poll_interval_s") == {
        "key": "control.poll_interval_s",
        "won": "default",
        "value": 300,
        "layers": [{"layer": "default", "where": "", "value": 300}],
    }
    for unknown in ("lames", "health.settle", "", ".", "control.urls.0.x", "x" * 10_000):
        with pytest.raises(NotFoundError) as caught:
            desk.explain(unknown)
        assert len(caught.value.message) < 400


def test_what_nobody_is_to_read_is_shown_as_set(tmp_path: Path) -> None:
    token = {"sha256": "ab" * 32, "scopes": ["read"]}
    value = {
        "access": {"tokens": {"ci": token}},
        "instances": {"ocr": {"secrets": {"KEY": "store:ocr-key"}}},
    }
    home = home_with(tmp_path, value)
    desk = console.Console(home, local(home, {}))
    shown = desk.effective()
    text = json.dumps(shown)
    assert "abab" not in text
    assert "ocr-key" not in text
    assert shown["body"]["instances"]["ocr"]["secrets"] == {"KEY": "<set>"}
    assert shown["body"]["settings"]["lanes"] == 7
    assert desk.effective()["sha256"] == shown["sha256"]


_SECRET = {"type": "string", "format": "password"}
_SCHEMA = {
    "type": "object",
    "properties": {
        "login": _SECRET,
        "pin": {"type": "integer", "writeOnly": True},
        "host": {"type": "string"},
        "maybe": {"anyOf": [_SECRET, {"type": "null"}]},
        "list": {"type": "array", "items": {"$ref": "#/$defs/place"}},
        "map": {"type": "object", "additionalProperties": _SECRET},
        "round": {"$ref": "#/properties/round"},
    },
    "$defs": {"place": {"type": "object", "properties": {"key": _SECRET, "at": {"type": "string"}}}},
}


def test_what_a_plugin_says_is_secret_is_shown_as_set_wherever_it_stands(tmp_path: Path) -> None:
    told = {"name": "ocr", "version": "1", "description": "Reads.", "module": "m", "class": "C"}
    told |= {"interface": "toft_sdk.Plugin", "config_schema": _SCHEMA}
    Registry(tmp_path).write(
        manifest.from_description(told, manifest.Install("/env/bin/python"), manifest.Runtime())
    )
    config = {
        "login": "hunter2",
        "pin": 4711,
        "host": "seen",
        "maybe": "hunter2",
        "list": [{"key": "hunter2", "at": "seen"}],
        "map": {"a": "hunter2"},
        "round": "hunter2",
        "nowhere": "seen",
    }
    instances = {"ocr": {"config": config}, "other": {"plugin": "ocr", "config": config}}
    home = home_with(tmp_path, {"instances": {**instances, "gone": {"plugin": "gone", "config": config}}})
    desk = console.Console(home, local(home, {}))
    shown = desk.effective()["body"]["instances"]
    hidden = {
        "login": "<set>",
        "pin": "<set>",
        "host": "seen",
        "maybe": "<set>",
        "list": [{"key": "<set>", "at": "seen"}],
        "map": {"a": "<set>"},
        "round": "<set>",
        "nowhere": "seen",
    }
    assert shown["ocr"]["config"] == shown["other"]["config"] == hidden
    assert shown["gone"]["config"] == config, "nobody can know what a plugin that is not here calls secret"
    assert desk.explain("instances.other.config.login")["value"] == "<set>"
    assert json.loads(desk.redacted(desk.document()))["instances"]["ocr"]["config"] == hidden


def test_drift_is_what_was_edited_dropped_or_changed(tmp_path: Path) -> None:
    home = home_with(tmp_path, {"settings": {"lanes": 3}})
    desk = console.Console(home, local(home, {}))
    (dropped,) = desk.drift()
    assert (dropped["kind"], dropped["key"]) == ("override", "settings.lanes")
    assert "7" in dropped["detail"]
    assert desk.describe()["overrides"][0]["value"] == 7
    slot = home / "managed" / f"slot-{desk.read().active}"
    (slot / "document").write_bytes(b'{"schema_version":1,"settings":{"lanes":99}}')
    kinds = [(each["kind"], each["key"]) for each in desk.drift()]
    assert ("file", "slot b") in kinds


def test_a_damaged_document_to_go_back_to_is_drift_too(tmp_path: Path) -> None:
    home = home_with(tmp_path, {})
    desk = console.Console(home, local(home, {}))
    assert [each for each in desk.drift() if each["kind"] == "file"] == []
    (home / "managed" / "slot-a" / "document").write_bytes(b"{}")
    assert [each["key"] for each in desk.drift() if each["kind"] == "file"] == ["slot a"]


def test_the_events_of_a_boot_are_told_once(tmp_path: Path) -> None:
    engine = generations.Generations(tmp_path / "managed", lambda: Moment("m", 1.0, 1.0))
    engine.boot("one")
    for number in range(12):
        data = document.encode({"schema_version": 1, "x-n": number})
        engine.commit(generations.offer(data), "another")
        boot = engine.boot("two")
        assert boot.events == (), "a start of a trial is no event"
        engine.revert("health_failed", Severity.PERMANENT)
        assert engine.boot("three").events == ()
    data = document.encode({"schema_version": 1, "x-n": 99})
    engine.commit(generations.offer(data), "another")
    for number in range(phases.MOST_BOOTS):
        assert engine.boot(f"crash-{number}").events == ()
    boot = engine.boot("last")
    assert [(each.event, each.reason) for each in boot.events] == [("rolled_back", "crash_loop")]
    adopted = engine.adopt("last")
    assert adopted
    assert adopted.events == boot.events, "the daemon behind a guard hears of it"
