"""What a graph of steps may be, and how what may not is refused before anything is stored."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toft.jobs import graphs, references
from toft.jobs.references import Item, Ref, item, step


def node(name: str, *, after: tuple[str, ...] = (), **arguments: Any) -> dict[str, Any]:
    return {"id": name, "plugin": "echo", "after": list(after), "arguments": arguments}


def test_references_stand_in_files_as_in_programs() -> None:
    ref = step("ocr").output["lines"][0]
    assert ref == Ref("ocr", ("lines", 0))
    asked = {"text": ref, "all": [step("ocr").output], "pair": (item()["a"], 1), "other": {1: {2}}}
    written = references.plain(asked)
    assert written == {
        "text": {"$from": "ocr", "path": ["lines", 0]},
        "all": [{"$from": "ocr"}],
        "pair": ({"$item": ["a"]}, 1),
        "other": {1: {2}},
    }
    assert list(references.find(written)) == [
        (("text",), ref),
        (("all", 0), Ref("ocr")),
        (("pair", 0), Item(("a",))),
    ]
    with pytest.raises(TypeError, match="for_each"):
        list(ref)


def test_a_literal_is_kept_as_it_is() -> None:
    value = {"a": {"$literal": {"$from": "x", "path": 3}}, "b": {"$from": "y"}}
    assert [ref for _, ref in references.find(value)] == [Ref("y")]
    assert references.replace(value, lambda ref: "there") == {"a": {"$from": "x", "path": 3}, "b": "there"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [{"$from": 3}]}, "a[0]"),
        ({"$from": "x", "other": 1}, "$"),
        ({"$from": "x", "path": "lines"}, "path"),
        ({"$from": "x", "path": [1.5]}, "names and numbers"),
        ({"$from": "x", "path": list(range(40))}, "at most 32"),
        ({"$item": [], "path": []}, "item"),
    ],
)
def test_what_looks_like_a_reference_and_is_none_is_refused(value: Any, said: str) -> None:
    with pytest.raises(references.BadReferenceError, match=said.replace("[", r"\[").replace("$", r"\$")):
        list(references.find(value))


def test_arguments_that_contain_themselves_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(graphs.GraphError) as caught:
        graphs.read([node("a", value=loop)])
    assert caught.value.code == "graph.reference"


def test_the_arguments_of_a_part_have_its_item() -> None:
    asked = {"page": {"$item": []}, "text": [{"$item": ["text"]}], "all": {"$from": "pages"}, "n": 1}
    assert references.with_item(asked, lambda item: Ref("pages", (2, *item.path)).to_json()) == {
        "page": {"$from": "pages", "path": [2]},
        "text": [{"$from": "pages", "path": [2, "text"]}],
        "all": {"$from": "pages"},
        "n": 1,
    }


def test_steps_come_behind_those_they_wait_for() -> None:
    graph = graphs.read(
        {
            "steps": [
                node("show", after=("index",)),
                node("index", pages=[{"$from": "ocr", "path": ["pages"]}]),
                node("ocr"),
            ]
        }
    )
    assert [each.id for each in graph.steps] == ["ocr", "index", "show"]
    assert graph.needs == {"show": {"index": "completed"}, "index": {"ocr": "completed"}, "ocr": {}}


def test_a_list_runs_in_its_order() -> None:
    listed = [{"plugin": "ocr"}, {"plugin": "ocr"}, {"plugin": "show", "arguments": {"x": {"$from": "ocr"}}}]
    graph = graphs.read(listed)
    assert [each.id for each in graph.steps] == ["ocr", "ocr-2", "show"]
    assert graph.needs["show"] == {"ocr-2": "completed", "ocr": "completed"}
    relaxed = graphs.read(listed, mode="best_effort")
    assert relaxed.needs["show"] == {"ocr-2": "ended", "ocr": "completed"}
    assert graphs.read([]).steps == ()


@pytest.mark.parametrize(
    ("steps", "code", "step", "said"),
    [
        ([node("a"), node("a")], "graph.duplicate", "a", "two steps"),
        ([node("a", after=("a",))], "graph.cycle", "a", "itself"),
        ([node("a", x={"$from": "a"})], "graph.cycle", "a", "itself"),
        ([node("pages"), node("b", after=("page",))], "graph.unknown_step", "b", "did you mean pages"),
        ([node("b", x={"$from": "nope"})], "graph.unknown_step", "b", "nope"),
        ([node("b", x={"$from": 3})], "graph.reference", "b", "x: a reference"),
        ([node("b", x={"$item": []})], "graph.reference", "b", "for_each"),
        ([node("b") | {"colour": "red"}], "graph.invalid", "b", "colour"),
        ([node("b") | {"timeout_s": "long"}], "graph.invalid", "b", "timeout_s is a number"),
        ([node("b") | {"priority": True}], "graph.invalid", "b", "priority"),
        ([node("b") | {"after": [1]}], "graph.invalid", "b", "after"),
        ([node("b") | {"for_each": {"x": 1}}], "graph.invalid", "b", "for_each"),
        ([node("b") | {"for_each": list(range(10_001))}], "graph.invalid", "b", "10001"),
        ([node("b") | {"for_each": {"$item": []}}], "graph.reference", "b", "for_each"),
        ([node("../b")], "graph.invalid", "../b", "is not 1 to 64"),
        ([{"id": "b"}], "graph.invalid", None, "names no plugin"),
        ([7], "graph.invalid", None, "no object"),
        (7, "graph.invalid", None, "steps is a list"),
    ],
)
def test_what_cannot_be_is_refused_with_its_step(steps: Any, code: str, step: str | None, said: str) -> None:
    with pytest.raises(graphs.GraphError) as caught:
        graphs.read({"steps": steps})
    assert caught.value.code == code
    assert caught.value.details.get("step") == step
    assert said in caught.value.message


def test_a_cycle_is_named() -> None:
    steps = [
        node("a", after=("c",)),
        node("b", after=("a",)),
        node("c", x={"$from": "b"}),
        node("d", after=("c",)),
    ]
    with pytest.raises(graphs.GraphError) as caught:
        graphs.read({"steps": steps})
    cycle = caught.value.details["cycle"]
    assert cycle in (["a", "b", "c", "a"], ["b", "c", "a", "b"], ["c", "a", "b", "c"])
    assert " -> ".join(cycle) in caught.value.message


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20))
@settings(max_examples=300, deadline=None)
def test_an_order_is_found_exactly_when_there_is_one(links: list[tuple[int, int]]) -> None:
    after: dict[int, set[int]] = {number: set() for number in range(9)}
    for child, parent in links:
        after[child].add(parent)
    steps = [node(f"s{n}", after=tuple(f"s{p}" for p in sorted(parents))) for n, parents in after.items()]
    try:
        graph = graphs.read({"steps": steps})
    except graphs.GraphError as error:
        cycle = [int(name[1:]) for name in error.details["cycle"]]
        assert cycle[0] == cycle[-1]
        assert all(before in after[behind] for before, behind in zip(cycle, cycle[1:], strict=False))
        return
    place = {each.id: number for number, each in enumerate(graph.steps)}
    assert all(place[f"s{p}"] < place[f"s{n}"] for n, parents in after.items() for p in parents)


def test_one_plugin_runs_over_many_arguments() -> None:
    assert [dict(each.arguments) for each in graphs.uniform("ocr", {"page": [1, 2], "dpi": [70, 300]})] == [
        {"page": 1, "dpi": 70},
        {"page": 2, "dpi": 300},
    ]
    assert [each.id for each in graphs.uniform("ocr", [{"page": 1}, {}])] == ["ocr-1", "ocr-2"]
    assert graphs.uniform("ocr", {}) == []
    with pytest.raises(graphs.GraphError) as caught:
        graphs.uniform("ocr", {"page": [1, 2], "dpi": [300]})
    assert caught.value.code == "graph.unequal"
    assert caught.value.details["lengths"] == {"page": 2, "dpi": 1}


@pytest.mark.parametrize(
    "document",
    [None, "steps", 3, {"steps": [], "mode": "hope"}, {"stpes": []}, {"steps": [], "priority": 1.5}],
)
def test_what_is_no_graph_is_refused(document: Any) -> None:
    with pytest.raises(graphs.GraphError):
        graphs.read(document)


def test_a_web_of_links_is_refused_before_it_fills_memory() -> None:
    names = [f"s{number}" for number in range(600)]
    steps = [node(name, after=tuple(names[:number])) for number, name in enumerate(names)]
    with pytest.raises(graphs.GraphError, match="more than 100000 times"):
        graphs.read({"steps": steps})


def test_as_many_steps_as_there_may_be_are_read_at_once() -> None:
    began = time.process_time()
    steps = [{"plugin": "ocr"} for _ in range(graphs.MAX_STEPS)]
    taken = [{"id": "ocr-2", "plugin": "x"}, {"id": "ocr-4", "plugin": "x"}]
    found = graphs.read({"steps": [*taken, *steps[:-2]]})
    assert [each.id for each in found.steps[2:6]] == ["ocr", "ocr-3", "ocr-5", "ocr-6"]
    ring = [node(f"s{number}", after=(f"s{number - 1}",)) for number in range(1, graphs.MAX_STEPS)]
    with pytest.raises(graphs.GraphError) as caught:
        graphs.read({"steps": [node("s0", after=(f"s{graphs.MAX_STEPS - 1}",)), *ring]})
    assert len(caught.value.message) < 1000
    assert len(caught.value.details["cycle"]) < 50
    assert caught.value.details["steps"] == graphs.MAX_STEPS
    assert time.process_time() - began < 3
