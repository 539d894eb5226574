"""A home that the disk has damaged is mended with ordinary commands; closed descriptors are told in words."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests import hostile_plugin
from tests.command_line import CommandLine


@pytest.fixture
def toft(tmp_path: Path) -> CommandLine:
    return CommandLine(hostile_plugin.install(tmp_path), tmp_path)


def test_a_damaged_manifest_can_be_replaced_and_removed(toft: CommandLine) -> None:
    manifest = toft.home / "plugins" / "hostile" / "manifest.json"
    for command in (("plugin", "add", "./hostile"), ("plugin", "remove", "hostile")):
        manifest.write_text("{")
        assert toft("run", "hostile", "code=r = 1", "--json").error["code"].startswith("manifest.")
        assert toft(*command, "--json").status == 0
    assert not manifest.exists()
    assert toft("plugin", "list", "--json").value == []


def test_a_damaged_environment_is_built_again(toft: CommandLine) -> None:
    (record,) = (toft.home / "environments").glob("*/environment.json")
    record.parent.chmod(0o755)
    record.chmod(0o644)
    record.write_text("{")
    assert "environment.json" in toft("run", "hostile", "code=r = 1", "--json").error["message"]
    listed = json.loads(toft("plugin", "list", "--json").out)
    assert [(each["name"], each["state"]) for each in listed] == [("hostile", "broken")]
    assert toft("plugin", "refresh", "hostile", "--json").status == 0
    assert toft("run", "hostile", "code=r = 1", "--json").value["result"] == 1


def test_results_that_nobody_takes_are_an_error(toft: CommandLine) -> None:
    command = toft.argv("run", "hostile", "code=r = 1", "--json")
    closed = subprocess.run(
        ["sh", "-c", '"$@" <&- >&-', "sh", *command],
        cwd=toft.directory,
        env=toft.environ,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert closed.returncode == 1
    assert "Standard output is closed" in json.loads(closed.stderr)["error"]["message"]
