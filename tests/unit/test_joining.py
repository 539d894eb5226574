"""Joining and leaving by the words of a person: whence a token may come, and what is refused."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toft.cli import app
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.kernel.errors import ConflictError, NodeError
from toft.managed import belonging, generations, identity, joining, messages, moments, protocol, signatures
from toft.managed.identity import Identity
from toft.managed.signatures import DOCUMENT_TYPE, PrivateKey, Root

URL = "https://central.example"
TOKEN = "jt_abcd1234_" + "b" * 43
OTHER_TOKEN = "jt_abcd1234_" + "c" * 43
KEY = PrivateKey(bytes([7]) * 32)
ANY = object()
NODE = "node_01ARZ3NDEKTSV4RRFFQ69G5FAV"


class _Person(io.StringIO):
    def isatty(self) -> bool:
        return True


class Node:
    """A home, and the command line for it in this process."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.home = path / "home"
        self.managed = self.home / "managed"
        self._patch = patch

    def __call__(self, *arguments: str, stdin: io.StringIO | None = None, **environ: str) -> tuple[int, Any]:
        out, err = io.StringIO(), io.StringIO()
        self._patch.setattr(sys, "stdin", stdin or _Person())
        session = Session(Terminal(out, err), environ={"TOFT_HOME": str(self.home), **environ})
        status = app.run([*arguments, "--json"], session)
        text = out.getvalue() if status == 0 else err.getvalue()
        assert TOKEN not in out.getvalue() + err.getvalue()
        value = json.loads(text)
        return status, value if status == 0 else value["error"]

    def join(self, *arguments: str, **more: Any) -> tuple[int, Any]:
        return self("join", *arguments, "--no-daemon", **more)

    def seed(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.managed / "seed.json").read_bytes())
        return found

    def engine(self) -> generations.Generations:
        return generations.Generations.at(self.home)

    def enrol(self, token: str = TOKEN) -> None:
        """Write what the daemon writes when the central has answered."""
        files = identity.Files(self.managed)
        found = files.read()
        assert found.seed
        who = Identity(
            private_key=KEY.text,
            node_id=NODE,
            access_token="nt_" + "A" * 43,
            url=URL,
            token_fp=protocol.fingerprint(token),
        )
        member = identity.Membership(
            urls=found.seed.urls, trust=found.seed.trust, root=found.seed.root, node_id=NODE
        )
        files.keep_enrolled(member, who, before=found)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_a_token_comes_from_everywhere_and_makes_the_same_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(f"\n {TOKEN}\n")
    ways: list[tuple[list[str], dict[str, Any]]] = [
        ([TOKEN], {}),
        (["--token-file", str(tmp_path / "token")], {}),
        (["--token-env", "MINE"], {"MINE": TOKEN}),
        (["-"], {"stdin": io.StringIO(TOKEN + "\n")}),
        ([], {"stdin": io.StringIO(f" {TOKEN} ")}),
    ]
    seeds = []
    for number, (arguments, more) in enumerate(ways):
        node = Node(tmp_path / str(number), monkeypatch)
        status, found = node.join(URL + "/", *arguments, **more)
        assert (status, found["action"], found["url"]) == (0, "joined", URL)
        seeds.append({**node.seed(), "id": ANY})
        for path in (node.managed, *node.managed.iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    expected = {"id": ANY, "schema": 1, "urls": [URL], "token": TOKEN, "root": None}
    assert all(
        each == {**expected, "ca_file": "", "pin_sha256": "", "insecure_http": False} for each in seeds
    )


@pytest.mark.parametrize(
    ("status", "arguments", "code"),
    [
        (2, [], "request.command_line"),
        (2, ["central.example", TOKEN], "message.invalid"),
        (2, ["ftp://central.example", TOKEN], "message.invalid"),
        (2, ["https://u:secret@central.example", TOKEN], "message.invalid"),
        (2, [URL, TOKEN, "--token-file", "/dev/null"], "request.command_line"),
        (2, [URL, "--token-env", "A", "--token-file", "/dev/null"], "request.command_line"),
        (2, [URL], "request.command_line"),
        (2, [URL, "-"], "request.command_line"),
        (2, [URL, " "], "request.command_line"),
        (2, [URL, "--token-env", "NOT_SET"], "request.command_line"),
        (2, [URL, "--token-file", "/dev/null"], "request.command_line"),
        (1, [URL, "--token-file", "/does/not/exist"], "os.enoent"),
        (1, [URL, "hunter22"], "join.bad_token"),
        (1, [URL, TOKEN + "x"], "join.bad_token"),
        (1, ["http://central.example", TOKEN], "control.plain_http"),
        (1, [URL, TOKEN, "--pin-sha256", "12"], "control.pin"),
        (1, [URL, TOKEN, "--ca-file", "/does/not/exist"], "control.ca_file"),
        (2, [URL, TOKEN, "--server-key", "/does/not/exist"], "signature.bad_key"),
        (2, [URL, TOKEN, "--server-key", KEY.public.key_id], "signature.bad_key"),
        (2, [URL, TOKEN, "--server-key", "{}"], "signature.bad_key"),
        (2, [URL, TOKEN, "--wait", "1"], "request.command_line"),
    ],
)
def test_what_cannot_be_a_join_is_refused_and_nothing_is_written(
    node: Node, status: int, arguments: list[str], code: str
) -> None:
    found, error = node.join(*arguments)
    assert (found, error["code"]) == (status, code)
    assert "secret" not in json.dumps(error)
    assert not (node.managed / "seed.json").exists()
    assert not (node.managed / "journal.json").exists()


def test_whom_to_trust_is_kept_as_it_was_said(node: Node, tmp_path: Path) -> None:
    root = Root.of(3, 1, [KEY.public])
    (tmp_path / "root.json").write_text(json.dumps(root.to_value(), indent=2))
    pin = ":".join(["AB"] * 32)
    arguments = ["--pin-sha256", pin, "--server-key", str(tmp_path / "root.json"), "--insecure-http"]
    assert node.join("http://central.example", TOKEN, *arguments)[0] == 0
    seed = node.seed()
    assert (seed["pin_sha256"], seed["insecure_http"]) == ("ab" * 32, True)
    assert seed["root"] == root.to_value()
    assert node.join("http://127.0.0.1:8080", OTHER_TOKEN, "--server-key", KEY.public.text)[0] == 0
    assert node.seed()["root"] == Root.pinned(KEY.public).to_value()


def test_the_users_own_files_stay_as_they_are(node: Node) -> None:
    node.home.mkdir(parents=True)
    mine = {"toft.toml": b"lanes = 2 # mine\r\n", "plugins.yaml": b"\xff", "notes": b""}
    for name, data in mine.items():
        (node.home / name).write_bytes(data)
    assert node.join(URL, TOKEN)[0] == 0
    assert node("leave")[1] == {"left": True, "daemon": None, "central": False}
    assert {name: (node.home / name).read_bytes() for name in mine} == mine


def test_the_same_join_said_again_changes_nothing(node: Node) -> None:
    assert node.join(URL, TOKEN)[1]["action"] == "joined"
    before = (node.managed / "seed.json").read_bytes()
    assert node.join(URL, TOKEN)[1]["action"] == "already_joining"
    assert (node.managed / "seed.json").read_bytes() == before
    node.enrol()
    status, found = node.join(URL, TOKEN)
    assert (status, found["action"], found["node_id"]) == (0, "already_joined", NODE)
    (node.managed / "seed.json").unlink()  # as after the first confirmed document
    assert node.join(URL, TOKEN)[1]["action"] == "already_joined"
    assert node.join(URL, TOKEN, "--pin-sha256", "ab" * 32)[1]["code"] == "join.other_trust"


def test_another_token_for_the_same_central_joins_anew(node: Node) -> None:
    node.join(URL, TOKEN)
    node.enrol()
    assert node.join(URL, OTHER_TOKEN)[1]["action"] == "joined"
    assert sorted(each.name for each in node.managed.iterdir()) == [
        "journal.json",
        "journal.prev",
        "lock",
        "seed.json",
    ]
    assert node.seed()["token"] == OTHER_TOKEN


def test_another_central_is_joined_only_after_leaving_the_first(node: Node) -> None:
    node.join(URL, TOKEN)
    # Nobody has enrolled: whoever has mistyped the URL says it again.
    assert node.join("https://centrall.example", TOKEN)[0] == 0
    assert node.join(URL, TOKEN)[0] == 0
    node.enrol()
    status, error = node.join("https://other.example", OTHER_TOKEN)
    assert (status, error["code"], error["details"]["node_id"]) == (1, "join.other_central", NODE)
    assert "toft leave" in error["hint"]
    # And without a token, nobody's credential is sent anywhere.
    assert node.join("https://other.example")[0] == 2
    assert identity.Files(node.managed).read().enrollment is not None
    assert joining.leave(node.engine())
    assert node.join("https://other.example", OTHER_TOKEN)[0] == 0


def test_a_node_of_nobody_leaves_without_losing_what_was_applied_by_hand(node: Node, tmp_path: Path) -> None:
    engine = node.engine()
    boot = engine.boot("first")
    engine.commit(generations.offer(b'{"schema_version":1}'), boot.nonce)
    assert engine.confirm(engine.boot("second"))
    assert node("leave") == (0, {"left": False, "daemon": None, "central": False})
    assert engine.read().active is not None


def test_what_is_damaged_can_be_left_and_joined_again(node: Node) -> None:
    node.join(URL, TOKEN)
    node.enrol()
    for name in ("enrollment.json", "identity.json", "seed.json", "journal.json", "journal.prev"):
        (node.managed / name).write_bytes(b"{\xff")
    assert node.join(URL, OTHER_TOKEN)[1]["action"] == "joined"
    (node.managed / "seed.json").write_bytes(b"")
    assert node("leave")[1]["left"]
    assert not joining.is_member(node.engine())


def test_of_two_joins_at_once_each_is_whole(node: Node) -> None:
    seeds = [joining.seed(URL, each) for each in (TOKEN, OTHER_TOKEN, TOKEN, OTHER_TOKEN)]
    actions: list[str] = []
    threads = [
        threading.Thread(target=lambda each=each: actions.append(joining.join(node.engine(), each).action))
        for each in seeds
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(actions) == 4
    assert node.seed()["token"] in (TOKEN, OTHER_TOKEN)
    assert node.engine().boot("after").mode == "seed"
    assert node.engine().read().problems == ()


def test_a_signed_file_counts_where_no_central_reaches(node: Node) -> None:
    assert node.join(URL, TOKEN, "--server-key", KEY.public.text)[0] == 0
    data, engine = b'{"schema_version":1}', node.engine()
    text = json.dumps(messages.signatures_value([signatures.sign(DOCUMENT_TYPE, data, KEY)]))
    assert joining.vouched(engine, data, text) == (KEY.public.key_id,)
    refused: list[tuple[bytes, str, str]] = [
        (data + b"\n", text, "document.signature_invalid"),
        (data, "", "document.signature_invalid"),
        (data, "[]", "document.signature_invalid"),
        (data, "{", "message.invalid"),
        (data, "{}", "message.invalid"),
    ]
    for content, signed, code in refused:
        assert _code(lambda: joining.vouched(engine, content, signed)) == code  # noqa: B023 - called at once
    joining.leave(engine)
    assert joining.vouched(engine, data, "") == ()


def test_a_node_of_nobody_can_be_told_whom_to_trust(node: Node) -> None:
    data, engine = b'{"schema_version":1}', node.engine()
    assert node("key", "trust", KEY.public.text) == (0, {"threshold": 1, "keys": [KEY.public.key_id]})
    assert stat.S_IMODE((node.managed / belonging.TRUST).stat().st_mode) == 0o600
    assert _code(lambda: joining.vouched(engine, data, "")) == "document.signature_invalid"
    (node.managed / belonging.TRUST).write_bytes(b"{")
    assert _code(lambda: joining.vouched(engine, data, "")) == "membership.damaged"
    assert node("key", "trust", "--anybody") == (0, {"threshold": 0, "keys": []})
    assert joining.vouched(engine, data, "") == ()
    assert node("key", "trust")[0] == node("key", "trust", "x", "--anybody")[0] == 2
    # Who belongs to a central trusts whom it was told there; what was told before waits.
    node("key", "trust", KEY.public.text)
    node.join(URL, TOKEN)
    assert node("key", "trust", "--anybody")[1]["code"] == "join.member_trust"
    joining.leave(engine)
    assert _code(lambda: joining.vouched(engine, data, "")) == "document.signature_invalid"


def _code(act: Callable[[], object]) -> str:
    try:
        act()
    except NodeError as error:
        return error.code
    raise AssertionError("nothing was raised")


def test_a_join_that_was_cut_off_is_finished_by_the_next(node: Node) -> None:
    node.join(URL, TOKEN)
    node.enrol()
    engine = node.engine()
    engine.boot("first")
    # The intent is there, the seed is not: nothing has happened.
    value = joining.seed(URL, OTHER_TOKEN).to_value("cut off")
    operations = _StopsAfter(4)
    with pytest.raises(ConflictError):
        generations.Generations(node.managed, moments.read, operations).reset(value)
    assert engine.read().state.phase == "resetting"
    assert node.join(URL, OTHER_TOKEN)[1]["action"] == "joined"
    assert engine.boot("second").mode == "seed"


class _StopsAfter:
    """The operating system's steps, up to one."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._system = generations.durable.SYSTEM

    def __getattr__(self, name: str) -> Any:
        if name in ("write", "rename"):
            if not self._left:
                raise ConflictError("stopped here")
            self._left -= 1
        return getattr(self._system, name)
