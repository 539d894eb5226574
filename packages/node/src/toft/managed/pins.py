"""What a document pins: one wheel for each plugin, and everything that it needs; read and checked alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from toft.kernel import schemas
from toft.managed import addresses


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One pinned wheel.

    Attributes:
        name: The distribution.
        version: Its version.
        filename: What it is called.
        sha256: What it hashes to.
        size_bytes: How long it is.
        url: Where it is; empty for what central has.
    """

    name: str
    version: str
    filename: str
    sha256: str
    size_bytes: int
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One plugin, pinned.

    Attributes:
        plugin: What it is called in the document.
        wheel: Its own.
        packages: Those of all that it depends on.
        python: For which Python; empty for what it asks for itself.
    """

    plugin: str
    wheel: Wheel
    packages: tuple[Wheel, ...] = ()
    python: str = ""

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        """Return all of them, its own first."""
        return (self.wheel, *self.packages)


def read(plugins: Mapping[str, Any]) -> list[Pin]:
    """Return the pins of a checked document's section, in order, without what it disables."""
    return [
        Pin(
            plugin=name,
            wheel=_wheel({"name": _name(each["filename"]), **each}),
            packages=tuple(map(_wheel, each.get("packages", ()))),
            python=each.get("python", ""),
        )
        for name, each in sorted(plugins.items())
        if each.get("enabled", True)
    ]


def problems(plugins: Mapping[str, Any]) -> Iterator[schemas.Problem]:
    """Yield what is wrong with a section that has the right form: names, versions, and what occurs twice."""
    for name, each in plugins.items():
        place: tuple[str | int, ...] = ("plugins", name)
        yield from _misnamed(place, each)
        taken = {canonicalize_name(_name(each["filename"]))}
        for index, package in enumerate(each.get("packages", ())):
            inner = (*place, "packages", index)
            yield from _misnamed(inner, package)
            own = canonicalize_name(package["name"])
            if package["sha256"] == each["sha256"]:
                yield schemas.Problem(inner, "is the plugin itself", "order")
            elif own in taken:
                yield schemas.Problem((*inner, "name"), f"is {own}, which is pinned already", "order")
            taken.add(own)


def _misnamed(place: tuple[str | int, ...], wheel: Mapping[str, Any]) -> Iterator[schemas.Problem]:
    try:
        name, version, *_ = parse_wheel_filename(wheel["filename"])
    except InvalidWheelFilename:
        yield schemas.Problem((*place, "filename"), "is not how a wheel is called", "format")
        return
    if "name" in wheel and canonicalize_name(wheel["name"]) != name:
        yield schemas.Problem((*place, "filename"), f"is a wheel of {name}, not of {wheel['name']}", "format")
    try:
        is_same = Version(wheel["version"]) == version
    except InvalidVersion:
        is_same = False
    if not is_same:
        yield schemas.Problem(
            (*place, "version"), f"is {wheel['version']}; the wheel says {version}", "format"
        )
    if "url" in wheel and not addresses.is_url(wheel["url"]):
        yield schemas.Problem((*place, "url"), "is no address", "format")
    if "@" in wheel.get("url", "").partition("://")[2].partition("/")[0]:
        yield schemas.Problem(
            (*place, "url"), "has a name or a password in it, for everybody to read", "format"
        )


def _name(filename: str) -> str:
    return filename.split("-", 1)[0]


def _wheel(value: Mapping[str, Any]) -> Wheel:
    return Wheel(**{name: value[name] for name in Wheel.__dataclass_fields__ if name in value})
