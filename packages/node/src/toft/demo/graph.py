"""The demo's work as a graph of jobs: what is submitted, and what is read out of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toft.demo import cast
from toft.kernel import errors

# Each step may be run again: none of them changes anything.
_AGAIN = {"idempotent": True}


def document(plugins: Sequence[str], scan: Path) -> dict[str, Any]:
    """Return the graph, as it could stand in a file.

    Args:
        plugins: Who makes page images, reads lines, finds entities, and searches.
        scan: The PDF.
    """
    pages, ocr, entities, search = plugins
    return {
        "name": "read-a-scan",
        "steps": [
            {"id": "pages", "plugin": pages, "arguments": {"pdf": str(scan)}, **_AGAIN},
            {
                "id": "read",
                "plugin": ocr,
                "action": "lines",
                "for_each": {"$from": "pages", "path": ["pages"]},
                "arguments": {"image": {"$item": []}},
                **_AGAIN,
            },
            {
                "id": "understand",
                "plugin": entities,
                "for_each": {"$from": "read"},
                "arguments": {"lines": {"$item": []}},
                **_AGAIN,
            },
            {
                "id": "answer",
                "plugin": search,
                "action": "answer",
                "for_each": list(cast.QUESTIONS),
                "arguments": {"pages": {"$from": "understand"}, "question": {"$item": []}},
                **_AGAIN,
            },
        ],
    }


class Outcome:
    """What became of the graph.

    Args:
        jobs: The jobs of a blocking node.
        ended: The graph, at its end.
    """

    def __init__(self, jobs: Any, ended: Any) -> None:
        self._jobs = jobs
        self.members = {job.record.step: job for job in jobs.list(sequence=ended.id, limit=1000)}
        failed = [job for job in self.members.values() if job.record.state == "failed"]
        if ended.state != "completed":
            reason = failed[0].record.error["message"] if failed else f"the graph is {ended.state}"
            raise errors.NodeError(reason, code="demo.failed", hint=f"toft why {ended.id}")

    def found(self) -> dict[str, Any]:
        """Return what the plugins said, page by page and question by question."""
        pages = self._result("pages")
        understood = self._result("understand")
        return {
            "pages": len(pages["pages"]),
            "text_layer": pages["text"],
            "lines": self._result("read"),
            "sentences": sum(len(page["sentences"]) for page in understood),
            "entities": [
                {"page": number, **entity}
                for number, page in enumerate(understood, 1)
                for entity in page["entities"]
            ],
            "answers": self._result("answer"),
        }

    def told(self, found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield what there is to tell of it."""
        yield "pages", {"count": found["pages"], "text": found["text_layer"]}
        for number, lines in enumerate(found["lines"], 1):
            yield "lines", {"page": number, "lines": lines}
        yield "entities", {"entities": found["entities"]}
        yield "begin", {"title": "Asked about it"}
        for answer in found["answers"]:
            yield "answer", answer

    def work_of(self, plugin: str) -> dict[str, Any]:
        """Return what the jobs of a plugin took."""
        done = [job.record for job in self.members.values() if job.record.plugin == plugin]
        return {
            "calls": sum(record.attempt for record in done),
            "call_s": round(sum(record.usage.get("duration_s", 0.0) for record in done if record.attempt), 3),
        }

    def _result(self, step: str) -> Any:
        return self._jobs.result(self.members[step].id)
