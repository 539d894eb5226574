"""Plugins are installed on another machine: uploaded, built there, all of it or nothing."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import daemons
from tests.daemons import Answer, Daemon
from tests.sample_packages import write_project

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
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("node")
    with daemons.running(directory / "home", directory, listen="127.0.0.1:0") as running:
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


def file(directory: Path, name: str = "hello", text: str = PLUGIN) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.py"
    path.write_text(text)
    return path


def put(daemon: Daemon, data: bytes, *, digest: str = "", **headers: str) -> Answer:
    """Upload as any client would."""
    connection = http.client.HTTPConnection("localhost", timeout=25)
    connection.sock = daemon.connect()
    try:
        name = digest or hashlib.sha256(data).hexdigest()
        connection.request("PUT", f"/v1/artifacts/{name}", body=data, headers={**BYTES, **headers})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


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
    (tmp_path / "key").write_text(key)
    environ = {"TOFT_URL": url, "TOFT_TOKEN_FILE": str(tmp_path / "key"), "HOME": str(tmp_path / "nobody")}
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
