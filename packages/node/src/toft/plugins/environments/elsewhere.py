"""Wishes of somebody on another machine: what they name is on the network or was uploaded, never a path here.

A path of this machine would put files of its owner into an environment that others can read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from toft.plugins.environments import artifact_names, conda_files, environment_errors, sources, uv_errors
from toft.plugins.environments.wishes import Wish

_ORIGIN = 500
_ADDRESSES = ("http", "https")
_KINDS = (".tar", ".whl", ".py")


def wish(fields: Mapping[str, Any]) -> Wish:
    """Return the wish that the body of a request holds.

    Raises:
        SourceError: It names what only a program on this machine may name (`source.elsewhere`).
    """
    found = Wish.of(fields["source"], {name: each for name, each in fields.items() if name != "source"})
    _check_source(found.source, kinds=_KINDS)
    for each in found.requirements:
        if not isinstance(each, str):
            raise environment_errors.SourceError("requirements is a list of texts")
        _check_source(each, kinds=_KINDS)
    if found.lock is not None:
        artifact_names.parse(found.lock)
    if found.env_file is not None and urlsplit(found.env_file).scheme not in _ADDRESSES:
        artifact_names.parse(found.env_file)
    if found.python is not None and "/" in found.python:
        raise _not_here(found.python, "is a version or a range", "such as 3.12 or >=3.11")
    for name, value in found.env_vars.items():
        if not isinstance(value, str):
            raise environment_errors.SourceError(f"the variable {name[:100]} is a text")
    origin = found.origin or uv_errors.redacted(found.source)
    if len(origin) > _ORIGIN or not origin.isprintable():
        raise environment_errors.SourceError(f"origin is a line of at most {_ORIGIN} characters")
    # Whoever is elsewhere may forgo the network, and not allow what the owner's settings forbid.
    asked = {**vars(found), "source": None, "origin": origin, "offline": found.offline or None}
    return Wish.of(found.source, asked)


def _check_source(text: str, *, kinds: tuple[str, ...]) -> None:
    if artifact_names.is_named(text):
        named = artifact_names.parse(text)
        if not named.file.endswith(kinds):
            raise environment_errors.SourceError(
                f"{named.file} is none of {', '.join(kinds)}",
                hint="a directory is uploaded as a plain tar; other files are not installed from",
            )
        return
    if sources.looks_like_path(text) or any(ord(char) < 32 for char in text):
        raise _not_here(text[:200], "is no requirement", "toft --url URL plugin add PATH uploads it")
    url = text if text.startswith("git+") else sources.parse_requirement(text).url
    if url is not None and urlsplit(url.removeprefix("git+")).scheme not in _ADDRESSES:
        raise _not_here(uv_errors.redacted(text), "is fetched by http or https", "or upload it")


def check_environment(file: conda_files.EnvironmentFile) -> None:
    """Refuse an `environment.yml` of somebody elsewhere that names what lies on this machine.

    Raises:
        SourceError: It does (`source.elsewhere`).
    """
    for each in file.requirements:
        _check_source(each, kinds=())
    for each in (*file.channels, *file.specs):
        if "file:" in each or each.startswith((".", "/", "~")):
            raise _not_here(uv_errors.redacted(each), "is no channel or package of one", "or upload a wheel")


def _not_here(what: str, why: str, hint: str) -> environment_errors.SourceError:
    return environment_errors.SourceError(
        f"over HTTP no path of this machine is taken: {what!r} {why}", code="source.elsewhere", hint=hint
    )
