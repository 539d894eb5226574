"""The plugins that came with this toft: they lie in the Python it runs in, and declare themselves there.

They are as trusted as toft itself, and change with it alone. Standard library only, because the guard asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

GROUP = "toft.plugins"


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """One of them.

    Attributes:
        name: The plugin.
        version: Of its distribution.
        module: What to import.
        class_name: Its class; empty where it is the only one.
    """

    name: str
    version: str
    module: str
    class_name: str = ""


def find() -> dict[str, Bundled]:
    """Return them by name; blocks."""
    found = {}
    for point in metadata.entry_points(group=GROUP):
        if point.dist is not None:
            found[point.name] = Bundled(
                name=point.name, version=point.dist.version, module=point.module, class_name=point.attr
            )
    return found
