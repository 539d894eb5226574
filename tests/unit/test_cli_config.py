"""`toft config`: each verb as a person types it, on the documents of a home here and of a node there."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli_node import Told

from toft.cli import app
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.kernel import settings
from toft.kernel.errors import ConflictError
from toft.managed import console, document, generations, layering, staging
from toft.managed.phases import Severity

Run = Callable[..., Told]
BEFORE = {"schema_version": 1, "settings": {"lanes": 2}, "x-note": "a \u202e \x1b[31mnote"}
RUNNING = {
    "schema_version": 1,
    "settings": {"lanes": 3},
    "health": {"settle_s": 5},
    "instances": {"ocr": {"secrets": {"KEY": "store:ocr-key"}}},
}


class There:
    """What a node elsewhere answers: what its own door says, under the names that its client has."""

    def __init__(self, desk: console.Console) -> None:
        self.desk = desk
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self.desk, name)

    def text(self, which: str) -> Any:
        self.asked.append("text")
        return json.loads(self.desk.document(which))

    def unpin(self) -> None:
        self.asked.append("unpin")
        self.desk.pin("")


class Elsewhere(Session):
    """The session of a command line that names a URL; nothing is sent anywhere."""

    there: There

    @contextlib.contextmanager
    def _opened(self, **options: Any) -> Iterator[Any]:
        yield type("Node", (), {"documents": self.there})()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    engine = generations.Generations.at(home)
    for number, value in enumerate((BEFORE, RUNNING)):
        engine.boot(f"before-{number}")
        engine.commit(generations.offer(document.encode(value), source="a test"), "another")
        assert engine.confirm(engine.boot(f"after-{number}"))
    (home / "settings.toml").write_text("lanes = 7\n")
    return home


@pytest.fixture(params=["here", "there"])
def toft(request: pytest.FixtureRequest, home: Path) -> Run:
    local = {"TOFT_HOME": str(home)}
    chosen = settings.read(local)
    there = There(console.Console(home, layering.Local.of(local, chosen)))

    def run(*arguments: str) -> Told:
        out, err = io.StringIO(), io.StringIO()
        if request.param == "here":
            session = Session(Terminal(out, err, {}), environ=local)
        else:
            session = Elsewhere(Terminal(out, err, {}), environ={"TOFT_URL": "http://127.0.0.1:9"})
            session.there = there
        status = app.run(("config", *arguments), session)
        if request.param == "there" and status == 0 and arguments[0] != "validate":
            assert there.asked, "the node was asked, not the files here"
        return Told(status, out.getvalue(), err.getvalue())

    return run


def error_of(told: Told) -> dict[str, Any]:
    assert told.status != 0
    found: dict[str, Any] = json.loads(told.err)["error"]
    return found


def test_explain_tells_who_wins_and_who_was_dropped(toft: Run, home: Path) -> None:
    told = toft("explain", "lanes")
    assert (told.status, told.err) == (0, "")
    first, *layers = told.out.splitlines()
    assert first == "settings.lanes = 3"
    assert [line.split()[:3] for line in layers] == [
        ["document", "wins", "3"],
        ["file", "dropped", "7"],
        ["default", "otherwise", "0"],
    ]
    assert str(home / "settings.toml") in layers[1]
    value = json.loads(toft("explain", "health.settle_s", "--json").out)
    assert (value["won"], value["value"]) == ("document", 5)
    assert "store:ocr-key" not in toft("explain", "instances.ocr").out
    unknown = error_of(toft("explain", "lanse\x1b[2J", "--json"))
    assert unknown["code"] == "configuration.unknown_key"
    assert "\x1b" not in toft("explain", "lanse\x1b[2J").err


def test_drift_fails_for_what_was_edited_and_not_for_what_was_dropped(toft: Run, home: Path) -> None:
    told = toft("drift")
    assert told.status == 0, "that a document wins is no fault of this machine"
    assert told.out.splitlines()[1].split()[:2] == ["override", "settings.lanes"]
    slot = (home / "managed" / "active").readlink().name
    (home / "managed" / slot / "document").write_bytes(b'{"schema_version":1,"settings":{"lanes":99}}')
    edited = toft("drift", "--json")
    assert edited.status == 1
    assert "file" in {each["kind"] for each in json.loads(edited.out)}
    assert toft("drift").status == 1


def test_a_machine_that_is_what_its_document_says_has_no_drift(toft: Run, home: Path) -> None:
    (home / "settings.toml").unlink()
    told = toft("drift", "--json")
    if json.loads(told.out):  # the door of a node reads its settings once
        assert {each["kind"] for each in json.loads(told.out)} == {"override"}
    else:
        assert "is what its document says" in toft("drift").err
    assert told.status == 0


def test_pin_takes_nothing_new_from_a_central_until_unpin_and_ack_takes_note(toft: Run, home: Path) -> None:
    engine = generations.Generations.at(home)
    offered = document.parse(document.encode({**RUNNING, "settings": {"lanes": 4}}))

    def offer() -> None:
        asyncio.run(staging.stage(engine, offered, nonce="a central", source="https://c.example"))

    told = toft("pin", "--reason", "a fair \x1b[31m")
    assert (told.status, told.out) == (0, "")
    assert "pinned: a fair" in told.err
    assert "\x1b" not in told.err
    with pytest.raises(ConflictError) as caught:
        offer()
    assert (caught.value.code, caught.value.hint) == ("generation.pinned", "toft config unpin")
    shown = toft("show")
    assert "a fair" in shown.out
    assert "\x1b" not in shown.out
    assert json.loads(toft("show", "--json").out)["pinned"] == "a fair \x1b[31m", "exact in JSON"
    assert toft("unpin").err.strip() == "new documents are taken"
    assert json.loads(toft("show", "--json").out)["pinned"] is None

    engine.revert("health_failed", Severity.PERMANENT, "red \x1b[2J")
    before = toft("show")
    assert "went back" in before.out
    assert "toft config ack" in before.err
    assert "\x1b" not in before.out + before.err
    assert json.loads(toft("show", "--json").out)["exit_code"] == 4
    assert toft("ack").status == 0
    after = json.loads(toft("show", "--json").out)
    assert (after["exit_code"], after["acknowledged"]) == (0, True)
    history = toft("history").out
    assert "health_failed" in history
    assert "\x1b" not in history
    assert json.loads(toft("history", "--json").out)[-1]["detail"] == "red \x1b[2J"


def test_show_prints_the_document_and_all_layers_without_secrets(toft: Run) -> None:
    assert json.loads(toft("show", "--document").out) == RUNNING
    told = toft("show", "--effective")
    body = json.loads(told.out)
    assert (body["settings"]["lanes"], body["health"]) == (3, {"settle_s": 5})
    assert "store:ocr-key" not in told.out
    named = json.loads(toft("show", "--effective", "--json").out)
    assert named["body"] == body
    assert len(named["sha256"]) == 64


def test_diff_compares_with_the_one_before_and_with_files(toft: Run, tmp_path: Path) -> None:
    told = toft("diff", "--against", "lkg")
    assert told.status == 0
    lines = told.out.splitlines()
    assert lines[:2] == ["--- before", "+++ running"]
    assert '-    "lanes": 2' in lines
    assert '+    "lanes": 3' in lines
    assert "\x1b" not in told.out
    assert "\u202e" not in told.out
    assert toft("diff").out == told.out, "the one before is what is meant"

    file = tmp_path / "next.toml"
    file.write_text("schema_version = 1\n[settings]\nlanes = 9\n")
    against = toft("diff", "--against", str(file))
    assert against.out.splitlines()[:2] == ["--- running", f"+++ {file}"]
    assert '+    "lanes": 9' in against.out.splitlines()
    assert toft("diff", str(file)).out == against.out
    same_file = tmp_path / "same.json"
    same_file.write_text(json.dumps(RUNNING))
    same = toft("diff", str(same_file))
    assert (same.status, same.out) == (0, "")
    assert toft("diff", "--against", "yesterday").status == 2
    file.write_text("lanes = [")
    assert toft("diff", str(file)).status == 2


def test_validate_says_all_that_is_wrong_and_changes_nothing(toft: Run, home: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(home.rglob("*"))}
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(RUNNING))
    told = toft("validate", str(good))
    assert (told.status, told.out) == (0, "")
    assert told.err.strip() == f"{good}: no problems"
    bad.write_text(json.dumps({"schema_version": 1, "settings": {"lanes": "many"}, "\x1b[2Jx": 1}))
    told = toft("validate", str(bad))
    assert told.status == 1
    assert "settings.lanes: " in told.out
    assert told.err.strip() == f"{bad}: 2 problems"
    found = toft("validate", str(bad), "--json")
    assert found.status == 1
    assert [each["path"] for each in json.loads(found.out)["problems"]].count("settings.lanes") == 1
    bad.write_text(json.dumps({"schema_version": 1, "routes": {"web": {}}}))
    assert "routes" in toft("validate", str(bad)).err, "right, and not served here"
    assert toft("validate", str(tmp_path / "none.toml")).status != 0
    assert {path: path.stat().st_mtime_ns for path in sorted(home.rglob("*"))} == before
