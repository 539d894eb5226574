"""One event word and fields; where it goes is decided by the program that embeds the node.

Nothing is printed unless the program asks for it: events go to the standard `logging` tree under `toft`,
which has no handler of its own until `show` adds one. The host's own stdout stays clean in any case.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

_ROOT = logging.getLogger("toft")
_ROOT.addHandler(logging.NullHandler())


class Logger:
    """The logger of a room; a line is put together only when somebody will see it.

    Args:
        target: Where in the `logging` tree it writes.
    """

    def __init__(self, target: logging.Logger) -> None:
        self._target = target
        self._bound: Any = None

    def debug(self, event: str, **fields: Any) -> None:
        """Tell what helps to find a mistake in the node."""
        self._log(logging.DEBUG, "debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Tell what happened as it should."""
        self._log(logging.INFO, "info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Tell what somebody should look at."""
        self._log(logging.WARNING, "warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Tell what failed."""
        self._log(logging.ERROR, "error", event, fields)

    def _log(self, level: int, name: str, event: str, fields: dict[str, Any]) -> None:
        if not self._target.isEnabledFor(level) or not _is_heard(self._target):
            return
        if self._bound is None:
            self._bound = _bind(self._target)
        getattr(self._bound, name)(event, **fields)


def get_logger(room: str) -> Logger:
    """Return the logger of a room, such as `plugins.supervisor`."""
    return Logger(logging.getLogger(f"toft.{room}"))


def _is_heard(target: logging.Logger) -> bool:
    """Say whether any handler but the one that throws everything away will see an event."""
    logger: logging.Logger | None = target
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _bind(target: logging.Logger) -> Any:
    import structlog  # noqa: PLC0415 - it brings rich, a fifth of the start of a node that logs nothing

    return structlog.wrap_logger(
        target,
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"], sort_keys=True),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


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
