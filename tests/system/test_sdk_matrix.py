"""One plugin file means the same under every Python, and costs a worker nothing it does not use."""

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.interpreters import VERSIONS, interpreter

import toft_sdk

SDK = str(Path(toft_sdk.__file__).parent.parent)
PROBE = Path(__file__).parent.parent / "fixtures" / "sdk_matrix" / "probe.py"

# What a worker must not pay for before the plugin's own imports.
HEAVY = {
    "typing",
    "dataclasses",
    "inspect",
    "asyncio",
    "logging",
    "traceback",
    "ctypes",
    "re",
    "enum",
    "json",
}


@functools.cache
def probe(version: str) -> dict[str, Any]:
    command = [interpreter(version), "-I", "-S", str(PROBE), SDK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plugin_is_described_configured_and_called_the_same_everywhere(version: str) -> None:
    answer = probe(version)
    assert answer["python"].startswith(version)
    assert answer["answer"] == probe("3.11")["answer"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_sdk_imports_nothing_heavy(version: str) -> None:
    imported = set(probe(version)["at_start"])
    assert imported >= {"toft_sdk", "toft_sdk.plugin", "toft_sdk.hosting"}
    assert imported & HEAVY == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_module_of_the_sdk_imports(version: str) -> None:
    modules = sorted(path.stem for path in Path(toft_sdk.__file__).parent.glob("*.py") if path.stem != "boot")
    code = f"import sys; sys.path.insert(0, {SDK!r})\n" + "".join(f"import toft_sdk.{m}\n" for m in modules)
    command = [interpreter(version), "-I", "-S", "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_probe_says_is_right() -> None:
    answer = probe("3.11")["answer"]
    assert answer["results"]["execute"] == {
        "kinds": ["Point", "Colour", "tuple", "tuple", "datetime"],
        "x": 3,
        "names": "/home",
    }
    assert answer["results"]["spread"] == [1, 2, 3, 4, 1]
    assert answer["results"]["events"] == ["initialize", "release", "apply large Point(x=1, y=0)"]
    assert answer["refusals"] == {
        "missing": ["point"],
        "unknown": ["pont"],
        "bad": ["point"],
        "config": {
            "beam": "must be at least 1, not 0",
            "modle": "is unknown; did you mean model?",
            "words[0]": "must be a string, not int",
        },
        "cancelled": "cancelled",
    }
    parameters = answer["description"]["actions"]["execute"]["input"]["parameters"]
    assert parameters["unknown"] == {"default": None, "kind": "positional_or_keyword"}
    assert parameters["when"] == {
        "anyOf": [
            {"type": "string", "format": "date-time", "x-toft-type": "datetime"},
            {"type": "null"},
        ],
        "default": None,
        "kind": "positional_or_keyword",
    }


DEFAULTS = """
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import dataclass
from toft_sdk import Plugin, hosting, option

@dataclass
class Settings:
    size: int = option(3, minimum=1)

class Sized(Plugin):
    Config = Settings
    def execute(self, text: str = "") -> int:
        return self.config.size

hosted = hosting.load("__main__", "Sized")
hosted.initialize({"size": 3})
assert hosted.call("execute", {"text": "a"}) == 3
assert "toft_sdk.schema" not in sys.modules
hosted.initialize({"size": 4})
assert hosted.call("execute", {}) == 4
assert "toft_sdk.schema" in sys.modules
"""


def test_a_worker_with_defaults_does_not_pay_for_what_checks_configurations() -> None:
    command = [interpreter("3.11"), "-I", "-S", "-c", DEFAULTS, SDK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
