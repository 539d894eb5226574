"""A host that is going to be killed: a call in C is running, and children have left their session.

Run as a program with a home; prints how many processes there are at least, then waits for its end.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import toft
from toft.bench import homes

# The keeper, the worker, and three that forked themselves away from it.
PROCESSES = 5


def main() -> None:
    """Wait to be killed."""
    home = Path(sys.argv[1])
    with toft.connect(home=home) as node:
        if homes.ECHO not in {plugin.name for plugin in node.installed.list()}:
            node.installed.add(homes.project(homes.ECHO))
        echo = node.load(homes.ECHO)
        echo.call("scatter")
        handle = echo.start("hang")
        while handle.progress is None:
            time.sleep(0.001)
        sys.stdout.write(f"{PROCESSES}\n")
        sys.stdout.flush()
        time.sleep(600)


if __name__ == "__main__":
    main()
