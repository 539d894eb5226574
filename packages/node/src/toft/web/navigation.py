"""Where one can go from every page, and with which key: on a node, and on a central."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """One entry: after `g`, its key leads there."""

    name: str
    path: str
    key: str


@dataclass(frozen=True)
class Face:
    """What the pages of one kind of application have in common.

    Attributes:
        find: Where `/` leads from a page that has nothing to find in.
        keys: What else keys do, for the list of them.
        folder: Of the pages that every application has in its own words.
        sheet: A style sheet beside the one of all.
    """

    places: tuple[Place, ...]
    find: str
    keys: tuple[tuple[str, str], ...]
    folder: str = ""
    sheet: str = ""


NODE = Face(
    places=(
        Place("Overview", "/", "o"),
        Place("Jobs", "/jobs", "j"),
        Place("Sequences", "/sequences", "s"),
        Place("Plugins", "/plugins", "p"),
        Place("Plots", "/samples", "l"),
        Place("Configuration", "/configuration", "c"),
    ),
    find="/jobs#filter",
    keys=(("/", "Find jobs"), ("c", "Cancel what is shown"), ("r", "Retry what is shown")),
)
CENTRAL = Face(
    places=(
        Place("Fleet", "/", "f"),
        Place("Rollouts", "/rollouts", "r"),
        Place("Documents", "/documents", "d"),
        Place("Audit", "/audit", "a"),
    ),
    find="/#filter",
    keys=(
        ("/", "Find nodes"),
        ("l", "The rollout that runs, the log and plots of a node"),
        ("w", "Next wave of a rollout"),
        ("p", "Pause a rollout, pin a node"),
        ("u", "Resume a rollout"),
        ("x", "Abort a rollout"),
        ("r", "Let a node try again"),
    ),
    folder="central/",
    sheet="central.css",
)


def is_at(place: Place, path: str) -> bool:
    """Say whether a path is of a place or below it."""
    return path == place.path or (place.path != "/" and path.startswith(f"{place.path}/"))
