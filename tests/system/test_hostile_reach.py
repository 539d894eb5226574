"""What a plugin can do with the places it may write, to what is run there next: nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import hostile_plugin
from tests.command_line import CommandLine

ATTEMPTS = {
    "settings of the project": "open('toft.toml', 'w').write('isolation = \"plain\"')",
    "manifests of the project": "os.makedirs('.toft/manifests')",
    "hooks of the project's version control": "open('.git/hooks/post-checkout', 'w')",
    "a file beside the project's own": "open('setup.py', 'a')",
    "the place itself": "os.rename(os.getcwd(), os.getcwd() + '-moved')",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_plugin.install(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def toft(installed: Path, tmp_path: Path) -> CommandLine:
    project = tmp_path / "project"
    (project / ".git" / "hooks").mkdir(parents=True)
    (project / "setup.py").write_text("")
    return CommandLine(installed, project)


@pytest.mark.parametrize("what", ATTEMPTS)
def test_the_directory_toft_is_run_in_is_not_changed(toft: CommandLine, what: str) -> None:
    before = sorted(str(path) for path in toft.directory.parent.rglob("*"))
    error = toft("run", "hostile", f"code={ATTEMPTS[what]}", "--json").error
    assert error["message"].startswith("OSError")
    assert sorted(str(path) for path in toft.directory.parent.rglob("*")) == before
    if "Read-only" in error["message"]:
        assert "--writable" in error["hint"]


def test_a_directory_is_written_when_it_is_granted_and_the_home_never_is(toft: CommandLine) -> None:
    code = "code=open('made.txt', 'w').write('x')"
    assert toft("run", "hostile", code, "--writable", ".").status == 0
    assert (toft.directory / "made.txt").read_text() == "x"
    for path in (toft.home, toft.home / "data", Path("/")):
        error = toft("run", "hostile", code, "--writable", path, "--json").error
        assert error["code"] == "instance.grant_refused"


def test_files_in_a_directory_that_everybody_may_write_to_choose_nothing(
    toft: CommandLine, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    (shared / ".toft" / "manifests").mkdir(parents=True)
    shared.chmod(0o1777)
    manifest = json.loads((toft.home / "plugins" / "hostile" / "manifest.json").read_text())
    manifest["code"]["name"] = "planted"
    (shared / ".toft" / "manifests" / "planted.json").write_text(json.dumps(manifest))
    (shared / "toft.toml").write_text('isolation = "wrong"')
    there = CommandLine(toft.home, shared)
    assert [each["name"] for each in there("plugin", "list", "--json").value] == ["hostile"]
    shared.chmod(0o755)
    assert there("plugin", "list", "--json").error["code"] == "settings.invalid"
    (shared / "toft.toml").unlink()
    assert {each["name"] for each in there("plugin", "list", "--json").value} == {"hostile", "planted"}
