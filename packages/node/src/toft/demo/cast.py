"""Which plugins take part, what they are given, and who steps in where no interpreter fits."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCAN = HERE / "scan.pdf"
QUESTIONS = (
    "How much does the bearing cost?",
    "Where is something to put out flames?",
    "Is there a vegetarian dish?",
)


@dataclass(frozen=True)
class Part:
    """One plugin of the demo.

    Attributes:
        plugin: Its name.
        folder: Its project, under `plugins/`.
        does: What it is there for.
        substitute: Who takes its place when this machine has no interpreter that fits.
    """

    plugin: str
    folder: str
    does: str
    substitute: Part | None = None

    @property
    def project(self) -> Path:
        """Return its project directory."""
        return HERE / "plugins" / self.folder

    def requirements(self) -> tuple[str, ...]:
        """Return what its project asks for."""
        return tuple(self._described()["dependencies"])

    def version(self) -> str:
        """Return its version; another one is installed anew."""
        return str(self._described()["version"])

    def _described(self) -> dict[str, Any]:
        with open(self.project / "pyproject.toml", "rb") as file:
            described: dict[str, Any] = tomllib.load(file)["project"]
        return described


PAGES = Part("demo-pages", "pages", "page images")
OCR = Part("demo-ocr", "ocr", "text recognition")
SENTENCES = Part("demo-sentences", "sentences", "sentences, entities")
ENTITIES = Part("demo-entities", "entities", "sentences, entities", substitute=SENTENCES)
SEARCH = Part("demo-search", "search", "search by meaning")
CAST = (PAGES, OCR, ENTITIES, SEARCH)
# numpy 2 for one, numpy 1 for the other.
QUARREL = (OCR, ENTITIES)
