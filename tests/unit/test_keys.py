"""`toft key`: keys as files, signatures of several people, and trust roots that follow on each other."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toft.cli import app
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.managed import document, keys, messages, signatures
from toft.managed.signatures import PrivateKey, Root

Run = Callable[..., tuple[int, Any]]
TOML = "schema_version = 1\nrevision = 7\n[settings]\nlanes = 2\n"


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, Any]:
        out, err = io.StringIO(), io.StringIO()
        status = app.run(["key", *arguments, "--json"], Session(Terminal(out, err), environ={}))
        return status, json.loads(out.getvalue()) if status == 0 else json.loads(err.getvalue())["error"]

    return run


def test_a_new_key_is_a_file_for_nobody_else_and_shows_its_public_half(key: Run, tmp_path: Path) -> None:
    status, made = key("new", "mine.pem")
    assert (status, set(made)) == (0, {"key_id", "public_key"})
    path = tmp_path / "mine.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    private = PrivateKey.of_pem(path.read_bytes())
    assert private.public.text == made["public_key"]
    assert private.text not in json.dumps(made)
    before = path.read_bytes()
    assert key("new", "mine.pem")[1]["code"] == "signature.key_exists"
    assert path.read_bytes() == before
    (tmp_path / "mine.pub").write_text(made["public_key"] + "\n")
    for word in ("mine.pem", "mine.pub", made["public_key"]):
        assert key("show", word) == (0, made)
    for word in ("nothing.pem", made["key_id"]):
        assert key("show", word)[1]["code"] == "signature.bad_key"


def test_a_key_can_be_locked(key: Run, tmp_path: Path) -> None:
    for name, text in (("right", "correct horse\n"), ("wrong", "x"), ("empty", "\n")):
        (tmp_path / name).write_text(text)
    assert key("new", "mine.pem", "--passphrase-file", "right")[0] == 0
    assert b"ENCRYPTED" in (tmp_path / "mine.pem").read_bytes()
    assert key("show", "mine.pem", "--passphrase-file", "right")[0] == 0
    assert key("show", "mine.pem", "--passphrase-file", "empty")[0] == 2
    assert "--passphrase-file" in key("show", "mine.pem")[1]["hint"], "what it lacks is named"
    for more in ((), ("--passphrase-file", "wrong")):
        assert key("show", "mine.pem", *more)[1]["code"] == "signature.bad_key"


def test_several_people_sign_one_document_into_one_file(key: Run, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(TOML)
    public = [key("new", f"{each}.pem")[1]["key_id"] for each in "ab"]
    status, told = key("sign", "node.toml", "--key", "a.pem", "--make", "node.json")
    assert (status, told["signatures"], told["signed_by"]) == (0, "node.json.sigs", public[:1])
    data = (tmp_path / "node.json").read_bytes()
    assert data == document.author(TOML.encode(), "node.toml").data
    assert key("sign", "node.json", "--key", "b.pem")[1]["signed_by"] == public
    assert key("sign", "node.json", "--key", "a.pem")[1]["signed_by"] == public[::-1]
    root = Root.of(1, 2, [keys.public_of(f"{each}.pem") for each in "ab"])
    found = keys.read_signatures(tmp_path / "node.json.sigs")
    assert signatures.verify(signatures.DOCUMENT_TYPE, data, found, root) == tuple(sorted(public))
    # What a person wrote stays as it is, also when the same name is given twice.
    assert (
        key("sign", "node.toml", "--key", "a.pem", "--make", "./node.toml")[1]["code"]
        == "request.command_line"
    )
    assert (tmp_path / "node.toml").read_text() == TOML
    # What no node would take, nobody signs by mistake.
    assert key("sign", "node.toml", "--key", "a.pem")[1]["code"] == "document.invalid"
    (tmp_path / "bad.json").write_text('{"schema_version": 9}')
    assert key("sign", "bad.json", "--key", "a.pem")[1]["code"] == "document.invalid"
    (tmp_path / "node.json.sigs").write_text("{")
    assert key("sign", "node.json", "--key", "a.pem")[1]["code"] == "message.invalid"


def test_trust_roots_follow_on_each_other(key: Run, tmp_path: Path) -> None:
    for each in "abc":
        key("new", f"{each}.pem")
    status, told = key("root", "new", "1.json", "--key", "a.pem", "--key", "b.pem", "--threshold", "2")
    assert (status, told["root"]["version"], told["missing"]) == (0, 1, 2)
    assert key("root", "sign", "1.json", "--key", "a.pem")[1]["missing"] == 1
    assert key("root", "sign", "1.json", "--key", "c.pem")[1]["missing"] == 1
    assert key("root", "sign", "1.json", "--key", "b.pem")[1]["missing"] == 0
    told = key("root", "new", "2.json", "--key", "c.pem", "--after", "1.json")[1]
    assert (told["root"]["version"], told["missing"]) == (2, 1)
    for each in "abc":
        key("root", "sign", "2.json", "--key", f"{each}.pem")
    first, later = keys.read_root(tmp_path / "1.json")[0], keys.read_root(tmp_path / "2.json")[1]
    assert signatures.follow(first, [later]).version == 2
    assert key("root", "show", "2.json")[1]["signed_by"] == [
        keys.public_of(f"{each}.pem").key_id for each in "abc"
    ]
    # A node takes the file as it is, and so does a central.
    assert signatures.read_key((tmp_path / "1.json").read_text()) == first
    assert messages.read_roots({"roots": [json.loads((tmp_path / "1.json").read_bytes())]})


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("root", "new", "r.json", "--key", "a.pem", "--threshold", "2"), "signature.bad_key"),
        (("root", "new", "r.json", "--key", "nonsense"), "signature.bad_key"),
        (("root", "new", "a.pem", "--key", "a.pem"), "request.command_line"),
        (("root", "new", "r.json", "--key", "a.pem", "--after", "a.pem"), "message.invalid"),
        (("root", "new", "r.json", "--key", "a.pem", "--after", "list.json"), "message.invalid"),
        (("root", "sign", "none.json", "--key", "a.pem"), "os.enoent"),
        (("root", "show", "long"), "signature.bad_key"),
        (("root", "show", "half.json"), "message.invalid"),
        (("new", "no/such/directory/key"), "os.enoent"),
        (("sign", "none.json", "--key", "a.pem"), "request.document"),
    ],
)
def test_what_is_no_key_and_no_root_is_refused(
    key: Run, tmp_path: Path, arguments: tuple[str, ...], code: str
) -> None:
    key("new", "a.pem")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "half.json").write_text('{"root": "!"}')
    (tmp_path / "long").write_bytes(b" " * (keys.MAX_FILE_BYTES + 1))
    status, error = key(*arguments)
    assert (status > 0, error["code"]) == (True, code)
    named = {
        each for each in arguments if each in error["message"] or each.partition(".")[0] in error["message"]
    }
    assert named or "threshold" in error["message"], "what is wrong is named"
    assert "central" not in error["hint"]
    assert not (tmp_path / "r.json").exists()
