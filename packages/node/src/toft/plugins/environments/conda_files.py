"""Reads an `environment.yml`: channels, packages, the `pip:` section; refuses what it would have to guess."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from toft.kernel import authored, errors, suggestions
from toft.plugins.environments import environment_errors, uv_errors

_MOST_BYTES = 1 << 20
_FETCH_S = 30.0
_USED = frozenset({"name", "channels", "dependencies", "prefix", "variables"})


@dataclass(frozen=True)
class EnvironmentFile:
    """A checked `environment.yml`.

    Attributes:
        channels: Names or addresses, in order of preference.
        specs: What is wanted of them, `python` always among it.
        requirements: The `pip:` section, paths made absolute.
    """

    channels: tuple[str, ...]
    specs: tuple[str, ...]
    requirements: tuple[str, ...]


def read(place: str, *, python: str | None = None, offline: bool = False) -> EnvironmentFile:
    """Read an `environment.yml` from a path or an address; blocks.

    Args:
        place: A path, or an `https:`, `http:` or `file:` address.
        python: A version that is wanted beside what the file says.
        offline: Refuse an address that needs the network.

    Raises:
        SourceError: It is not there, or not right; every problem is named.
        DownloadError: The address did not answer.
    """
    scheme = urlsplit(place).scheme
    is_address = scheme in ("http", "https", "file")
    if is_address:
        if offline and scheme != "file":
            raise environment_errors.DownloadError(
                f"offline: {uv_errors.redacted(place)} cannot be fetched", code="environment.offline_missing"
            )
        data, base = _fetched(place), None
    else:
        path = Path(place).expanduser().absolute()
        data, base = _read(path), path.parent
    try:
        value = authored.parse(data, uv_errors.redacted(place), language="yaml", longest=_MOST_BYTES)
    except errors.UsageError as error:
        raise environment_errors.SourceError(error.message) from error
    return parse(value, what=uv_errors.redacted(place), base=base, python=python)


def parse(value: Any, *, what: str, base: Path | None = None, python: str | None = None) -> EnvironmentFile:
    """Check the value of an `environment.yml`; see `read`."""
    problems: list[str] = []
    if not isinstance(value, dict):
        raise environment_errors.SourceError(f"{what} must be an object with dependencies")
    for key in value:
        if key not in _USED:
            problems.append(
                f"{key[:60] if isinstance(key, str) else suggestions.shown(key)} is not used here"
            )
    channels = _texts(value.get("channels", []), "channels", problems)
    specs, requirements = _dependencies(value.get("dependencies"), base, problems)
    if problems:
        raise environment_errors.SourceError(
            f"{what} is not right: {'; '.join(problems)}",
            code="environment.bad_file",
            details={"problems": problems},
        )
    if python:
        specs.append(_python_spec(python))
    elif not any(re.match(r"(?:.*::)?python(?![\w.-])", spec) for spec in specs):
        specs.append("python >=3.8")
    placed = tuple(_channel(name, base) for name in channels if name != "nodefaults")
    return EnvironmentFile(placed or ("conda-forge",), tuple(specs), tuple(requirements))


def _dependencies(value: Any, base: Path | None, problems: list[str]) -> tuple[list[str], list[str]]:
    if not isinstance(value, list) or not value:
        problems.append("dependencies must be a list with something in it")
        return [], []
    specs: list[str] = []
    requirements: list[str] = []
    for each in value:
        if isinstance(each, dict) and set(each) == {"pip"}:
            for line in _texts(each["pip"] or [], "pip", problems):
                requirements += _requirement(line, base, problems)
        elif isinstance(each, str) and each.strip() and not each.strip().startswith("-"):
            specs.append(each.strip())
        else:
            problems.append(f"dependencies has {suggestions.shown(each)}, which is neither a package nor pip")
    # Conda wants pip named before a pip section; uv does its work here.
    return specs, requirements


def _requirement(line: str, base: Path | None, problems: list[str]) -> list[str]:
    line = re.sub(r"^(-e|--editable)[ =]\s*", "", line.strip())
    if line.startswith("-"):
        problems.append(
            f"pip has the option {line.split()[0]}; index settings belong in uv's own configuration"
        )
        return []
    if line.startswith((".", "/", "~")):
        if base is None and not line.startswith("/"):
            problems.append(f"pip has the relative path {line}, and the file came from an address")
            return []
        return [str(((base or Path("/")) / Path(line).expanduser()).resolve())]
    return [line]


def _texts(value: Any, where: str, problems: list[str]) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each.strip() for each in value):
        problems.append(f"{where} must be a list of texts")
        return []
    for each in value:
        if any(ord(char) < 32 for char in each):
            problems.append(f"{where} has a control character")
    return [each.strip() for each in value]


def _channel(name: str, base: Path | None) -> str:
    if name.startswith((".", "/", "~")):
        return ((base or Path("/")) / Path(name).expanduser()).resolve().as_uri()
    return name


def _python_spec(wanted: str) -> str:
    bare = wanted.strip().removeprefix("python")
    if re.fullmatch(r"\d+(\.\d+){0,2}", bare):
        return f"python {bare}.*" if bare.count(".") < 2 else f"python {bare}"
    if bare[:1] in "<>=!~":
        return f"python {bare}"
    raise environment_errors.SourceError(
        f"{wanted!r} is not a Python version; an environment.yml brings its own interpreter",
        code="environment.bad_python",
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise environment_errors.SourceError(f"{path} cannot be read: {error.strerror}") from error
    return _bounded(data, str(path))


def _fetched(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=_FETCH_S) as answer:
            data: bytes = answer.read(_MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        # It is also the answer, and holds its connection open.
        error.close()
        raise environment_errors.DownloadError(
            f"{uv_errors.redacted(address)} could not be fetched: {error}"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise environment_errors.DownloadError(
            f"{uv_errors.redacted(address)} could not be fetched: {reason}"
        ) from error
    return _bounded(data, uv_errors.redacted(address))


def _bounded(data: bytes, what: str) -> bytes:
    if len(data) > _MOST_BYTES:
        raise environment_errors.SourceError(f"{what} is larger than {_MOST_BYTES} bytes")
    return data
