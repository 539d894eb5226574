"""One event word and fields; where it goes is decided by the program that embeds the node.

Nothing is printed unless the program asks for it: events go to the standard `logging` tree under `toft`,
which has no handler of its own until `show` adds one. The host's own stdout stays clean in any case.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

_ROOT = logging.getLogger("toft")
_ROOT.addHandler(logging.NullHandler())


def get_logger(room: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a room, such as `plugins.supervisor`."""
    bound: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"toft.{room}"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"], sort_keys=True),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return bound


def show(level: str = "INFO", stream: TextIO | None = None) -> logging.Handler:
    """Print events of this level and above, on stderr unless told otherwise.

    Returns:
        The handler, for `logging.getLogger("toft").removeHandler`.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _ROOT.addHandler(handler)
    _ROOT.setLevel(level)
    return handler
