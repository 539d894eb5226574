# /// script
# requires-python = ">=3.12"
# dependencies = ["reportlab==5.1.0", "pypdfium2==5.15.2", "pillow==13.0.0", "numpy==2.5.5"]
# ///
"""Make the demo's input: a three-page report, printed, then scanned a little askew by a noisy scanner.

Run with `uv run --script tools/make_demo_scan.py`. The result is committed, since the node itself needs none
of these packages; the same versions give the same bytes.
"""

import io
import sys
import time
from pathlib import Path

import numpy
import pypdfium2
from PIL import Image
from reportlab.lib.pagesizes import A5
from reportlab.pdfgen.canvas import Canvas

PAGES = [
    [
        "Maintenance",
        "The pump in hall B was inspected on 12 March 2026.",
        "Dr. Meier found a worn bearing on the drive side.",
        "The bearing costs 249.50 EUR and arrives in two weeks.",
    ],
    [
        "Safety",
        "Wear gloves and goggles near the hydraulic press.",
        "The line pressure must stay below 6 bar.",
        "A fire extinguisher hangs beside the north door.",
    ],
    [
        "Canteen",
        "Every Friday the canteen serves vegetable lasagna.",
        "The kitchen opens at noon and closes at two.",
        "Please bring back the trays.",
    ],
]
DPI = 150
ANGLE = 0.8


def print_report() -> bytes:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A5, invariant=1)
    for title, *lines in PAGES:
        canvas.setFont("Times-Bold", 18)
        canvas.drawString(40, 520, title)
        canvas.setFont("Times-Roman", 14)
        for number, line in enumerate(lines):
            canvas.drawString(40, 470 - 34 * number, line)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def scan(report: bytes) -> bytes:
    chance = numpy.random.default_rng(7)
    sheets = []
    for page in pypdfium2.PdfDocument(report):
        sheet = page.render(scale=DPI / 72, grayscale=True).to_pil()
        sheet = sheet.rotate(ANGLE, resample=Image.Resampling.BICUBIC, fillcolor=255)
        grey = numpy.asarray(sheet, dtype=numpy.float32) * 0.9 + 14 + chance.normal(0, 4, sheet.size[::-1])
        sheets.append(Image.fromarray(grey.clip(0, 255).astype(numpy.uint8)))
    buffer = io.BytesIO()
    # Fixed dates: a run a year later gives the same file.
    stamp = time.struct_time((2026, 3, 13, 8, 0, 0, 4, 72, 0))
    sheets[0].save(
        buffer,
        "PDF",
        save_all=True,
        append_images=sheets[1:],
        resolution=DPI,
        quality=45,
        creationDate=stamp,
        modDate=stamp,
    )
    return buffer.getvalue()


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(scan(print_report()))
