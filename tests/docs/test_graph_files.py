"""The page of graph files names every key there is, and its examples are graphs."""

from pathlib import Path

import pytest
import yaml

from toft.jobs import graphs

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "graph-files.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "how-to" / "build-a-graph.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [REFERENCE, HOW_TO], ids=["reference", "how-to"])
def test_the_example_is_a_graph(page: str) -> None:
    text = page.split("```yaml\n")[1].split("```")[0]
    graph = graphs.read(yaml.safe_load(text))
    assert [step.id for step in graph.steps][:3] == ["pages", "text", "index"]
    assert graph.steps[1].is_fan_out


def test_every_key_is_on_the_page() -> None:
    keys = [*graphs.Step.__dataclass_fields__, "steps", "name", "mode", "ordered"]
    assert [key for key in keys if f"`{key}`" not in REFERENCE] == []
