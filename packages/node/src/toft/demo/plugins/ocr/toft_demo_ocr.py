"""Lines of text on a page image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy
from rapidocr_onnxruntime import RapidOCR

from toft_sdk import InputError, Plugin, action


class Ocr(Plugin):
    """Read the lines of text on a picture, top to bottom."""

    name = "demo-ocr"
    domain = "document"
    role = "text_recognition"

    def initialize(self) -> None:
        """Load the models, which are inside the package."""
        self.read = RapidOCR()

    def execute(self, image: bytes) -> list[dict[str, Any]]:
        """Return each line with how sure the model is of it."""
        picture = cv2.imdecode(numpy.frombuffer(image, numpy.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise InputError("not a picture", fields={"image": "neither PNG nor JPEG"})
        found, _ = self.read(picture)
        return [{"text": text, "score": float(score)} for _, text, score in found or []]

    @action
    def lines(self, image: bytes) -> list[str]:
        """Return the text of each line alone, for whoever reads on."""
        return [line["text"] for line in self.execute(image)]
