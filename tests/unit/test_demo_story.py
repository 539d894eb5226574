"""The demo's story on a node that knows the answers; the real one is in tests/system/test_demo.py."""

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from toft.demo import cast, refusal, run, show
from toft.kernel import errors
from toft.plugins.environments import environment_errors

LINES = ["The bearing costs 249.50 EUR."]


class ToldInstance:
    """An instance that answers from a list."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.is_loaded = True

    def call(self, action: str | None = None, /, **arguments: Any) -> Any:
        return {
            "demo-pages": {"pages": [b"picture"], "text": ""},
            "demo-ocr": [{"text": line, "score": 1.0} for line in LINES],
            "demo-search": {"passage": LINES[0], "score": 0.9, "ahead": 0.1},
        }.get(self.plugin, {"sentences": LINES, "entities": [{"text": "249.50 EUR", "label": "MONEY"}]})

    def stats(self) -> dict[str, Any]:
        return {"pid": 7, "memory_bytes": 5_000_000}

    def unload(self) -> None:
        self.is_loaded = False


class ToldNode:
    """A node with a few plugins; `missing` cannot be installed."""

    def __init__(self, missing: tuple[str, ...] = ()) -> None:
        self.missing = missing
        self.version = ""
        self.names: list[str] = []
        self.installed = self
        self.loaded: list[ToldInstance] = []
        self.options: list[dict[str, Any]] = []

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

    def load(self, name: str, **options: Any) -> ToldInstance:
        self.options.append(options)
        self.loaded.append(ToldInstance(name))
        return self.loaded[-1]


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


def test_every_plugin_runs_without_a_network_and_is_unloaded() -> None:
    node = ToldNode()
    perform(node)
    assert node.options == [{"network": False}] * 4
    assert [each.is_loaded for each in node.loaded] == [False] * 4


def test_the_resolvers_reason_is_shortened_to_what_it_says() -> None:
    text = (
        "  x No solution found when resolving dependencies:\n  -> Because a\n     needs b,\n     it fails.\n"
    )
    assert refusal.shortened(text) == "Because a needs b, it fails."


@pytest.mark.parametrize("part", [*cast.CAST, cast.SENTENCES], ids=lambda part: part.plugin)
def test_every_part_has_a_project_with_pinned_requirements(part: cast.Part) -> None:
    assert any("==" in requirement for requirement in part.requirements())
