"""The demo's story on a node that knows the answers; the real one is in tests/system/test_demo.py."""

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from toft.demo import cast, refusal, run, show
from toft.jobs import graphs
from toft.kernel import errors
from toft.plugins.environments import environment_errors

LINES = ["The bearing costs 249.50 EUR."]


def job(step: str, plugin: str, *, state: str = "completed", attempt: int = 1) -> SimpleNamespace:
    error = {"message": "it broke"} if state == "failed" else None
    record = SimpleNamespace(
        step=step, plugin=plugin, state=state, attempt=attempt, error=error, usage={"duration_s": 1.5}
    )
    return SimpleNamespace(id=f"job_{step}", record=record)


class ToldJobs:
    """Jobs that have ended as they should; `failing` names a step that has not."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.graphs: list[dict[str, Any]] = []

    def submit_graph(self, document: dict[str, Any]) -> SimpleNamespace:
        self.graphs.append(document)
        return SimpleNamespace(id="seq_1")

    def wait_sequence(self, id: str, timeout_s: float) -> SimpleNamespace:
        return SimpleNamespace(id=id, state="failed" if self.failing else "completed")

    def list(self, *, sequence: str, limit: int) -> Sequence[SimpleNamespace]:
        steps = self.graphs[-1]["steps"]
        return [
            job(each["id"], each["plugin"], state="failed" if each["id"] == self.failing else "completed")
            for each in steps
        ]

    def result(self, id: str) -> Any:
        return {
            "job_pages": {"pages": [b"picture"], "text": ""},
            "job_read": [LINES],
            "job_understand": [{"sentences": LINES, "entities": [{"text": "249.50 EUR", "label": "MONEY"}]}],
            "job_answer": [
                {"question": question, "passage": LINES[0], "score": 0.9, "ahead": 0.1, "page": 1}
                for question in cast.QUESTIONS
            ],
        }[id]


class ToldNode:
    """A node with a few plugins; `missing` cannot be installed, and `evicted` were loaded once."""

    def __init__(self, missing: tuple[str, ...] = (), failing: str = "") -> None:
        self.missing = missing
        self.version = ""
        self.names: list[str] = []
        self.installed = self
        self.evicted: tuple[str, ...] = ()
        self.options: dict[str, Any] = {}
        self.jobs = ToldJobs(failing)

    def list(self) -> Sequence[SimpleNamespace]:
        versions = {part.plugin: part.version() for part in (*cast.CAST, cast.SENTENCES)}
        return [SimpleNamespace(name=name, version=self.version or versions[name]) for name in self.names]

    def add(self, source: str, *, force: bool) -> None:
        name = f"demo-{Path(source).name}"
        if name in self.missing:
            raise environment_errors.NoInterpreterError("no Python >=3.9,<3.12")
        self.names.append(name)

    def get(self, name: str) -> SimpleNamespace:
        runtime = SimpleNamespace(python_version="3.11.7", environment="abcdef0123456789")
        return SimpleNamespace(runtime=runtime, install=SimpleNamespace(python_path="python"))

    def set_options(self, plugin: str, changes: dict[str, Any]) -> None:
        self.options[plugin] = changes

    def instance(self, name: str) -> SimpleNamespace:
        if name in self.evicted:
            raise errors.NotFoundError(f"no instance {name} is loaded")
        return SimpleNamespace(stats=lambda: {"pid": 7, "peak_memory_bytes": 5_000_000})


async def refuses(parts: tuple[cast.Part, ...], python: str) -> str:
    return "Because a needs b." if {part.plugin for part in parts} == {"demo-ocr", "demo-entities"} else ""


def perform(node: ToldNode) -> tuple[dict[str, Any], str]:
    out = io.StringIO()
    teller = show.Teller(Console(file=out, width=200))
    result = run.Demo(node, teller, refuse=refuses).perform()
    teller.end(result, Path("home"))
    return result, out.getvalue()


def test_it_finds_the_answer_and_tells_it() -> None:
    result, text = perform(ToldNode())
    assert [answer["passage"] for answer in result["answers"]] == LINES * 3
    assert result["entities"] == [{"page": 1, "text": "249.50 EUR", "label": "MONEY"}]
    assert "249.50 EUR" in text
    assert "What ran where" in text


def test_it_shows_which_two_cannot_share_an_environment() -> None:
    result, text = perform(ToldNode())
    assert result["refusal"]["plugins"] == ["demo-ocr", "demo-entities"]
    assert "Because a needs b." in text


def test_a_substitute_steps_in_where_no_interpreter_fits() -> None:
    node = ToldNode(missing=("demo-entities",))
    result, text = perform(node)
    assert [each["takes"] for each in result["substitutes"]] == ["demo-sentences"]
    assert "demo-sentences takes its place" in text
    assert [step["plugin"] for step in result["steps"]][2] == "demo-sentences"
    assert result["refusal"]["plugins"] == ["demo-ocr", "demo-entities"]


def test_without_a_substitute_the_error_is_the_answer() -> None:
    with pytest.raises(errors.NodeError, match="no Python"):
        perform(ToldNode(missing=("demo-ocr",)))


def test_what_is_installed_is_not_installed_again() -> None:
    node = ToldNode()
    perform(node)
    before = list(node.names)
    result, text = perform(node)
    assert node.names == before
    assert [step["installed"] for step in result["steps"]] == [False] * 4
    assert "there already" in text


def test_another_version_is_installed_anew() -> None:
    node = ToldNode()
    perform(node)
    node.version = "0.9"
    result, _ = perform(node)
    assert [step["installed"] for step in result["steps"]] == [True] * 4


def test_every_plugin_runs_without_a_network() -> None:
    node = ToldNode()
    perform(node)
    assert node.options == {part.plugin: {"network": False} for part in cast.CAST}


def test_the_graph_can_be_run_again_anywhere_and_is_one_that_a_node_takes() -> None:
    node = ToldNode()
    perform(node)
    read = graphs.read(node.jobs.graphs[0])
    assert [(step.id, step.is_fan_out, step.idempotent) for step in read.steps] == [
        ("pages", False, True),
        ("read", True, True),
        ("understand", True, True),
        ("answer", True, True),
    ]
    assert read.needs["answer"] == {"understand": "completed"}


def test_a_worker_that_was_evicted_since_is_no_mistake() -> None:
    node = ToldNode()
    node.evicted = ("demo-pages",)
    result, text = perform(node)
    assert [step["pid"] for step in result["steps"]] == [None, 7, 7, 7]


def test_a_step_that_failed_is_the_answer() -> None:
    with pytest.raises(errors.NodeError, match="it broke") as raised:
        perform(ToldNode(failing="read"))
    assert raised.value.hint == "toft why seq_1"


def test_an_accident_is_told_with_what_it_cost() -> None:
    node, other, out = ToldNode(), ToldNode(), io.StringIO()
    happened: list[Any] = []

    def accident(given: Any, sequence: str) -> ToldNode:
        happened.append((given, sequence))
        other.jobs.graphs = node.jobs.graphs
        return other

    def check(given: Any, sequence: str) -> dict[str, Any]:
        happened.append((given, sequence))
        return {"again": ["read"]}

    teller = show.Teller(Console(file=out, width=200))
    result = run.Demo(node, teller, refuse=refuses, accident=accident, check=check).perform()
    assert happened == [(node, "seq_1"), (other, "seq_1")]
    assert result["survived"] == {"again": ["read"]}


def test_the_resolvers_reason_is_shortened_to_what_it_says() -> None:
    text = (
        "  x No solution found when resolving dependencies:\n  -> Because a\n     needs b,\n     it fails.\n"
    )
    assert refusal.shortened(text) == "Because a needs b, it fails."


@pytest.mark.parametrize("part", [*cast.CAST, cast.SENTENCES], ids=lambda part: part.plugin)
def test_every_part_has_a_project_with_pinned_requirements(part: cast.Part) -> None:
    assert any("==" in requirement for requirement in part.requirements())
