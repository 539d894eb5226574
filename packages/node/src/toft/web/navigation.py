"""Where one can go from every page, and with which key."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """One entry: after `g`, its key leads there."""

    name: str
    path: str
    key: str


PLACES = (
    Place("Overview", "/", "o"),
    Place("Jobs", "/jobs", "j"),
    Place("Sequences", "/sequences", "s"),
    Place("Plugins", "/plugins", "p"),
    Place("Plots", "/samples", "l"),
    Place("Configuration", "/configuration", "c"),
)


def is_at(place: Place, path: str) -> bool:
    """Say whether a path is of a place or below it."""
    return path == place.path or (place.path != "/" and path.startswith(f"{place.path}/"))
