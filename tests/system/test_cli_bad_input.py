"""Input that cannot be used is refused with a code, a reason and a next step, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import textwrap
from pathlib import Path

import pytest
from tests.command_line import CommandLine
from tests.sample_packages import write_project

HELLO = '''
    """Says hello."""
    from toft_sdk import Plugin


    class Hello(Plugin):
        """Say hello."""

        name = {name!r}

        def execute(self, who: str = "world") -> str:
            """Say it."""
            return "hello " + who
'''

BROKEN_AT_IMPORT = {
    "raises": ("raise RuntimeError('broken on purpose')", "broken on purpose"),
    "imports what is not there": ("import no_such_module_here", "no_such_module_here"),
    "is no Python": ("def def", "syntax"),
    "exits": ("import os; os._exit(9)", "9"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    "hangs": ("import time\nwhile True:\n    time.sleep(1)", "stall"),
    "has no plugin": ("VALUE = 1", "plugin"),
    "starts daemons and raises": (
        "import os\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n"
        "        if os.fork() == 0:\n            __import__('time').sleep(600)\n        os._exit(0)\n"
        "raise RuntimeError('broken on purpose')",
        "broken on purpose",
    ),
}


@pytest.fixture
def toft(toft_home: Path, tmp_path: Path) -> CommandLine:
    return CommandLine(toft_home, tmp_path)


def project(directory: Path, name: str, code: str) -> Path:
    return write_project(directory / name, name, {f"{name.replace('-', '_')}.py": code})


@pytest.mark.parametrize("how", BROKEN_AT_IMPORT)
def test_a_plugin_that_cannot_be_imported_is_not_added(toft: CommandLine, tmp_path: Path, how: str) -> None:
    code, reason = BROKEN_AT_IMPORT[how]
    if how == "hangs":  # the others may take what a busy machine needs
        toft.settings(load_stall_s=2.0)
    # A class is named, so that only running the module can tell that it is not there.
    text = textwrap.dedent(HELLO.format(name="broken")) if how != "has no plugin" else ""
    write_project(tmp_path / "broken", "broken", {"broken.py": f"{code}\n{text}"})
    error = toft("plugin", "add", "./broken", "--json").error
    assert reason.lower() in json.dumps(error).lower()
    assert error["message"]
    assert error["hint"]
    assert toft.leftovers() == []
    assert toft("plugin", "list", "--json").value == []


@pytest.mark.parametrize("name", ["../evil", "evil\nplugin: good", "Évil", "", "x" * 65, "a/b", ".."])
def test_a_plugin_whose_name_could_be_something_else_is_not_added(
    toft: CommandLine, tmp_path: Path, name: str
) -> None:
    project(tmp_path, "evil", HELLO.format(name=name))
    error = toft("plugin", "add", "./evil", "--json").error
    assert error["code"] == "name.invalid"
    assert toft.leftovers() == []
    assert not (toft.home.parent / "evil-outside").exists()


def test_a_manifest_with_a_bad_name_hides_nobody_and_reaches_nothing(
    toft: CommandLine, tmp_path: Path
) -> None:
    project(tmp_path, "good", HELLO.format(name="good"))
    toft("plugin", "add", "./good")
    manifest = json.loads((toft.home / "plugins" / "good" / "manifest.json").read_text())
    for number, name in enumerate(("../../outside", "two\nlines")):
        directory = toft.home / "plugins" / f"bad-{number}"
        directory.mkdir()
        manifest["code"]["name"] = name
        (directory / "manifest.json").write_text(json.dumps(manifest))
        assert toft("run", name, "--json").error["code"] == "name.invalid"
        assert toft("plugin", "remove", name, "--json").error["code"] == "name.invalid"
    listed = toft("plugin", "list", "--json")
    assert [each["name"] for each in json.loads(listed.out)] == ["good"]
    assert listed.err.count("is passed over") == 2
    checks = {each["check"]: each for each in json.loads(toft("doctor", "--json").out)}
    assert not checks["plugins"]["ok"]
    assert "bad-0" in checks["plugins"]["evidence"]


def test_two_plugins_of_one_name_are_not_confused(toft: CommandLine, tmp_path: Path) -> None:
    project(tmp_path, "first", HELLO.format(name="hello"))
    project(tmp_path, "second", HELLO.format(name="hello"))
    toft("plugin", "add", "./first")
    before = toft.leftovers()
    error = toft("plugin", "add", "./second", "--json").error
    assert error["code"] == "plugin.exists"
    assert "first" in error["message"]
    assert "--name" in error["hint"]
    assert toft.leftovers() == before
    assert toft("plugin", "add", "./second", "--name", "other", "--json").value[0]["name"] == "other"
    assert toft("plugin", "add", "./second", "--force", "--json").status == 0


@pytest.mark.parametrize(
    ("requires", "arguments", "code", "reason"),
    [
        (("no-such-package-here==1",), (), "environment", "no-such-package-here"),
        ((), ("--python", "3.99"), "environment.no_interpreter", "3.99"),
        ((), ("--python", "/nonexistent/python"), "environment.no_interpreter", "/nonexistent/python"),
        ((), ("--python", "not a version"), "environment.bad_python", "not a version"),
        ((), ("--with", "--index-url=elsewhere"), "", "index-url"),
        ((), ("--name", "../evil"), "name.invalid", "evil"),
        ((), ("--lock", "no.txt"), "source", "no.txt"),
    ],
)
def test_an_environment_that_cannot_be_made_says_why(
    toft: CommandLine,
    tmp_path: Path,
    requires: tuple[str, ...],
    arguments: tuple[str, ...],
    code: str,
    reason: str,
) -> None:
    files = {"hello.py": HELLO.format(name="hello")}
    write_project(tmp_path / "hello", "hello", files, requires=requires)
    error = toft("plugin", "add", "./hello", *arguments, "--json").error
    assert error["code"].startswith(code)
    assert reason in json.dumps(error)
    assert len(error["message"]) < 2000, "the resolver's reason is shortened"
    assert toft.leftovers() == []


@pytest.mark.parametrize(
    "source",
    [
        "./nowhere",
        "not a requirement!",
        "two\nlines",
        "",
        "./plain-folder",
        "./no.whl",
        "./list.txt",
        "../../../etc",
    ],
)
def test_a_source_that_is_none_is_refused_by_name(toft: CommandLine, tmp_path: Path, source: str) -> None:
    (tmp_path / "plain-folder").mkdir()
    (tmp_path / "no.whl").write_text("not a wheel")
    (tmp_path / "list.txt").write_text("requests==2")
    error = toft("plugin", "add", source, "--json").error
    assert error["code"].startswith("source.")
    assert toft.leftovers() == []


@pytest.mark.parametrize(
    "content", ["", "plugins: 5", "plugins:\n- name: ../x", ": : :", "plugins: []\nplugins: []\n- x"]
)
def test_a_list_that_cannot_be_read_names_every_problem(
    toft: CommandLine, tmp_path: Path, content: str
) -> None:
    (tmp_path / "plugins.yaml").write_text(content)
    error = toft("plugin", "add", "--json").error
    assert error["code"].startswith("plugins_yaml.")
    assert toft.leftovers() == []


def test_a_full_disk_during_an_install_leaves_nothing(toft: CommandLine, tmp_path: Path) -> None:
    files = {"hello.py": HELLO.format(name="hello"), "big.py": "DATA = '" + "x" * 3_000_000 + "'\n"}
    write_project(tmp_path / "hello", "hello", files)
    limit = 1_000_000
    process = toft.start(
        "plugin",
        "add",
        "./hello",
        "--json",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    error = json.loads(err)["error"]
    assert error["code"] == "environment.disk_full"
    assert "toft env gc" in error["hint"] or "space" in error["hint"]
    assert toft.leftovers() == []
    assert toft("plugin", "add", "./hello", "--json").value[0]["name"] == "hello"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "nothing"),
        ("plugin", "show", "nothing"),
        ("plugin", "remove", "nothing"),
        ("plugin", "refresh", "nothing"),
        ("plugin", "check", "nothing"),
        ("plugin", "config", "nothing"),
        ("plugin", "config", "nothing", "x=1"),
        ("plugin", "enable", "nothing"),
        ("plugin", "disable", "nothing"),
        ("plugin", "logs", "nothing"),
        ("plugin", "regenerate", "nothing"),
        ("plugin", "test", "nothing"),
    ],
)
def test_an_unknown_plugin_is_not_found_by_any_command(toft: CommandLine, arguments: tuple[str, ...]) -> None:
    error = toft(*arguments, "--json").error
    assert error["code"] in ("plugin.not_found", "source.not_found")
    assert "nothing" in error["message"]
    assert toft.leftovers() == []


def test_a_name_that_is_nearly_right_is_suggested(toft: CommandLine, tmp_path: Path) -> None:
    project(tmp_path, "hello", HELLO.format(name="hello"))
    toft("plugin", "add", "./hello")
    assert "hello" in toft("run", "helo", "--json").error["message"]
    error = toft("run", "hello.exekute", "--json").error
    assert "execute" in error["message"]
    error = toft("run", "hello", "whoo=Ada", "--json").error
    assert "who" in error["details"]["fields"]["whoo"]


def test_a_home_that_cannot_be_used_is_said_by_every_command(toft: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lost = CommandLine(tmp_path / "file" / "home", tmp_path)
    for arguments in (
        ("plugin", "list"),
        ("run", "x"),
        ("env", "gc"),
        ("secret", "set", "x", "KEY", "--from-stdin"),
    ):
        error = lost(*arguments, "--json", stdin="value").error
        assert str(tmp_path / "file") in json.dumps(error)
        assert error["hint"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_of_somebody_else_is_said(tmp_path: Path) -> None:
    error = CommandLine(Path("/toft-home"), tmp_path)("plugin", "list", "--json").error
    assert "/toft-home" in error["message"]


def test_a_damaged_database_is_said_with_what_to_do(toft: CommandLine) -> None:
    toft.home.mkdir(mode=0o700)
    (toft.home / "node.db").write_bytes(b"this is no database at all, but long enough" * 100)
    error = toft("plugin", "list", "--json").error
    assert error["code"].startswith("store.")
    assert "node.db" in error["message"]
    assert error["hint"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("colour = 1", "settings.unknown"),
        ("load_stall_s = 'x'", "settings.invalid"),
        ("= =", "settings.unreadable"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(toft: CommandLine, content: str, code: str) -> None:
    toft.home.mkdir(mode=0o700)
    (toft.home / "settings.toml").write_text(content)
    done = toft("plugin", "list", "--json")
    assert done.status == 2
    assert done.error["code"] == code
    assert "settings.toml" in done.error["message"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_stream_that_is_closed_is_no_failure(toft: CommandLine, tmp_path: Path, closed: str) -> None:
    program = f"exec {shlex.join(toft.argv('plugin', 'list'))} {closed}"
    done = subprocess.run(
        ["sh", "-c", program], cwd=tmp_path, env=toft.environ, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_a_working_directory_that_is_gone_is_said(toft: CommandLine, tmp_path: Path) -> None:
    program = (
        f"mkdir gone && cd gone && rmdir ../gone && exec {shlex.join(toft.argv('plugin', 'list', '--json'))}"
    )
    done = subprocess.run(
        ["sh", "-c", program], cwd=tmp_path, env=toft.environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"]["code"] == "os.no_directory"


def test_a_full_disk_under_the_results_is_said(toft: CommandLine, tmp_path: Path) -> None:
    program = f"exec {shlex.join(toft.argv('doctor', '--json'))} > /dev/full"
    done = subprocess.run(
        ["sh", "-c", program], cwd=tmp_path, env=toft.environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert json.loads(done.stderr.splitlines()[0])["error"]["code"] == "os.enospc"
