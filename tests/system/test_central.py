"""A real central and nodes that only talk: joining, documents, long polls, reports, wheels, and refusals."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests import centrals
from tests.centrals import Agent, Answer, Central
from tests.waiting import eventually

from toft.cli import app as command_line
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.daemon import central as serving
from toft.kernel import clock as clocks
from toft.managed import messages, protocol, signatures
from toft.managed.signatures import PrivateKey, Root


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


def test_until_when_a_document_counts_is_said_and_a_head_says_what_would_come(central: Central) -> None:
    central.admin("POST", "tenants", {"name": "dated"})
    central.save({"x-note": 1}, tenant="dated")
    agent = Agent(central).join(tenant="dated")
    assert protocol.NOT_AFTER not in agent.poll().headers
    central.save({"expires_at": "2099-01-01T00:00:00Z"}, tenant="dated")
    whole = agent.poll(takes=False)
    head = agent.ask("HEAD", protocol.CONFIG)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["X-Not-After"] == "2099-01-01T00:00:00Z" == whole.value["expires_at"]
    assert int(head.headers["Content-Length"]) == len(whole.body)
    same = ("ETag", "Repr-Digest", "X-Revision", "X-Not-After", "Content-Type", "Cache-Control")
    assert [head.headers[each] for each in same] == [whole.headers[each] for each in same]
    assert agent.ask("HEAD", protocol.CONFIG, If_None_Match=whole.headers["ETag"]).status == 304
    refused = central.ask("HEAD", protocol.CONFIG, token="nt_" + "A" * 43, source=agent.source)
    assert (refused.status, refused.body) == (401, b"")


def test_who_waits_is_given_a_new_revision_at_once(central: Central) -> None:
    agent = Agent(central).join()
    agent.poll()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(agent.poll, 30)
        eventually(lambda: central.admin("GET", "status")["waiting"], what="it waits")
        assert not waiting.done()
        central.save({"x-note": "new"})
        assert waiting.result(5).value["x-note"] == "new"


def test_a_second_question_of_a_node_ends_its_first_one(central: Central) -> None:
    agent = Agent(central).join()
    agent.poll()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(agent.poll, 50)
        second = pool.submit(agent.poll, 50)
        done = threading.Event()
        for each in (first, second):
            each.add_done_callback(lambda _: done.set())
        assert done.wait(10)
        central.save({"x-note": secrets.token_hex(4)})
        assert sorted((first.result(10).status, second.result(10).status)) == [200, 304]


def test_of_two_that_use_one_token_at_once_exactly_one_joins(central: Central) -> None:
    token = central.join_token()
    agents = [Agent(central) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(each.status for each in pool.map(lambda agent: agent.enroll(token), agents))
    assert statuses == [201] + [401] * 7


def test_an_answer_that_was_lost_burns_no_token(central: Central) -> None:
    agent = Agent(central, "twice")
    token = central.join_token()
    first, second = agent.enroll(token), agent.enroll(token)
    assert (first.status, second.status) == (201, 200)
    assert first.value["node_id"] == second.value["node_id"]
    assert first.value["access_token"] != second.value["access_token"]
    assert len([each for each in central.admin("GET", "nodes") if each["name"] == "twice"]) == 1


def test_whoever_may_not_join_hears_the_same_and_why_is_in_the_audit_log(central: Central) -> None:
    used, revoked = central.join_token(), central.join_token()
    Agent(central).enroll(used)
    central.admin("DELETE", f"tokens/{revoked[3:11]}")
    unknown = f"jt_00000000_{'A' * 43}"
    wrong = used[:-1] + ("A" if used[-1] != "A" else "B")
    bodies = []
    for token in (used, revoked, unknown, wrong, "nonsense"):
        answer = Agent(central, "stranger").enroll(token)
        assert (answer.status, answer.code) == (401, "join_refused")
        bodies.append(answer.body)
    assert len(set(bodies)) == 1
    told = [each for each in central.admin("GET", "audit") if each["action"] == "node.join_refused"][:5]
    why = [each["details"]["reason"] for each in told]
    assert why == ["unknown token", "unknown token", "unknown token", "revoked token", "used token"]


def test_a_revoked_node_is_told_so_and_never_comes_back(central: Central) -> None:
    agent = Agent(central).join()
    agent.poll()
    central.admin("POST", f"nodes/{agent.node_id}/revoke")
    for answer in (agent.poll(), agent.report(1), agent.ask("POST", protocol.REFRESH)):
        assert (answer.status, answer.code) in ((403, "node_revoked"), (401, "credential_refused"))
    at = clocks.SYSTEM.now()
    by_key = messages.refresh(agent.node_id, agent.key, secrets.token_hex(16), at)
    assert agent.ask("POST", protocol.REFRESH, by_key).code == "node_revoked"
    assert agent.enroll(central.join_token()).code == "join_refused"


def test_a_node_that_needs_approval_waits_for_it(central: Central) -> None:
    agent = Agent(central)
    assert agent.enroll(central.join_token(needs_approval=True)).status == 201
    answer = agent.poll()
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (403, "pending_approval", "60")
    central.admin("POST", f"nodes/{agent.node_id}/approve")
    assert agent.poll().status == 200


def test_a_credential_is_renewed_and_the_old_one_is_good_for_a_while(central: Central) -> None:
    agent = Agent(central).join()
    old = agent.credential
    agent.credential = agent.ask("POST", protocol.REFRESH).value["access_token"]
    assert agent.poll().status == 200
    agent.credential = old
    assert agent.poll().status == 304
    body = messages.refresh(agent.node_id, agent.key, secrets.token_hex(16), clocks.SYSTEM.now())
    agent.credential = ""
    assert agent.ask("POST", protocol.REFRESH, body).value["node_id"] == agent.node_id
    again = agent.ask("POST", protocol.REFRESH, body)
    assert (again.status, again.code) == (401, "credential_refused"), "it was sent before"
    late = messages.refresh(agent.node_id, agent.key, secrets.token_hex(16), clocks.SYSTEM.now() - 4000)
    refused = agent.ask("POST", protocol.REFRESH, late)
    assert refused.status == 401
    assert refused.headers["Date"]


def test_a_node_changes_its_key(central: Central) -> None:
    agent, new = Agent(central).join(), PrivateKey.make()
    body = messages.rotate_key(agent.node_id, agent.key, new, secrets.token_hex(16), clocks.SYSTEM.now())
    assert agent.ask("POST", protocol.ROTATE_KEY, body).status == 204
    assert agent.ask("POST", protocol.ROTATE_KEY, body).status == 204, "the answer was lost"
    old = messages.refresh(agent.node_id, agent.key, secrets.token_hex(16), clocks.SYSTEM.now())
    assert agent.ask("POST", protocol.REFRESH, old).status == 401
    by_new = messages.refresh(agent.node_id, new, secrets.token_hex(16), clocks.SYSTEM.now())
    assert agent.ask("POST", protocol.REFRESH, by_new).status == 200


def test_layers_are_merged_the_strongest_last(central: Central) -> None:
    central.admin("PUT", "groups/gpu", {"selector": {"role": "gpu"}, "priority": 10})
    central.admin("PUT", "groups/all-gpu", {"selector": {"role": ["gpu", "tpu"]}, "priority": 1})
    central.save({"settings": {"lanes": 2, "log_files": 3}})
    central.save({"settings": {"lanes": 4}}, scope="group", target="gpu")
    agent = Agent(central).join(labels={"role": "gpu"})
    assert agent.poll().value["settings"] == {"lanes": 4, "log_files": 3}
    central.save({"settings": {"log_files": None}, "x-own": 1}, scope="node", target=agent.node_id)
    mine = agent.poll().value
    assert (mine["settings"], mine["x-own"]) == ({"lanes": 4}, 1)
    central.admin("POST", f"nodes/{agent.node_id}/label", {"labels": {"role": "tpu"}})
    assert agent.poll().value["settings"] == {"lanes": 2}
    other = Agent(central).join()
    assert "x-own" not in other.poll().value


def test_a_pinned_node_stays_where_it_is(central: Central) -> None:
    agent = Agent(central).join()
    agent.poll()
    central.admin("POST", f"nodes/{agent.node_id}/pin", {})
    central.save({"x-note": secrets.token_hex(4)})
    assert agent.poll().status == 304
    central.admin("POST", f"nodes/{agent.node_id}/unpin", {})
    assert agent.poll().status == 200
    central.admin("POST", f"nodes/{agent.node_id}/retry")
    assert agent.poll().headers["X-Attempt"] == "1"


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"control": {"urls": ["https://elsewhere.example"]}}, "names no address of this central"),
        ({"control": None}, "names no address of this central"),
        ({"contrl": {}}, "did you mean control"),
        ({"settings": {"lanes": "many"}}, "settings.lanes"),
        ({"x-db": {"password": "hunter2"}}, "looks like a secret"),
        ({"x-text": "Bearer ghp_" + "a" * 36}, "looks like a secret"),
        ({"x-long": "x" * (1 << 20)}, "the most"),
        ({"schema_version": 0}, "schema"),
        ({"schema_version": 2}, "schema_version"),
        ({"tenant": "acme"}, "tenant"),
        ({"revision": 7}, "revision"),
    ],
)
def test_what_no_node_could_run_is_not_saved(central: Central, layer: dict[str, Any], said: str) -> None:
    before = central.admin("GET", "documents")
    control = {"urls": [central.url]}
    body = {"layer": {"control": control, **layer}, "publish": True}
    for query in ({"dry_run": 1}, {}):
        answer = central.try_admin("POST", "documents", body, **query)
        assert answer.status == 400, answer.body
        assert said in answer.value["detail"]
        assert "hunter2" not in answer.body.decode()
    assert central.admin("GET", "documents") == before


def test_a_pin_must_be_here_and_its_wheel_is_served_in_pieces(central: Central) -> None:
    data = secrets.token_bytes(300_000)
    sha256 = hashlib.sha256(data).hexdigest()
    pin = {
        "version": "1.0",
        "filename": "ocr-1.0-py3-none-any.whl",
        "sha256": sha256,
        "size_bytes": len(data),
    }
    layer = {"control": {"urls": [central.url]}, "plugins": {"ocr": pin}}
    refused = central.try_admin("POST", "documents", {"layer": layer}, dry_run=1)
    assert "plugins.ocr" in refused.value["detail"]
    assert central.add_artifact(data, pin["filename"]) == sha256
    fetched = central.admin("POST", "documents", {"layer": layer}, dry_run=1)["artifacts"]
    assert [(each["name"], each["version"], each["sha256"]) for each in fetched] == [("ocr", "1.0", sha256)]
    agent = Agent(central).join()
    whole = agent.ask("GET", f"{protocol.ARTIFACTS}/{sha256}")
    assert (whole.status, whole.body, whole.headers["Content-Length"]) == (200, data, "300000")
    piece = agent.ask("GET", f"{protocol.ARTIFACTS}/{sha256}", Range="bytes=1000-1999")
    assert (piece.status, piece.body) == (206, data[1000:2000])
    assert agent.ask("GET", f"{protocol.ARTIFACTS}/{'0' * 64}").status == 404
    assert agent.ask("GET", f"{protocol.ARTIFACTS}/..%2f..%2fcentral.db").status in (401, 404)
    wrong = central.try_admin("PUT", f"artifacts/{'1' * 64}", b"other", filename=pin["filename"])
    assert (wrong.status, wrong.code) == (400, "artifact.digest")
    assert (
        central.try_admin("PUT", f"artifacts/{sha256}", data, filename="../x.whl").code
        == "central.wheel_name"
    )


def test_a_tenant_never_sees_anything_of_another_one(central: Central) -> None:
    central.admin("POST", "tenants", {"name": "acme"})
    central.save({"x-whose": "acme"}, tenant="acme")
    sha256 = central.add_artifact(b"acme only", "own-1.0-py3-none-any.whl", tenant="acme")
    theirs, ours = Agent(central).join(tenant="acme"), Agent(central).join()
    served = theirs.poll()
    assert served.value["x-whose"] == "acme"
    assert "x-whose" not in ours.poll().value
    name = theirs.etag.removeprefix("sha256-")
    assert ours.ask("GET", f"{protocol.CONFIG}/{name}").code == "no_document"
    assert ours.ask("GET", f"{protocol.ARTIFACTS}/{sha256}").status == 404
    assert theirs.ask("GET", f"{protocol.ARTIFACTS}/{sha256}").body == b"acme only"
    assert central.try_admin("GET", f"nodes/{theirs.node_id}").code == "central.no_node"
    made = central.ask(
        "POST",
        "/v1/tokens",
        {"name": "acme-ops", "scopes": ["*:admin:acme"]},
        token=central.token_file.read_text().strip(),
    )
    limited = made.value["token"]
    assert central.ask("GET", "/v1/admin/nodes?tenant=acme", token=limited).status == 200
    for path in ("nodes", "tokens", "documents", "groups", "artifacts", "audit", "roots"):
        assert central.ask("GET", f"/v1/admin/{path}", token=limited).status == 403, path
    for path in ("nodes", "documents", "audit", "rollouts"):
        assert central.try_admin("GET", path, tenant="nobody").status == 404, path
    assert central.ask("GET", "/v1/admin/tenants", token=limited).value == [{"name": "acme"}]
    # A key is one node: of one tenant.
    answer = ours.enroll(central.join_token(tenant="acme"))
    assert (answer.status, answer.code) == (409, "central.key_of_another_tenant")


def test_reports_are_kept_in_their_order_and_a_machine_set_back_is_seen(central: Central) -> None:
    agent = Agent(central).join()
    etag = f"sha256-{'a' * 64}"
    event = {"etag": etag, "event": "rolled_back", "reason": "health_failed", "at": "2026-01-01T00:00:00Z"}
    body = {"settings": {"lanes": 2}, "x-db": {"password": "hunter2"}}
    effective = {"sha256": "b" * 64, "body": body}
    assert agent.report(5, phase="idle", history=[event], effective=effective).status == 204
    assert agent.report(5, phase="idle", history=[event]).status == 204, "sent twice"
    assert agent.report(3, phase="staged").status == 204, "out of order"
    told = central.admin("GET", f"nodes/{agent.node_id}")
    assert told["phase"] == "idle"
    assert [each["event"] for each in told["history"]] == ["rolled_back"]
    assert told["effective"]["body"]["x-db"]["password"] == "<set>"
    assert told["restored_at"] is None
    assert agent.report(6, boot="boot-2").status == 204
    assert agent.report(4, boot="boot-0", phase="old").status == 204
    assert central.admin("GET", f"nodes/{agent.node_id}")["restored_at"] is not None
    assert "hunter2" not in json.dumps(central.admin("GET", f"nodes/{agent.node_id}"))


def test_a_node_that_talks_without_a_pause_is_slowed_down(central: Central) -> None:
    agent = Agent(central).join()

    def refresh(number: int) -> Answer:
        body = messages.refresh(agent.node_id, agent.key, f"{number:032x}", clocks.SYSTEM.now())
        return central.ask("POST", protocol.REFRESH, body, source=agent.source)

    token = central.join_token()
    other = Agent(central)

    def enroll(number: int) -> Answer:
        return other.enroll(token)

    assert enroll(0).status == 201
    for ask, good in ((agent.report, 204), (refresh, 200), (enroll, 200)):
        statuses = [ask(number).status for number in range(30)]
        assert statuses[:10] == [good] * 10
        assert set(statuses) == {good, 429}
    # Whoever has not the key slows down nobody but themselves.
    other = Agent(central).join()
    body = {**messages.refresh(other.node_id, agent.key, "0" * 32, clocks.SYSTEM.now())}
    for _ in range(20):
        central.ask("POST", protocol.REFRESH, body, source=agent.source)
    assert other.poll().status in (200, 404)


def test_signed_documents_wait_for_their_signatures(central: Central) -> None:
    central.admin("POST", "tenants", {"name": "signed"})
    central.save({"x-note": 1}, tenant="signed")
    agent = Agent(central).join(tenant="signed")
    agent.poll()
    keys = [PrivateKey.make() for _ in range(3)]
    root = Root.of(1, 2, [each.public for each in keys])
    body = messages.roots_value([_signed(root, keys[:1])])["roots"][0]
    assert central.try_admin("POST", "roots", body, tenant="signed").status == 403, "one of two"
    body = messages.roots_value([_signed(root, keys[:2])])["roots"][0]
    central.admin("POST", "roots", body, tenant="signed")
    assert messages.read_roots(agent.ask("GET", protocol.ROOTS).value)[0].data == root.data
    layer = {"control": {"urls": [central.url]}, "x-note": 2}
    body = {"layer": layer, "publish": True}
    assert central.try_admin("POST", "documents", body, tenant="signed").code == "central.unsigned"
    saved = central.admin("POST", "documents", {"layer": layer}, tenant="signed")
    document, number = saved["document"]["id"], saved["number"]
    publish = (f"documents/{document}/publish", {"number": number})
    assert central.try_admin("POST", *publish, tenant="signed").code == "central.unsigned"
    payloads = central.admin("GET", f"documents/{document}/payloads", number=number, tenant="signed")
    for each in payloads:
        data = signatures.from_base64(each["payload"])
        stranger = signatures.sign(signatures.DOCUMENT_TYPE, data, PrivateKey.make())
        wrong = {"signatures": messages.signatures_value([stranger])}
        assert central.try_admin("POST", f"signatures/{each['sha256']}", wrong, tenant="signed").status == 403
        for key, is_enough in zip(keys, (False, True), strict=False):
            made = signatures.sign(signatures.DOCUMENT_TYPE, data, key)
            given = {"signatures": messages.signatures_value([made])}
            told = central.admin("POST", f"signatures/{each['sha256']}", given, tenant="signed")
            assert told["is_enough"] is is_enough
    central.admin("POST", *publish, tenant="signed")
    answer = agent.poll()
    assert answer.value["x-note"] == 2
    found = messages.decode_signatures(answer.headers[protocol.SIGNATURES])
    assert len(signatures.verify(signatures.DOCUMENT_TYPE, answer.body, found, root)) == 2


def _signed(root: Root, keys: list[PrivateKey]) -> signatures.SignedRoot:
    return signatures.SignedRoot(
        root.data, tuple(signatures.sign(signatures.ROOT_TYPE, root.data, each) for each in keys)
    )


def test_garbage_is_refused_and_harms_nobody(central: Central) -> None:
    agent = Agent(central).join()
    for body in (b"", b"{", b"[]", b"\xff\xfe", b'{"token": 1}', b"[" * 100_000):
        for path in (protocol.ENROLL, protocol.ROTATE_KEY, protocol.REPORT):
            assert agent.ask("POST", path, body).status in (400, 413, 422), (path, body[:20])
    assert agent.ask("POST", protocol.REPORT, b"x" * (257 << 10)).status == 413
    assert agent.ask("POST", protocol.ENROLL, b"x" * (65 << 10)).status == 413
    for report in ({"seq": -1, "boot_nonce": "x"}, {"seq": 1}, {"seq": 1, "boot_nonce": "a b"}):
        assert agent.ask("POST", protocol.REPORT, report).status == 422
    strange = {"phase": "\x1b[31m\n", "detail": "\u202e"}
    assert agent.report(1, **strange).status == 204
    assert central.admin("GET", f"nodes/{agent.node_id}")["phase"] == "\x1b[31m\n", "exact in JSON"
    assert agent.ask("DELETE", protocol.CONFIG).status in (401, 405)
    document = central.admin("GET", "documents")[0]["id"]
    for method, path, body in (
        ("POST", "documents", {"layer": {"x-a": "\ud800"}}),
        ("POST", "documents", {"layer": {"\ud800": 1}}),
        ("POST", f"documents/{document}/publish", {"number": 10**30}),
        ("GET", f"documents/{document}?number={10**30}", None),
        ("PUT", "groups/g1", {"priority": 10**30}),
        ("GET", f"audit?before={10**30}", None),
        ("POST", "roots", {"root": "e30=", "signatures": [1]}),
        ("PUT", "groups/..%2fx", {}),
        ("GET", "nodes?state=asleep", None),
        ("GET", "fleet?standing=asleep", None),
    ):
        found = central.ask(method, f"/v1/admin/{path}", body, token=central.token_file.read_text().strip())
        assert found.status in (400, 404), (path, found.body)
    assert agent.poll().status == 200


def test_a_restart_keeps_everything_and_the_audit_log_is_whole(tmp_path: Path) -> None:
    with centrals.running(tmp_path) as central:
        central.save({"x-note": "kept"})
        agent = Agent(central).join()
        served = agent.poll()
        agent.report(1, phase="idle")
        central.kill()
        central.start()
        assert agent.poll().status == 304
        agent.etag = ""
        assert agent.poll().body == served.body
        assert central.admin("GET", f"nodes/{agent.node_id}")["phase"] == "idle"
        found = central.admin("GET", "audit/verify")
        assert (found["is_whole"], found["broken_at"]) == (True, None)
        assert central.stop() == 0
        assert "stopped" in central.log()


def test_a_kill_at_any_moment_loses_no_node_that_was_told_so(tmp_path: Path) -> None:
    with centrals.running(tmp_path) as central:
        central.save({})
        central.admin("PUT", "groups/all", {"selector": {}})
        token = central.join_token(group="all", max_uses=1000)
        joined: list[Agent] = []

        def join(_: int) -> None:
            agent = Agent(central)
            with contextlib.suppress(OSError, http.client.HTTPException):
                if agent.enroll(token).status == 201:
                    joined.append(agent)

        with ThreadPoolExecutor(8) as pool:
            for _ in range(2):
                under_way = [pool.submit(join, n) for n in range(60)]
                eventually(lambda: len(joined) % 60 > 20, within_s=20)
                central.kill()
                for each in under_way:
                    each.result(30)
                central.start()
        known = {each["id"] for each in central.admin("GET", "nodes")}
        assert {agent.node_id for agent in joined} <= known
        (told,) = (each for each in central.admin("GET", "tokens") if each["id"] == token[3:11])
        assert told["uses"] == len(known), "a use and its node are one thing"
        assert central.admin("GET", "audit/verify")["is_whole"]
        assert all(agent.poll().status == 200 for agent in joined)
        retried = Agent(central)
        assert retried.enroll(token).status == 201


def test_a_port_for_others_needs_tls_and_one_data_has_one_central(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*options: str) -> str:
        assert serving.main(["--data", str(tmp_path / "central"), *options]) in (1, 2)
        return capsys.readouterr().err

    assert "TLS" in refused("--listen", "0.0.0.0:0")
    assert "HOST:PORT" in refused("--listen", "nowhere")
    assert "is no URL" in refused("--listen", "127.0.0.1:0", "--url", "ftp://x")
    with centrals.running(tmp_path) as central:
        assert "runs on" in refused("--listen", "127.0.0.1:0")
        assert central.ask("GET", "/v1/admin/nodes").status == 401
    (tmp_path / "central" / "central.db").write_bytes(b"no database at all" * 1000)
    assert "not a database" in refused("--listen", "127.0.0.1:0")


def test_guesses_are_slowed_down_and_what_is_good_is_let_in(tmp_path: Path) -> None:
    with centrals.running(tmp_path) as central:
        central.save({})
        agent = Agent(central).join()
        token = central.join_token()
        guesser = Agent(central)
        answers = [guesser.enroll(f"jt_0000000{n % 10}_{'A' * 43}") for n in range(14)]
        assert [each.status for each in answers] == [401] * 10 + [429] * 4
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert answers[-1].code == "too_many_requests"
        assert agent.poll().status == 200
        assert guesser.enroll(token).status == 201
        statuses = [agent.poll().status for _ in range(16)]
        assert statuses[0] == 304
        assert statuses[-1] == 429


Run = Callable[..., str]


@pytest.fixture
def run(central: Central) -> Run:
    words = ("--url", central.url, "--token-file", str(central.token_file), "central")

    def run(*arguments: str) -> str:
        out, err = io.StringIO(), io.StringIO()
        status = command_line.run([*words, *arguments], Session(Terminal(out, err), environ={}))
        assert status == 0, (arguments, err.getvalue())
        return out.getvalue()

    return run


def test_who_may_do_what_is_told_by_commands(run: Run) -> None:
    run("group", "put", "edges", "-s", "role=edge", "--priority", "2")
    assert "edges" in run("group", "list")
    run("group", "delete", "edges")
    made = run("admin", "create", "reader", "--scope", "fleet:read").strip()
    assert made.startswith("toft_")
    assert "reader" in run("admin", "list")
    run("admin", "revoke", "reader")
    run("tenant", "create", "typed")
    assert "typed" in run("tenant", "list")
    assert run("root", "list").splitlines() == ["root  must sign  keys"]
    assert "wait for a document" in run("status")


def test_the_command_line_does_what_the_routes_do(central: Central, run: Run, tmp_path: Path) -> None:
    layer = tmp_path / "layer.toml"
    layer.write_text(f'x-from = "a file"\n[control]\nurls = ["{central.url}"]\n')
    assert "+  " in run("document", "save", str(layer), "--dry-run")
    saved = json.loads(run("document", "save", str(layer), "-m", "by hand", "--json"))
    id, number = saved["document"]["id"], str(saved["number"])
    run("document", "publish", id, number)
    assert "by hand" in run("document", "show", id)
    run("document", "diff", id)
    assert id in run("document", "list")
    token = run("token", "create", "--label", "role=edge", "--expires", "2h").strip()
    agent = Agent(central, "edge-1\x1b[31m")
    assert agent.enroll(token).status == 201
    assert agent.poll().value["x-from"] == "a file"
    assert agent.poll().status == 304
    assert "\x1b" not in run("node", "list")
    run("node", "label", agent.node_id, "ring=canary", "role-", "--name", "edge one")
    assert "ring=canary" in run("node", "show", "edge one")
    assert run("node", "diff", agent.node_id) == ""
    for verb in ("pin", "unpin", "retry", "revoke"):
        run("node", verb, agent.node_id)
    wheel = tmp_path / "ocr-2.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    run("artifact", "add", str(wheel))
    assert "ocr" in run("artifact", "list")
    assert token[3:11] in run("token", "list")
    run("token", "revoke", token[3:11])
    assert "node.revoke" in run("audit")
    assert "each as it was written" in run("audit", "--verify")
    err = io.StringIO()
    assert command_line.run(["central", "node", "list"], Session(Terminal(err=err), environ={})) == 2
    assert "TOFT_URL" in err.getvalue()
