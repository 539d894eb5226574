"""Page images of a PDF."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pypdfium2

from toft_sdk import Plugin


class Pages(Plugin):
    """Turn each page of a PDF into a picture."""

    name = "demo-pages"
    domain = "document"
    role = "page_images"

    def execute(self, pdf: Path, dpi: int = 150) -> dict[str, Any]:
        """Render every page; `text` is what the PDF itself says in letters, empty for a scan."""
        pages, text = [], []
        with pypdfium2.PdfDocument(pdf) as document:
            for number, page in enumerate(document, 1):
                picture = page.render(scale=dpi / 72, grayscale=True).to_pil()
                buffer = io.BytesIO()
                picture.save(buffer, "PNG")
                pages.append(buffer.getvalue())
                text.append(page.get_textpage().get_text_bounded())
                self.report_progress(number / len(document), f"page {number}")
        return {"pages": pages, "text": "".join(text).strip()}
