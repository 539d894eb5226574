"""A node that is used from another machine: the same words and truth, and nothing of this machine's home."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import daemons, nodes, relays
from tests.command_line import CommandLine, keep_token
from tests.daemons import Daemon
from tests.relays import Authority, Relay
from tests.waiting import eventually

import toft
from toft.blocking.remote import NodeElsewhere
from toft.cli import app
from toft.cli.session import Session
from toft.client import place as places
from toft.kernel import errors
from toft_sdk import introspect


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("node")
    nodes.register(directory / "home")
    actions = introspect.describe("toft_sdk.misbehaving", "MisbehavingPlugin")["actions"]
    actions["write_file"]["input"]["parameters"]["path"]["x-toft-type"] = "path"
    nodes.register(directory / "home", "writer", actions=actions)
    certificate, key = authority.make("localhost", "127.0.0.1")
    with daemons.running(
        directory / "home", directory, listen="127.0.0.1:0", tls_cert=str(certificate), tls_key=str(key)
    ) as running:
        yield running


@pytest.fixture(scope="module")
def token(daemon: Daemon) -> str:
    return make_token(daemon, "all", "*")


def make_token(daemon: Daemon, name: str, *scopes: str, **more: str) -> str:
    options = [word for scope in scopes for word in ("--scope", scope)]
    options += [word for option, value in more.items() for word in (f"--{option}", value)]
    made: dict[str, Any] = daemon.toft("token", "create", name, *options, "--json").value
    return str(made["token"])


@pytest.fixture
def relay(daemon: Daemon) -> Iterator[Relay]:
    """The way to the node, which can be cut."""
    port = int(daemon.status()["listen"].rpartition(":")[2].strip("/"))

    async def reach() -> relays.Streams:
        return await asyncio.open_connection("127.0.0.1", port)

    with relays.running(reach) as running:
        yield running


@pytest.fixture
def node(relay: Relay, authority: Authority, token: str) -> Iterator[NodeElsewhere]:
    found = toft.connect(url=url(relay), token=token, ca_file=authority.file)
    assert isinstance(found, NodeElsewhere)
    with found:
        yield found


def to(daemon: Daemon) -> relays.Open:
    async def reach() -> relays.Streams:
        with places.address(daemon.place.socket) as address:
            return await asyncio.open_unix_connection(address)

    return reach


def url(relay: Relay) -> str:
    return f"https://localhost:{relay.port}"


@pytest.fixture
def elsewhere(tmp_path: Path, relay: Relay, authority: Authority, token: str) -> CommandLine:
    """A command line on a machine without a home."""
    environ = {
        "TOFT_URL": url(relay),
        "TOFT_CA_FILE": str(authority.file),
        "TOFT_TOKEN_FILE": keep_token(tmp_path / "token", token),
    }
    found = CommandLine(tmp_path / "nothing", tmp_path, environ)
    del found.environ["TOFT_HOME"]
    found.environ["HOME"] = str(tmp_path / "nobody")
    return found


def test_a_program_uses_a_node_elsewhere_with_the_words_of_one_that_is_here(node: NodeElsewhere) -> None:
    assert [each.name for each in node.plugins()] == ["misbehaving", "writer"]
    assert node.installed.get("misbehaving").code.class_name == "MisbehavingPlugin"
    assert [each.name for each in node.installed.find("echo")] == ["misbehaving", "writer"]
    with node.load("misbehaving", {"label": "mine"}) as mine:
        assert mine.call("where")["label"] == "mine"
        assert mine.call("echo", value=(1, b"2", {3})) == (1, b"2", {3})
        assert list(mine.stream("chunks", count=3)) == [0, 1, 2]
    job = node.jobs.submit("misbehaving", {"value": (4, b"5")}, action="echo")
    assert job.wait(30).state == "completed"
    assert job.result() == (4, b"5")
    assert [event.type for event in job.events()][0] == "submitted"
    assert node.status()["state"] == "ready"
    assert not node.is_embedded


def test_events_go_on_where_a_connection_broke(daemon: Daemon, relay: Relay, node: NodeElsewhere) -> None:
    first = node.jobs.submit("misbehaving", {"value": 0}, action="echo")
    watch = node.jobs.watch(after=node.jobs.status()["cursor"])
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.extend(watch))
    reader.start()
    relay.close_port()
    submit(daemon)
    relay.open_port()
    job = submit(daemon)
    eventually(lambda: (job, "completed") in [(each.job, each.data.get("to")) for each in seen], 30)
    relay.cut()
    last = submit(daemon)
    eventually(lambda: (last, "completed") in [(each.job, each.data.get("to")) for each in seen], 30)
    watch.close()
    reader.join()
    cursors = [each.cursor for each in seen]
    assert cursors == sorted(set(cursors))
    stored = node.jobs.events(after=cursors[0] - 1)
    assert [each.cursor for each in stored][: len(cursors)] == cursors
    assert len({each.job for each in seen} - {first.id}) == 3


def submit(daemon: Daemon) -> str:
    told: dict[str, Any] = daemon.toft("job", "submit", "misbehaving.echo", "value=1", "--json").value
    return str(told["id"])


def test_waiting_goes_on_and_only_what_changes_nothing_is_asked_again(
    relay: Relay, node: NodeElsewhere
) -> None:
    job = node.jobs.submit("misbehaving", {"seconds": 1.0}, action="work")
    ended: list[Any] = []
    waiter = threading.Thread(target=lambda: ended.append(job.wait(60).state))
    waiter.start()
    eventually(lambda: node.jobs.get(job.id).state == "running", 30)
    relay.cut()
    assert node.jobs.get(job.id).state in ("running", "completed")
    waiter.join()
    assert ended == ["completed"]
    relay.close_port()
    with pytest.raises(errors.UnavailableError) as refused:
        node.jobs.submit("misbehaving", {"value": 1}, action="echo")
    assert refused.value.code == "remote.no_answer"
    closed = threading.Timer(0.3, relay.open_port)
    closed.start()
    assert node.jobs.get(job.id).state == "completed"
    closed.join()


def test_a_result_goes_on_where_its_download_broke(
    relay: Relay, node: NodeElsewhere, elsewhere: CommandLine, tmp_path: Path
) -> None:
    value = secrets.token_bytes(6_000_000)
    job = node.jobs.submit("misbehaving", {"value": value}, action="echo")
    assert job.wait(60).state == "completed"
    relay.lets_through = 1_000_000
    before = relay.connections
    assert job.result() == value
    assert relay.connections >= before + 5
    done = elsewhere("job", "result", job.id, "--output", tmp_path / "result")
    assert done.status == 0, done.err
    assert (tmp_path / "result").read_bytes() == value


def test_what_is_wrong_with_an_address_is_said_in_words(
    daemon: Daemon, relay: Relay, authority: Authority, tmp_path: Path
) -> None:
    def code_of(address: str, **more: Any) -> tuple[str, str]:
        with pytest.raises(errors.NodeError) as refused:
            toft.connect(url=address, **more)
        assert refused.value.hint
        return refused.value.code, str(refused.value.details.get("reason", ""))

    own = {"ca_file": authority.file}
    port = relay.port
    assert code_of(f"https://localhost:{port}") == ("remote.certificate", "untrusted")
    assert code_of(f"http://localhost:{port}")[0] == "remote.gone"
    with relays.running(to(daemon), authority.context("gpu1.example")) as other:
        assert code_of(url(other), **own) == ("remote.certificate", "name")
        assert code_of(f"https://127.0.0.1:{other.port}", **own) == ("remote.certificate", "name")
    with relays.running(to(daemon), authority.context("localhost", days=-1)) as old:
        assert code_of(url(old), **own) == ("remote.certificate", "expired")
    with relays.running(to(daemon)) as plain:
        assert code_of(f"https://localhost:{plain.port}", **own)[0] == "remote.tls"
        assert toft.connect(url=f"http://127.0.0.1:{plain.port}/").close() is None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert code_of(nobody) == ("remote.no_answer", "refused")
    assert code_of("http://no-such-machine.invalid") == ("remote.no_answer", "name")
    (tmp_path / "bad.pem").write_text("nothing")
    assert code_of(url(relay), ca_file=tmp_path / "bad.pem")[0] == "remote.ca_file"
    assert code_of(url(relay), ca_file=tmp_path / "none.pem")[0] == "remote.ca_file"


async def test_a_server_that_is_no_node_is_called_that() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(errors.UnavailableError) as refused:
            async with toft.open_remote(f"http://127.0.0.1:{port}"):
                pass
        assert refused.value.code == "remote.no_node"


async def test_a_program_with_asyncio_has_the_same(relay: Relay, authority: Authority, token: str) -> None:
    async with toft.open_remote(url(relay), token=token, ca_file=authority.file) as node:
        loaded = await node.load("misbehaving")
        assert await loaded.call_with("echo", {"value": 3}) == 3
        job = await node.jobs.submit("misbehaving", {"value": 4}, action="echo")
        assert (await node.jobs.wait(job.id, 30)).state == "completed"
        assert await node.jobs.result(job.id) == 4
        assert (await node.installed.get("writer")).name == "writer"
        with pytest.raises(errors.RefusedError) as refused:
            await node.installed.setup_conda()
        assert refused.value.code == "remote.local_only"


def test_paths_of_this_machine_are_refused_and_those_of_the_node_are_not(
    node: NodeElsewhere, tmp_path: Path
) -> None:
    with node.load("writer") as writer:
        for bad in ("notes.txt", tmp_path / "notes.txt", Path("notes.txt")):
            with pytest.raises(errors.UsageError) as refused:
                writer.call("write_file", path=bad)
            assert (refused.value.code, list(refused.value.details["fields"])) == (
                "remote.local_path",
                ["path"],
            )
        with pytest.raises(errors.UsageError):
            node.jobs.submit("writer", {"value": [{"deep": Path("/x")}]}, action="echo")
        with pytest.raises(errors.UsageError):
            node.jobs.submit("writer", {"path": "x"}, action="write_file")
        with pytest.raises(errors.UsageError):
            node.jobs.submit_graph([{"plugin": "writer", "action": "write_file", "arguments": {"path": "x"}}])
        with pytest.raises(errors.UsageError):
            node.load("misbehaving", new=True, writable=["here"])
        assert isinstance(writer.call("write_file", path="/proc/nothing"), str)


def test_the_command_line_needs_no_home_here(elsewhere: CommandLine) -> None:
    assert [each["name"] for each in elsewhere("plugin", "list", "--json").value] == ["misbehaving", "writer"]
    (elsewhere.directory / "said.txt").write_text("from here")
    assert elsewhere("run", "misbehaving.echo", "value=@said.txt", "--json").value["result"] == "from here"
    told = elsewhere("job", "submit", "misbehaving.echo", "value=6", "--wait", "--json").value
    assert told["state"] == "completed"
    assert elsewhere("job", "result", told["id"], "--json").value["result"] == 6
    assert elsewhere("status", "--json").value["state"] == "ready"
    (elsewhere.directory / "graph.json").write_text(
        json.dumps([{"plugin": "misbehaving", "action": "where"}])
    )
    assert elsewhere("sequence", "submit", "graph.json", "--wait", "--json").value["state"] == "completed"
    events = [json.loads(line) for line in elsewhere("job", "events", told["id"], "--json").out.splitlines()]
    assert [each["to"] for each in events if each["type"] == "state"][-1] == "completed"
    assert elsewhere("run", "writer.write_file", "path=note", "--json").error["code"] == "remote.local_path"
    assert elsewhere("run", "writer.write_file", "path=/proc/x", "--json").status == 0
    assert not (elsewhere.directory / "nobody").exists()


def test_what_is_about_this_machine_is_refused_for_another_one(
    elsewhere: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        "up",
        "down",
        "logs",
        "doctor",
        "backup x",
        "service install",
        "plugin test numpy",
        "demo",
    ):
        assert app.run([*command.split(), "--json"], Session(environ=elsewhere.environ)) == 2
        error = json.loads(capsys.readouterr().err)["error"]
        assert (error["code"], elsewhere.environ["TOFT_URL"] in error["message"]) == (
            "remote.local_only",
            True,
        )
    assert app.run(["--home", "/x", "--url", "https://x.example", "status", "--json"]) == 2
    capsys.readouterr()
    # A home that is named is meant, whatever the environment says.
    assert (
        app.run(["--home", str(elsewhere.directory), "status", "--json"], Session(environ=elsewhere.environ))
        == 0
    )
    assert json.loads(capsys.readouterr().out)["state"] == "stopped"


def test_what_a_token_may_not_is_refused_with_the_node_s_own_words(
    daemon: Daemon, relay: Relay, authority: Authority
) -> None:
    def connect(text: str | None) -> NodeElsewhere:
        found = toft.connect(url=url(relay), token=text, ca_file=authority.file)
        assert isinstance(found, NodeElsewhere)
        return found

    for wrong, reason in (
        (None, None),
        ("toft_" + "A" * 32, "unknown"),
        (make_token(daemon, "old", "*", expires="1s"), "expired"),
    ):
        if reason == "expired":
            eventually(lambda: daemon.toft("token", "list", "--json").value[-1]["state"] == "expired")
        with pytest.raises(errors.NodeError) as refused:
            connect(wrong)
        assert refused.value.code == "access.unauthenticated"
        if reason:
            assert refused.value.details["reason"] == reason
    # With fewer scopes than a session asks for, what they do allow works.
    with connect(make_token(daemon, "reader", "job:read", "result:read")) as reader:
        assert isinstance(reader.jobs.list(), list)
        with pytest.raises(errors.RefusedError) as denied:
            reader.jobs.submit("misbehaving", {"value": 1}, action="echo")
        assert denied.value.code == "access.refused"
    # Whoever submits and fetches need not be allowed to look at what is installed.
    with connect(make_token(daemon, "pipeline", "job:write", "result:read")) as pipeline:
        job = pipeline.jobs.submit("misbehaving", {"value": 7}, action="echo")
        assert job.wait(30).state == "completed"
        assert job.result() == 7


def test_a_watch_ends_with_the_token_it_was_begun_with(
    daemon: Daemon, relay: Relay, authority: Authority
) -> None:
    text = make_token(daemon, "brief", "read")
    with toft.connect(url=url(relay), token=text, ca_file=authority.file) as node:
        watch = node.jobs.watch()
        job = submit(daemon)
        assert next(watch).job == job
        ended: list[BaseException] = []

        def read() -> None:
            try:
                for _ in watch:
                    pass
            except errors.NodeError as error:
                ended.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        assert daemon.toft("token", "revoke", "brief", "--json").status == 0
        reader.join(10)
        assert [each.code for each in ended if isinstance(each, errors.NodeError)] == [
            "access.unauthenticated"
        ]


def test_every_room_of_a_node_is_asked_from_elsewhere(node: NodeElsewhere) -> None:
    node.set_secret("misbehaving", "SOME_KEY", "a-value-that-never-comes-back")
    stored = node.secrets.list("misbehaving")
    assert [(each["key"], each["stored"]) for each in stored] == [("SOME_KEY", True)]
    assert "a-value" not in json.dumps(node.secrets.list())
    node.secrets.remove("misbehaving", "SOME_KEY")
    assert node.secrets.list("misbehaving") == []
    assert list(node.installed.variables("misbehaving")) == []
    assert "label" in node.configuration.schema("misbehaving")["schema"]["properties"]
    assert node.configuration.validate("misbehaving", {"label": "x"})["valid"]
    assert not node.configuration.validate("misbehaving", {"label": 5})["valid"]
    assert node.configuration.options("misbehaving")["plugin"] == "misbehaving"
    node.configure("misbehaving", {"label": "changed"})
    assert node.config("misbehaving")["label"] == "changed"
    node.configure("misbehaving", {}, replace=True)
    assert list(node.installed.environments()) == list(node.installed.collect_environments()) == []
    assert set(node.jobs.samples()) >= {"at", "series"}
    job = node.jobs.submit("misbehaving", {"value": 1}, action="echo").wait(30)
    assert node.ask("GET", f"/v1/jobs/{job.id}/samples")["job"] == job.id
    assert [each["name"] for each in node.ask("GET", "/v1/tokens")][:1] == ["all"]


def test_the_command_line_manages_a_node_elsewhere(
    elsewhere: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    def toft_(*words: str) -> Any:
        assert app.run([*words, "--json"], Session(environ=elsewhere.environ)) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    made = toft_("token", "create", "shown", "--scope", "job:read")
    assert [each["state"] for each in toft_("token", "list") if each["name"] == "shown"] == ["valid"]
    assert not toft_("why-denied", "write", "job", "--token", "shown")["allowed"]
    assert made["token"] not in json.dumps(toft_("token", "revoke", "shown"))
    assert toft_("open")["url"].startswith(elsewhere.environ["TOFT_URL"])
    assert toft_("secret", "list") == []
    assert toft_("env", "list") == []
    assert toft_("plugin", "show", "misbehaving")["code"]["config_schema"]
    assert toft_("plugin", "config", "misbehaving")["config"]["label"] == "plain"
    assert toft_("plugin", "find", "echo")[0]["name"] == "misbehaving"
    assert isinstance(toft_("plugin", "logs", "misbehaving"), list)
    assert toft_("top")["lanes"] >= 1
