"""Sentences and entities of a text, by spaCy and rules."""

from __future__ import annotations

from typing import Any

import spacy

from toft_sdk import Plugin

NUMBER = {"TEXT": {"REGEX": r"^\d+([.,]\d+)?$"}}
MONTH = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
PATTERNS = [
    {"label": "DATE", "pattern": [{"IS_DIGIT": True}, {"TEXT": {"IN": MONTH}}, {"SHAPE": "dddd"}]},
    {"label": "MONEY", "pattern": [NUMBER, {"TEXT": {"IN": ["EUR", "USD", "CHF"]}}]},
    {"label": "PRESSURE", "pattern": [NUMBER, {"LOWER": {"IN": ["bar", "kpa", "psi"]}}]},
]


class Entities(Plugin):
    """Find sentences, dates, amounts of money and pressures."""

    name = "demo-entities"
    domain = "text"
    role = "entities"

    def initialize(self) -> None:
        """Build the pipeline; it is rules only and needs no model."""
        self.nlp = spacy.blank("en")
        self.nlp.add_pipe("sentencizer")
        self.nlp.add_pipe("entity_ruler").add_patterns(PATTERNS)

    def execute(self, lines: list[str]) -> dict[str, Any]:
        """Read the lines as running text; a line without a full stop, such as a heading, ends there."""
        text = " ".join(line if line.endswith((".", "!", "?")) else line + "." for line in lines)
        document = self.nlp(text)
        return {
            "sentences": [sentence.text for sentence in document.sents],
            "entities": [{"text": each.text, "label": each.label_} for each in document.ents],
        }
