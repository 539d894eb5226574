"""From an empty folder to a plugin that is called, refreshed and gone again, as a script sees it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.command_line import CommandLine
from tests.sample_packages import write_project
from tests.waiting import eventually

COUNTER = '''
    """Counts."""
    import time
    from dataclasses import dataclass
    from pathlib import Path

    from toft_sdk import EnvVar, Plugin, action, option


    @dataclass
    class Config:
        step: int = option(1, minimum=1, maximum=9, description="How far one step goes")
        unit: str = option("page", choices=["page", "line"])


    class Counter(Plugin):
        """Count up, slowly if wanted."""

        name = "counter"
        domain = "text"
        role = "counting"
        Config = Config
        environment = (EnvVar("COUNTER_KEY", secret=True, required=False),)

        def execute(self, to: int = 3, pause_s: float = 0.0, started: Path = None) -> dict:
            """Count and say where it got."""
            print("counting to", to)
            if started:
                Path(started).write_text("started")
            total = 0
            for number in range(to):
                total += self.config.step
                self.report_progress((number + 1) / to, f"{self.config.unit} {number}")
                time.sleep(pause_s)
            self.report_usage(steps=to)
            return {"total": total, "unit": self.config.unit}

        @action
        def numbers(self, to: int = 3):
            """Yield each number."""
            for number in range(to):
                yield number

        @action
        def picture(self) -> bytes:
            """Return bytes."""
            return b"\\x89PNG\\x00"

        @action
        def secret(self) -> str:
            """Print the secret and say how long it is."""
            import os
            print("the key is", os.environ["COUNTER_KEY"])
            return str(len(os.environ["COUNTER_KEY"]))
'''


@pytest.fixture
def toft(toft_home: Path, tmp_path: Path) -> CommandLine:
    return CommandLine(toft_home, tmp_path)


@pytest.fixture
def counter(toft: CommandLine, tmp_path: Path) -> CommandLine:
    write_project(tmp_path / "counter", "counter", {"counter.py": COUNTER})
    assert toft("plugin", "add", "./counter", "--json").value[0]["name"] == "counter"
    return toft


def test_a_new_plugin_is_tested_added_run_refreshed_and_removed(toft: CommandLine) -> None:
    assert "pyproject.toml" in toft("plugin", "new", "hello", "--json").value["files"]
    checks = toft("plugin", "test", "./hello", "--json").value
    assert checks
    assert all(each["ok"] for each in checks)
    assert toft.leftovers() == [], "testing installs nothing"

    (added,) = toft("plugin", "add", "./hello", "--json").value
    assert set(added) == {"name", "version", "state", "environment", "python", "drift", "instances"}
    assert (added["name"], added["version"], added["state"]) == ("hello", "0.1.0", "ready")
    assert toft("plugin", "list", "--json").value == [added]

    shown = toft("run", "hello", "--json").value
    assert shown["result"] == "Hello, world!"
    assert (shown["plugin"], shown["instance"], shown["usage"]) == ("hello", "hello", {})
    assert shown["duration_s"] > 0
    assert toft("run", "hello", "text=Ada").out == "Hello, Ada!\n"

    (refreshed,) = toft("plugin", "refresh", "hello", "--json").value
    assert refreshed["name"] == "hello"
    assert toft("run", "hello").out == "Hello, world!\n"
    assert toft("plugin", "check", "hello").status == 0

    assert toft("plugin", "remove", "hello", "--json").value == {"removed": "hello"}
    assert toft("plugin", "list", "--json").value == []
    toft("env", "gc")
    assert [each for each in toft.leftovers() if not each.startswith("data/")] == []


def test_a_configuration_is_kept_used_and_reset(counter: CommandLine) -> None:
    assert counter("plugin", "config", "counter", "--json").value["config"] == {"step": 1, "unit": "page"}
    assert counter("plugin", "config", "counter", "step=2", "--json").value["config"]["step"] == 2
    assert counter("run", "counter", "--json").value["result"] == {"total": 6, "unit": "page"}
    once = counter("run", "counter", "-c", "unit=line", "--json").value["result"]
    assert once == {"total": 6, "unit": "line"}
    assert counter("plugin", "config", "counter", "--json").value["config"] == {"step": 2, "unit": "page"}
    assert counter("plugin", "config", "counter", "--reset", "--json").value["config"]["step"] == 1
    schema = counter("plugin", "config", "counter", "--schema").out
    assert json.loads(schema)["properties"]["step"]["maximum"] == 9


def test_a_wrong_configuration_is_refused_with_everything_that_is_wrong(counter: CommandLine) -> None:
    for words in (["plugin", "config", "counter"], ["run", "counter", "-c"]):
        first, second = ("step=12", "unti=page")
        line = [*words, first, second] if words[0] == "plugin" else [*words, first, "-c", second]
        error = counter(*line, "--json").error
        fields = error["details"]["fields"]
        assert "step" in fields
        assert "unit" in fields["unti"], "did you mean"
    assert counter("plugin", "config", "counter", "--json").value["config"] == {"step": 1, "unit": "page"}


def test_options_are_kept_checked_and_used(counter: CommandLine) -> None:
    shown = counter("plugin", "options", "counter", "--json").value["options"]
    assert (shown["concurrency"], shown["network"], shown["env"]) == (None, True, {})
    changed = counter(
        "plugin", "options", "counter", "memory_bytes=500000000", "network=false", "--json"
    ).value
    assert (changed["options"]["memory_bytes"], changed["options"]["network"]) == (500_000_000, False)
    assert counter("run", "counter", "--json").value["result"]["total"] == 3
    error = counter("plugin", "options", "counter", "memory_bytes=lots", "netwrok=no", "--json").error
    assert set(error["details"]["fields"]) == {"memory_bytes", "netwrok"}
    assert "network" in error["details"]["fields"]["netwrok"]
    assert counter("plugin", "options", "counter", "--json").value == changed
    error = counter("plugin", "options", "counter", "--env", "COUNTER_KEY=open", "--json").error
    assert error["code"] == "instance.secret_in_env"
    assert counter("plugin", "options", "counter", "--reset", "--json").value["options"] == shown


def test_a_disabled_plugin_refuses_calls_until_it_is_enabled(counter: CommandLine) -> None:
    assert counter("plugin", "disable", "counter", "--json").value["enabled"] is False
    assert counter("plugin", "list", "--json").value[0]["state"] == "disabled"
    error = counter("run", "counter", "--json").error
    assert error["code"] == "instance.disabled"
    assert "toft plugin enable counter" in error["hint"]
    assert counter("plugin", "enable", "counter").status == 0
    assert counter("run", "counter").status == 0


def test_progress_prints_and_logs_are_kept_apart_from_results(counter: CommandLine) -> None:
    done = counter("run", "counter", "to=2")
    assert json.loads(done.out) == {"total": 2, "unit": "page"}
    assert "counting to 2" in done.err
    assert "100%" in done.err
    logged = counter("plugin", "logs", "counter", "-n", "5")
    assert "counting to 2" in logged.out
    lines = counter("plugin", "logs", "counter", "--json").value
    assert [each["stream"] for each in lines if each["text"] == "counting to 2"] == ["stdout"]


def test_a_stream_is_printed_chunk_by_chunk(counter: CommandLine) -> None:
    assert counter("run", "counter.numbers", "--stream").out == "0\n1\n2\n"
    lines = [
        json.loads(line) for line in counter("run", "counter.numbers", "--stream", "--json").out.splitlines()
    ]
    assert lines[:-1] == [{"chunk": 0}, {"chunk": 1}, {"chunk": 2}]
    assert lines[-1]["chunks"] == 3


def test_bytes_go_to_a_pipe_or_a_file_as_they_are(counter: CommandLine, tmp_path: Path) -> None:
    done = subprocess.run(
        counter.argv("run", "counter.picture"),
        env=counter.environ,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"\x89PNG\x00"
    counter("run", "counter.picture", "-o", tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes() == b"\x89PNG\x00"
    assert counter("run", "counter.picture", "--json").value["result"] == {"bytes_base64": "iVBORwA="}


def test_a_secret_reaches_the_plugin_and_nobody_else(counter: CommandLine) -> None:
    counter("secret", "set", "counter", "COUNTER_KEY", "--from-stdin", stdin="hunter22")
    done = counter("run", "counter.secret")
    assert done.out == "8\n"
    assert "hunter22" not in done.err
    assert "the key is [secret COUNTER_KEY]" in done.err
    assert "hunter22" not in counter("plugin", "logs", "counter").out
    for path in counter.home.rglob("*"):
        if path.is_file() and path.name != "secrets.json":
            assert b"hunter22" not in path.read_bytes(), path
    shown = counter("plugin", "show", "counter").out
    assert "COUNTER_KEY (set)" in shown
    assert "hunter22" not in shown


def test_show_and_find_answer_from_what_is_recorded(counter: CommandLine) -> None:
    shown = counter("plugin", "show", "counter").out
    assert "execute(to: int = 3" in shown
    assert "step: int (minimum 1, maximum 9) = 1" in shown
    assert counter("plugin", "show", "counter", "--json").value["code"]["name"] == "counter"
    assert [each["name"] for each in counter("plugin", "find", "count", "--json").value] == ["counter"]
    assert counter("plugin", "find", "--role", "counting", "--json").value[0]["domain"] == "text"
    assert counter("plugin", "find", "translate", "--json").value == []


def test_environments_are_listed_with_their_users_and_collected(counter: CommandLine) -> None:
    (environment,) = counter("env", "list", "--json").value
    assert environment["plugins"] == ["counter"]
    assert environment["size_bytes"] > 0
    assert counter("env", "gc", "--json").value == {"removed": [], "freed_bytes": 0}
    counter("plugin", "remove", "counter", "--keep-env")
    assert counter("env", "gc", "--json").value["removed"] == [environment["hash"]]
    assert counter("env", "list", "--json").value == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_cancels_the_call_and_exits_130(counter: CommandLine, tmp_path: Path, number: int) -> None:
    mark = tmp_path / "marks" / "started"
    mark.parent.mkdir()
    work = ("to=1000", "pause_s=0.05", f"started={mark}", "--writable", mark.parent)
    process = counter.start("run", "counter", *work)
    eventually(mark.exists, 30)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "cancelled"
    assert "Traceback" not in err


def test_a_reader_who_leaves_ends_a_stream_without_a_word(counter: CommandLine) -> None:
    process = counter.start("run", "counter.numbers", "to=100000000", "--stream", "--json")
    assert process.stdout is not None
    assert process.stdout.readline() == '{"chunk": 0}\n'
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 141
    assert err == ""


def test_a_time_limit_ends_a_call(counter: CommandLine) -> None:
    error = counter("run", "counter", "to=1000", "pause_s=0.05", "--timeout", "0.3", "--json").error
    assert error["code"] == "call.timeout"
    assert "0.3 s" in error["message"]


def test_a_list_adds_what_it_can_and_names_the_rest(toft: CommandLine, tmp_path: Path) -> None:
    write_project(tmp_path / "counter", "counter", {"counter.py": COUNTER})
    listed: dict[str, Any] = {
        "plugins": [
            {
                "name": "broken",
                "env_name": "b",
                "package": "no-such-package-here==1",
                "python_version": "3.11",
            },
            {"name": "counter", "env_name": "c", "package": "./counter", "python_version": ">=3.8"},
        ]
    }
    (tmp_path / "plugins.yaml").write_text(json.dumps(listed))
    done = toft("plugin", "add", "plugins.yaml", "--json")
    assert done.status == 1
    assert [each["name"] for each in json.loads(done.out)] == ["counter"]
    error = json.loads(done.err)["error"]
    assert error["code"] == "plugin.partly_added"
    assert list(error["details"]["failed"]) == ["broken"]
    assert [each["name"] for each in toft("plugin", "list", "--json").value] == ["counter"]


NEEDY = '''
    """Needs."""
    import os

    from toft_sdk import EnvVar, Plugin


    class Needy(Plugin):
        """Need a key and an address."""

        name = "needy"
        environment = (EnvVar("KEY", secret=True), EnvVar("ADDRESS"), EnvVar("LEVEL", default="1"))

        def execute(self) -> list:
            """Return what it was given."""
            return [len(os.environ["KEY"]), os.environ["ADDRESS"], os.environ["LEVEL"]]
'''


def test_a_plugin_starts_once_it_has_its_variables(toft: CommandLine, tmp_path: Path) -> None:
    write_project(tmp_path / "needy", "needy", {"needy.py": NEEDY})
    assert toft("plugin", "add", "./needy", "--json").value[0]["state"] == "incomplete"
    error = toft("run", "needy", "--json").error
    assert error["code"] == "plugin.variables_missing"
    assert error["details"]["missing"] == ["KEY", "ADDRESS"]
    assert error["hint"] == "toft secret set needy KEY"
    assert "asks for KEY" in toft("secret", "set", "needy", "KYE", "--from-stdin", stdin="hunter22").err
    assert "warning" not in toft("secret", "set", "needy", "KEY", "--from-stdin", stdin="hunter22").err
    assert "toft plugin options needy --env ADDRESS=VALUE" in toft("plugin", "check", "needy").out
    assert toft("run", "needy", "--json").error["hint"] == "toft plugin options needy --env ADDRESS=VALUE"
    toft("plugin", "options", "needy", "--env", "ADDRESS=here")
    assert toft("run", "needy", "--json").value["result"] == [8, "here", "1"]
    assert toft("plugin", "check", "needy").status == 0
    assert toft("plugin", "list", "--json").value[0]["state"] == "ready"


SLOW = '''
    """Takes its time to be imported."""
    import time

    from toft_sdk import Plugin

    time.sleep(600)


    class Slow(Plugin):
        """Be slow."""

        name = "slow"

        def execute(self) -> str:
            """Return something."""
            return "done"
'''


def test_an_install_that_is_stopped_leaves_nothing(toft: CommandLine, tmp_path: Path) -> None:
    write_project(tmp_path / "slow", "slow", {"slow.py": SLOW})
    process = toft.start("plugin", "add", "./slow")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("asking slow"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.splitlines()[-1:]) == (130, "", ["cancelled"])
    assert toft.leftovers() == []
    assert toft("plugin", "list", "--json").value == []


def test_commands_on_one_home_at_the_same_time_do_not_disturb_each_other(
    counter: CommandLine, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        text = COUNTER.replace('name = "counter"', f'name = "{name}"')
        write_project(tmp_path / name, name, {f"{name}.py": text})
    running = [
        counter.start("plugin", "add", "./one", "--json"),
        counter.start("plugin", "add", "./two", "--json"),
        counter.start("run", "counter", "to=4", "--json"),
        counter.start("run", "counter", "to=5", "--instance", "other", "--json"),
        counter.start("plugin", "config", "counter", "step=1", "--json"),
        counter.start("secret", "set", "counter", "COUNTER_KEY", "--value", "hunter22", "--json"),
    ]
    for process in running:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, (process.args, out, err)
    names = [each["name"] for each in counter("plugin", "list", "--json").value]
    assert names == ["counter", "one", "two"]
    assert counter("run", "one", "--json").value["result"]["total"] == 3
