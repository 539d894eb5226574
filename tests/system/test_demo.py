"""`toft demo` on the real scan, with the real packages: once installing, once without any network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOFT = [sys.executable, "-m", "toft"]


def perform(home: Path, prefix: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> dict[str, Any]:
    environ = {**os.environ, "TOFT_HOME": str(home)}
    command = [*prefix, *TOFT, "demo", "--json", *options]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(demo_home: Path) -> dict[str, Any]:
    return perform(demo_home)


@pytest.mark.timeout(330)
def test_the_scan_is_read_and_the_questions_are_answered(first: dict[str, Any]) -> None:
    assert first["text_layer"] == ""
    lines = [line for page in first["lines"] for line in page]
    assert "The pump in hall B was inspected on 12 March 2026." in lines
    assert "The bearing costs 249.50 EUR and arrives in two weeks." in lines
    found = {(each["page"], each["text"], each["label"]) for each in first["entities"]}
    assert found == {(1, "12 March 2026", "DATE"), (1, "249.50 EUR", "MONEY"), (2, "6 bar", "PRESSURE")}
    cost, flames, lunch = first["answers"]
    assert (cost["page"], "249.50 EUR" in cost["passage"]) == (1, True)
    assert (flames["page"], "extinguisher" in flames["passage"]) == (2, True)
    assert (lunch["page"], "lasagna" in lunch["passage"]) == (3, True)


def test_two_of_the_environments_cannot_be_one(first: dict[str, Any]) -> None:
    assert "demo-ocr" in first["refusal"]["plugins"]
    assert "numpy" in first["refusal"]["reason"]
    assert "unsatisfiable" in first["refusal"]["reason"]


def test_every_step_ran_in_an_environment_and_a_process_of_its_own(first: dict[str, Any]) -> None:
    assert len({step["environment"] for step in first["steps"]}) == 4
    assert len({step["pid"] for step in first["steps"]}) == 4
    assert all(step["memory_bytes"] > 5_000_000 for step in first["steps"])


def test_a_second_run_needs_no_network_and_is_quick(first: dict[str, Any], demo_home: Path) -> None:
    alone = ("unshare", "-n")
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], timeout=10).returncode != 0:
        pytest.skip("needs unshare: no network namespace may be made here")
    again = perform(demo_home, alone)
    assert [step["installed"] for step in again["steps"]] == [False] * 4
    assert again["answers"] == first["answers"]
    assert again["refusal"] == first["refusal"]
    # Nothing is resolved, built or described again.
    assert sum(step["install_s"] for step in again["steps"]) < 0.2 * sum(
        step["install_s"] for step in first["steps"]
    )


@pytest.mark.timeout(330)
def test_a_pulled_plug_loses_nothing_and_repeats_nothing(first: dict[str, Any], demo_home: Path) -> None:
    after = perform(demo_home, options=("--pull-the-plug",))
    survived = after["survived"]
    assert (survived["lost"], survived["repeated"]) == ([], [])
    assert "pages" in survived["finished"]
    assert "read[1]" in survived["again"]
    assert {key: after[key] for key in ("lines", "entities", "answers")} == {
        key: first[key] for key in ("lines", "entities", "answers")
    }


def test_a_daemon_of_somebody_else_is_not_killed(first: dict[str, Any], demo_home: Path) -> None:
    command = [*TOFT, "--home", str(demo_home)]
    subprocess.run([*command, "up", "--detach"], check=True, capture_output=True)
    try:
        refused = subprocess.run(
            [*command, "demo", "--pull-the-plug", "--json"], capture_output=True, text=True
        )
        assert json.loads(refused.stderr)["error"]["code"] == "demo.not_its_own"
        assert json.loads(subprocess.check_output([*command, "status", "--json"]))["state"] == "ready"
    finally:
        subprocess.run([*command, "down"], check=True, capture_output=True)
