"""Sentences and entities of a text, where no interpreter fits spaCy 3.5."""

from __future__ import annotations

import re
from typing import Any

import pysbd

from toft_sdk import Plugin

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
ENTITY = re.compile(
    rf"(?P<DATE>\d{{1,2}} (?:{MONTHS}) \d{{4}})"
    r"|(?P<MONEY>\d+(?:[.,]\d+)? (?:EUR|USD|CHF))"
    r"|(?P<PRESSURE>\d+(?:[.,]\d+)? (?:bar|kPa|psi))"
)


class Sentences(Plugin):
    """Find sentences by pySBD, and dates, amounts of money and pressures by patterns."""

    name = "demo-sentences"
    domain = "text"
    role = "entities"

    def initialize(self) -> None:
        """Build the segmenter."""
        self.segmenter = pysbd.Segmenter(language="en", clean=False)

    def execute(self, lines: list[str]) -> dict[str, Any]:
        """Read the lines as running text; a line without a full stop, such as a heading, ends there."""
        text = " ".join(line if line.endswith((".", "!", "?")) else line + "." for line in lines)
        return {
            "sentences": [sentence.strip() for sentence in self.segmenter.segment(text)],
            "entities": [{"text": each[0], "label": each.lastgroup} for each in ENTITY.finditer(text)],
        }
