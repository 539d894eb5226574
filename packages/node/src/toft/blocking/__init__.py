"""The one blocking facade over the asynchronous node, for scripts and the command line.

The node lives on an event loop in a thread of its own; the words are the same as there. Everything may be
used from several threads at once, and Ctrl-C cancels the call that is waited for.
"""

from __future__ import annotations

from toft.blocking.connecting import connect
from toft.blocking.installed import Installed
from toft.blocking.instance import Call, Chunks, Instance
from toft.blocking.jobs import Job, Jobs
from toft.blocking.node import Node
from toft.blocking.watching import Watch

__all__ = ["Call", "Chunks", "Installed", "Instance", "Job", "Jobs", "Node", "Watch", "connect"]
