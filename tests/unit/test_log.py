"""Events cost nothing that nobody hears, and say everything to whoever does."""

from __future__ import annotations

import io
import logging

from toft.kernel import log


def test_events_are_shown_with_their_fields_from_the_level_that_was_asked_for() -> None:
    stream = io.StringIO()
    handler = log.show("INFO", stream)
    try:
        logger = log.get_logger("test.room")
        logger.debug("too_small", what="nothing")
        logger.warning("worker_died", instance="ocr", code=3)
    finally:
        logging.getLogger("toft").removeHandler(handler)
        logging.getLogger("toft").setLevel(logging.NOTSET)
    (line,) = stream.getvalue().splitlines()
    assert "level='warning'" in line
    assert "event='worker_died'" in line
    assert "instance='ocr'" in line
    assert "code=3" in line
