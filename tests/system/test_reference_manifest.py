"""An installation of the reference system is used where it lies: its manifest, its environment."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.leaks import leaks_checked  # noqa: F401 - a fixture
from tests.waiting import eventually

import toft
from toft.kernel import errors
from toft_sdk import errors as plugin_errors

FIXTURE = Path(__file__).parents[1] / "fixtures" / "reference_like"
pytestmark = pytest.mark.usefixtures("leaks_checked")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make what the reference system leaves: a flat manifest in the project, an environment elsewhere."""
    environment = tmp_path / "envs" / "words"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=60)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "fixture.pth").write_text(f"{FIXTURE}\n")
    manifests = tmp_path / ".cjm" / "manifests"
    manifests.mkdir(parents=True)
    manifest = {
        "name": "words",
        "version": "0.3",
        "module": "words_plugin.plugin",
        "class": "Words",
        "interface": "cjm_words_plugin_system.core.WordsPlugin",
        "python_path": str(environment / "bin" / "python"),
        "config_schema": {"type": "object", "properties": {"model": {"type": "string", "default": "small"}}},
    }
    (manifests / "words.json").write_text(json.dumps(manifest))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_manifest_of_the_reference_is_found_loaded_and_called(project: Path, toft_home: Path) -> None:
    with toft.connect(toft_home) as node:
        words = node.load("words", {"model": "large"})
        call = words.start(source=Path("/a"), loud=True)
        assert call.result(20) == {
            "spans": [{"text": "a", "at": dt.datetime(2026, 1, 2, 3, 4, 5).isoformat()}],  # noqa: DTZ001
            "source": "/a",
            "rest": (),
            "options": {"loud": True},
        }
        assert call.progress == 0.75
        assert call.usage == {"words": 5}
        assert [each["text"] for each in words.stream()] == ["0", "1", "2"]
        with pytest.raises(plugin_errors.ResourceError) as caught:
            words.call(action="fail", kind="resource")
        assert caught.value.details["needed_bytes"] == 4 << 20
        assert "words_plugin" in caught.value.trace
        # It belongs to the other system: toft neither changes nor removes it.
        with pytest.raises(errors.ConflictError, match="does not manage"):
            node.remove("words")


def test_a_cancel_reaches_the_plugins_own_callback(project: Path, toft_home: Path) -> None:
    with toft.connect(toft_home) as node:
        words = node.load("words")
        pid = words.stats()["pid"]
        call = words.start(action="wait")
        eventually(lambda: call.message == "waiting")
        call.cancel(grace_s=10)
        with pytest.raises(plugin_errors.CancelledError):
            call.result(20)
        assert call.outcome == "cancelled"
        assert words.stats()["pid"] == pid
