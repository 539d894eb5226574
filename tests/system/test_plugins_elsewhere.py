"""Plugins are installed on another machine: uploaded, built there, all of it or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import io
import json
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests import daemons, relays
from tests.command_line import keep_token
from tests.daemons import Answer, Daemon
from tests.sample_packages import write_project, write_wheel
from tests.waiting import eventually

import toft
from toft.blocking.remote import NodeElsewhere
from toft.cli import app
from toft.cli.session import Session
from toft.kernel import errors
from toft.plugins.plugin_errors import PluginError

PLUGIN = '''
"""Says hello."""
from toft_sdk import Plugin


class Hello(Plugin):
    """Greets people."""

    def execute(self, who: str = "world") -> str:
        return f"hello {who}"
'''
JSON = "application/json"
MOST = 4_000_000
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("node")
    # As a daemon leaves it that is killed while it installs.
    (directory / "home" / "artifacts" / ".tmp-placed-by-another" / "deep").mkdir(parents=True)
    (directory / "home").chmod(0o700)
    with daemons.running(directory / "home", directory, listen="127.0.0.1:0", request_bytes=MOST) as running:
        yield running


@pytest.fixture(scope="module")
def url(daemon: Daemon) -> str:
    return str(daemon.status()["listen"])


def token(daemon: Daemon, name: str, *scopes: str) -> str:
    options = [word for scope in scopes for word in ("--scope", scope)]
    return str(daemon.toft("token", "create", name, *options, "--json").value["token"])


@pytest.fixture(scope="module")
def key(daemon: Daemon) -> str:
    return token(daemon, "all", "*")


@pytest.fixture
def node(url: str, key: str) -> Iterator[NodeElsewhere]:
    found = toft.connect(url=url, token=key)
    assert isinstance(found, NodeElsewhere)
    with found:
        yield found
        for each in found.plugins():
            found.remove(each.name)
        found.installed.collect_environments()
        for each in found.ask("GET", "/v1/artifacts"):
            found.ask("DELETE", f"/v1/artifacts/{each['sha256']}")


def file(directory: Path, name: str = "hello", text: str = PLUGIN) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.py"
    path.write_text(text)
    return path


def put(daemon: Daemon, data: bytes, *, digest: str = "", **headers: str) -> Answer:
    """Upload as any client would."""
    name = digest or hashlib.sha256(data).hexdigest()
    return daemon.request("PUT", f"/v1/artifacts/{name}", data, {**BYTES, **headers})


def kept(daemon: Daemon) -> list[str]:
    """What lies in the store of uploads, half files too."""
    directory = daemon.toft.home / "artifacts"
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_a_directory_is_uploaded_installed_and_run_by_the_command_line(
    daemon: Daemon,
    url: str,
    key: str,
    node: NodeElsewhere,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = keep_token(tmp_path / "key", key)
    environ = {"TOFT_URL": url, "TOFT_TOKEN_FILE": kept, "HOME": str(tmp_path / "nobody")}
    project = write_project(tmp_path / "hello", "hello", {"hello.py": PLUGIN})
    (project / ".git").mkdir()
    (project / ".git" / "config").write_text("a secret address")

    def toft_(*words: str) -> Any:
        assert app.run([*words, "--json"], Session(environ=environ)) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    [added] = toft_("plugin", "add", str(project))
    assert (added["name"], added["state"]) == ("hello", "ready")
    assert toft_("run", "hello", "who=you")["result"] == "hello you"
    told = toft_("job", "submit", "hello", "--wait")
    assert (told["state"], node.jobs.get(told["id"]).result()) == ("completed", "hello world")
    assert all(each["ok"] for each in toft_("plugin", "check", "hello"))
    assert toft_("plugin", "size", "hello")["exists"]
    assert toft_("plugin", "size", str(project))["exists"]
    # The same directory again replaces what came from it; what is in it now is what runs.
    (project / "hello.py").write_text(PLUGIN.replace("hello {who}", "good day {who}"))
    before = node.installed.get("hello").runtime
    toft_("plugin", "add", str(project))
    assert node.installed.get("hello").runtime.environment != before.environment
    assert toft_("run", "hello", "who=you")["result"] == "good day you"
    # The project is not needed for this any more: it is the uploaded one that is built again.
    project.rename(tmp_path / "gone")
    assert toft_("plugin", "refresh", "hello")[0]["name"] == "hello"
    assert toft_("plugin", "regenerate", "hello")[0]["name"] == "hello"
    source = node.installed.get("hello").runtime.source
    assert source == f"{socket.gethostname()}:{project}"
    assert toft_("plugin", "remove", "hello", "--yes") == {"removed": "hello"}
    assert not (tmp_path / "nobody").exists()


def code_of(node: Any, source: object, **more: Any) -> str:
    with pytest.raises((errors.NodeError, PluginError)) as caught:
        node.installed.add(str(source), **more)
    return str(caught.value.code)  # type: ignore[attr-defined]


def test_what_is_refused_here_is_refused_there_with_the_same_code(
    node: NodeElsewhere, tmp_path: Path, toft_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    steps: list[str] = []
    one, other = file(tmp_path / "one"), file(tmp_path / "two")
    bad = file(tmp_path / "bad", "bad", "raise RuntimeError('no')")
    empty = file(tmp_path / "empty", "empty", "X = 1")
    (tmp_path / "list.yaml").write_text("plugins: [3]")
    cases: tuple[tuple[object, dict[str, Any]], ...] = (
        (other, {}),
        (tmp_path / "nothing", {}),
        ("two words", {}),
        (bad, {}),
        (empty, {}),
        (tmp_path / "list.yaml", {}),
        ("no-such-package-anywhere==1", {}),
        (other, {"name": "../x"}),
        (other, {"python": "2.7"}),
        (other, {"requirements": (str(tmp_path / "none.whl"),)}),
        (other, {"lock": str(tmp_path / "nothing.txt")}),
    )
    with toft.connect(toft_home, embedded=True, offline=True) as here:
        for each in (here, node):
            assert [each.name for each in each.installed.add(str(one), on_step=steps.append)] == ["hello"]
        told = [(code_of(here, case[0], **case[1]), code_of(node, case[0], **case[1])) for case in cases]
        assert [there for _, there in told] == [one for one, _ in told]
    assert told[0] == ("plugin.exists", "plugin.exists")
    assert len({code for code, _ in told}) > 6
    assert code_of(node, other, python="/usr/bin/python3") == "remote.local_path"
    assert [each for each in steps if each.startswith("uploading")] == ["uploading hello.py"]
    # Nothing of all this is left, and what was there is as it was.
    assert [each.name for each in node.plugins()] == ["hello"]
    assert node.installed.get("hello").runtime.source.endswith("one/hello.py")
    assert [each.name for each in node.installed.add(str(other), force=True)] == ["hello"]
    assert len(node.installed.environments()) == 1


def test_secrets_are_told_by_name_and_an_environment_goes_when_nothing_needs_it(
    node: NodeElsewhere, tmp_path: Path
) -> None:
    node.installed.add(str(file(tmp_path / "one")))
    node.set_secret("hello", "KEY", "hidden")
    assert [(each.plugin, each.name, each.stored) for each in node.installed.secrets()] == [
        ("hello", "KEY", True)
    ]
    assert node.installed.secrets("hello") == node.installed.secrets()
    assert node.installed.variables("hello") == []
    [environment] = node.installed.environments()
    with pytest.raises(errors.ConflictError):
        node.installed.remove_environment(environment.hash)
    assert node.installed.remove("hello", keep_environment=True)
    removed = node.installed.remove_environment(environment.hash)
    assert (removed.hash, removed.size_bytes) == (environment.hash, environment.size_bytes)
    assert node.installed.environments() == []
    with pytest.raises(errors.NotFoundError):
        node.installed.remove_environment(environment.hash)


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, str(answer.value.get("code", ""))


def add(daemon: Daemon, source: str, **more: Any) -> Answer:
    return daemon.request("POST", "/v1/plugins", {"source": source, **more}, {"Content-Type": JSON})


def test_an_upload_is_kept_under_its_digest_and_read_in_pieces(daemon: Daemon, node: NodeElsewhere) -> None:
    data = os.urandom(300_000)
    digest = hashlib.sha256(data).hexdigest()
    with ThreadPoolExecutor(4) as pool:
        # Several send the same at once: each is told that it is there, and it is, once.
        answers = list(pool.map(lambda _: put(daemon, data), range(4)))
    assert [(each.status, each.value["size_bytes"]) for each in answers] == [(201, 300_000)] * 4
    assert kept(daemon) == [f"sha256/{digest[:2]}/{digest[2:]}"]
    path = f"/v1/artifacts/{digest}"
    whole = daemon.request("GET", path)
    assert (whole.body, whole.headers["ETag"]) == (data, f'"{digest}"')
    piece = daemon.request("GET", path, headers={"Range": "bytes=299990-", "If-Range": f'"{digest}"'})
    assert (piece.status, piece.body) == (206, data[-10:])
    head = daemon.request("HEAD", path)
    assert (head.status, head.headers["Content-Length"], head.body) == (200, "300000", b"")
    assert daemon.request("GET", path, headers={"If-None-Match": f'"{digest}"'}).status == 304
    assert code(daemon.request("GET", path, headers={"Range": "bytes=300000-"})) == (416, "request.range")
    assert [each["sha256"] for each in node.ask("GET", "/v1/artifacts")] == [digest]
    assert node.ask("DELETE", path) == {"removed": True}
    assert node.ask("DELETE", path) == {"removed": False}
    assert code(daemon.request("GET", path)) == (404, "artifact.not_found")
    assert kept(daemon) == []


def test_an_upload_that_is_not_what_it_says_is_nothing(daemon: Daemon) -> None:
    artifacts = daemon.toft.home / "artifacts"
    eventually(lambda: not (artifacts / ".tmp-placed-by-another").exists())
    before = kept(daemon)
    data = b"x" * 100_000
    digest = hashlib.sha256(data).hexdigest()
    assert code(put(daemon, data[:-1], digest=digest)) == (400, "artifact.digest")
    assert code(put(daemon, data, digest=digest[:-1])) == (400, "blob.digest")
    assert code(put(daemon, data, digest=digest.upper())) == (400, "blob.digest")
    assert code(put(daemon, data, **{"Content-Type": "text/plain"})) == (415, "request.media_type")
    assert code(put(daemon, data, **{"Content-Encoding": "gzip"})) == (415, "request.media_type")
    claims = daemon.ask(
        f"PUT /v1/artifacts/{digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {MOST + 1}\r\n\r\n".encode()
    )
    assert b" 413 " in claims.partition(b"\r\n")[0]
    head = f"PUT /v1/artifacts/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
    for cut in (0, 1, 50_000, 99_999):
        with daemon.connect() as sock:
            sock.sendall(head + b"Content-Length: 100000\r\n\r\n" + data[:cut])
    chunk = b"186a0\r\n" + data + b"\r\n"
    with daemon.connect() as sock:
        sock.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)  # all of it but its end
    too_many = b"".join(b"%x\r\n%s\r\n" % (len(data), data) for _ in range(45)) + b"0\r\n\r\n"
    answer = daemon.ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + too_many)
    assert b" 413 " in answer.partition(b"\r\n")[0]
    eventually(lambda: kept(daemon) == before)
    # Whole after all that, in chunks too.
    answer = daemon.ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n")
    assert b" 201 " in answer.partition(b"\r\n")[0]
    assert daemon.request("DELETE", f"/v1/artifacts/{digest}").value == {"removed": True}


def test_what_nobody_should_install_leaves_what_was_there(daemon: Daemon, node: NodeElsewhere) -> None:
    good = PLUGIN.encode()
    source = f"artifact:{put(daemon, good).value['sha256']}/hello.py"
    assert add(daemon, source).status == 201
    before = (node.installed.get("hello").to_dict(), sorted(os.listdir(daemon.toft.home / "environments")))

    def tar(*members: tarfile.TarInfo) -> bytes:
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as archive:
            for each in members:
                archive.addfile(each, io.BytesIO(b"\0" * each.size))
        return held.getvalue()

    link = tarfile.TarInfo("x")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    cases = {
        ("up.tar", tar(tarfile.TarInfo("../x"))): (400, "artifact.unsafe"),
        ("link.tar", tar(link)): (400, "artifact.unsafe"),
        ("many.tar", tar(*(tarfile.TarInfo(f"{each}") for each in range(3_000)))): (
            400,
            "source.not_a_project",
        ),
        ("no.tar", good): (400, "artifact.unsafe"),
        ("no-1-py3-none-any.whl", good): (400, "artifact.unsafe"),
        ("no.py", b"\xff\xfe"): (400, "source.invalid"),
        ("no.zip", good): (400, "source.invalid"),
        ("hello.py", good.replace(b"def execute", b"def other")): (502, "plugin.signature"),
    }
    for (name, data), expected in cases.items():
        answer = add(daemon, f"artifact:{put(daemon, data).value['sha256']}/{name}")
        assert code(answer) == expected, name
    assert code(add(daemon, f"artifact:{'0' * 64}/x.py")) == (404, "artifact.not_found")
    assert code(add(daemon, str(daemon.toft.home))) == (400, "source.elsewhere")
    # A word is never a project that lies where the daemon works.
    write_project(daemon.toft.home / "lying", "lying", {"lying.py": PLUGIN})
    assert code(add(daemon, "lying")) == (503, "environment.offline_missing")
    assert code(add(daemon, source, requirements=["lying"])) == (503, "environment.offline_missing")
    assert code(add(daemon, source, requirements=["/etc"])) == (400, "source.elsewhere")
    assert code(add(daemon, source, lock=source)) == (400, "environment.bad_lock")
    assert code(add(daemon, source, env_vars={"NOBODY_DECLARED_IT": "x"})) == (201, "")
    again = (node.installed.get("hello").to_dict(), sorted(os.listdir(daemon.toft.home / "environments")))
    assert again[1] == before[1]
    in_use = daemon.request("DELETE", f"/v1/artifacts/{source[9:73]}")
    assert code(in_use) == (409, "artifact.in_use")
    for each in node.ask("GET", "/v1/artifacts"):
        daemon.request("DELETE", f"/v1/artifacts/{each['sha256']}")
    assert kept(daemon) == [f"sha256/{source[9:11]}/{source[11:73]}"]


SLOW = "import time\n" + PLUGIN + "\n\nclass Slow:\n    time.sleep(100)\n"


def states(daemon: Daemon) -> tuple[list[str], list[str]]:
    """Which plugins and environments are on that machine, half ones too."""
    home = daemon.toft.home
    found = [home / "plugins", home / "environments"]
    first, second = (sorted(os.listdir(each)) if each.is_dir() else [] for each in found)
    return first, second


@contextlib.contextmanager
def asking(daemon: Daemon, body: Any, key: str = "") -> Iterator[http.client.HTTPResponse]:
    """Install until the plugin is being imported; the connection is cut at the end of the block."""
    connection = http.client.HTTPConnection("localhost", timeout=25)
    headers = {"Content-Type": JSON, "Accept": "application/x-ndjson"}
    if key:
        where = urlsplit(str(daemon.status()["listen"]))
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=25)
        headers["Authorization"] = f"Bearer {key}"
    else:
        connection.sock = daemon.connect()
    connection.request("POST", "/v1/plugins", body=json.dumps(body), headers=headers)
    with contextlib.closing(connection), contextlib.closing(connection.getresponse()) as answer:
        while not json.loads(answer.readline())["text"].startswith("asking"):
            pass
        yield answer


def test_a_connection_that_is_cut_leaves_what_was_there(daemon: Daemon, node: NodeElsewhere) -> None:
    for text in (PLUGIN, SLOW):
        put(daemon, text.encode())
    names = [f"artifact:{hashlib.sha256(each.encode()).hexdigest()}/hello.py" for each in (PLUGIN, SLOW)]
    before = states(daemon)
    with asking(daemon, {"source": names[1]}):
        assert len(states(daemon)[1]) > len(before[1])
    eventually(lambda: states(daemon)[1] == before[1])
    assert node.plugins() == []
    # The same when it would have replaced something, and the same again for who asks for no steps.
    assert add(daemon, names[0]).status == 201
    installed = states(daemon)
    manifest = node.installed.get("hello").to_dict()
    with asking(daemon, {"source": names[1], "force": True}):
        assert len(states(daemon)[1]) > len(installed[1])
    body = json.dumps({"source": names[1], "force": True}).encode()
    with daemon.connect() as sock:
        sock.sendall(
            f"POST /v1/plugins HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        eventually(lambda: len(states(daemon)[1]) > len(installed[1]))
    eventually(lambda: states(daemon) == installed)
    assert node.installed.get("hello").to_dict() == manifest
    with node.load("hello") as loaded:
        assert loaded.call("execute", who="still") == "hello still"


def test_a_token_that_ends_ends_what_it_installs(daemon: Daemon, node: NodeElsewhere) -> None:
    put(daemon, SLOW.encode())
    before = states(daemon)
    key = token(daemon, "brief", "plugin:admin")
    name = f"artifact:{hashlib.sha256(SLOW.encode()).hexdigest()}/hello.py"
    with asking(daemon, {"source": name}, key) as answer:
        assert daemon.toft("token", "revoke", "brief", "--json").status == 0
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            assert b"ended" not in answer.read()
        eventually(lambda: states(daemon) == before)


def test_who_is_limited_to_a_plugin_installs_that_one(
    daemon: Daemon, url: str, node: NodeElsewhere, tmp_path: Path
) -> None:
    node.installed.add(str(file(tmp_path / "one")))
    theirs = node.ask("GET", "/v1/artifacts")[0]["sha256"]
    key = token(daemon, "limited", "*:admin:mine")
    with toft.connect(url=url, token=key) as mine:
        source = str(file(tmp_path / "mine", "mine"))
        for more in ({}, {"name": "hello"}, {"name": "hello", "force": True}):
            assert code_of(mine, source, **more) == "access.refused"
        assert [each.name for each in mine.installed.add(source, name="mine")] == ["mine"]
        for refused in (
            lambda: mine.refresh("hello"),
            lambda: mine.installed.regenerate("hello"),
            lambda: mine.installed.check("hello"),
            lambda: mine.ask("POST", "/v1/environments/size", {"source": "hello"}),
            lambda: mine.ask("DELETE", f"/v1/artifacts/{theirs}"),
        ):
            with pytest.raises(errors.RefusedError) as caught:
                refused()
            assert caught.value.code == "access.refused"
        assert mine.ask("GET", "/v1/artifacts") == []
        assert mine.refresh("mine").name == "mine"
        assert all(each.ok for each in mine.installed.check("mine"))
    with toft.connect(url=url, token=token(daemon, "writer", "write")) as writer:
        assert code_of(writer, source) == "access.refused"
        assert all(each.ok for each in writer.installed.check("hello"))
    assert node.installed.get("hello").runtime.source.endswith("one/hello.py")


def test_a_list_of_plugins_is_installed_as_far_as_it_can_be(node: NodeElsewhere, tmp_path: Path) -> None:
    file(tmp_path / "one")
    wheel = write_wheel("other", "1", {"other.py": PLUGIN}, tmp_path / "wheels")
    (tmp_path / "plugins.yaml").write_text(
        "plugins:\n"
        "- {name: first, env_name: a, package: ./one/hello.py, python_version: '3.11'}\n"
        "- {name: second, env_name: b, package: ./none.whl, python_version: '3.11'}\n"
        f"- {{name: third, env_name: c, package: {wheel}, python_version: '3.11'}}\n"
    )
    with pytest.raises(errors.NodeError) as partly:
        node.installed.add(str(tmp_path / "plugins.yaml"))
    assert (partly.value.code, partly.value.details["added"]) == ("plugin.partly_added", ["first", "third"])
    assert [each.name for each in node.plugins()] == ["first", "third"]


def test_an_upload_goes_on_where_a_connection_broke_and_an_installation_does_not(
    url: str, key: str, tmp_path: Path
) -> None:
    where = urlsplit(url)

    async def reach() -> relays.Streams:
        return await asyncio.open_connection(where.hostname, where.port)

    with relays.running(reach) as relay, toft.connect(url=f"http://127.0.0.1:{relay.port}", token=key) as cut:
        steps: list[str] = []

        def step(text: str) -> None:
            steps.append(text)
            if text.startswith("asking"):
                threading.Thread(target=relay.cut).start()

        relay.close_port()
        opens = threading.Timer(0.3, relay.open_port)
        opens.start()
        with pytest.raises(errors.UnavailableError) as gone:
            cut.installed.add(str(file(tmp_path / "one", text=SLOW)), on_step=step)
        opens.join()
        assert (gone.value.code, "given up" in gone.value.hint) == ("remote.gone", True)
        assert steps[-1].startswith("asking")
    with toft.connect(url=url, token=key) as node:
        eventually(lambda: list(node.installed.environments()) == [])
        assert node.plugins() == []
