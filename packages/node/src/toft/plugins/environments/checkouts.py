"""Fetches a project from a version control address, `git+SCHEME://…@REF#subdirectory=…`; needs git."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

from toft.host import commands
from toft.plugins.environments import environment_errors, uv_errors
from toft.plugins.environments.tool_environment import scrubbed

_SCHEMES = ("https", "http", "ssh", "git", "file")


@dataclass(frozen=True)
class Address:
    """One version control address, taken apart."""

    url: str
    ref: str | None
    subdirectory: Path

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `git+SCHEME://…[@REF][#subdirectory=PATH]`.

        Raises:
            SourceError: It is not one that git may be given.
        """
        parts = urlsplit(text.removeprefix("git+"))
        path, _, ref = parts.path.rpartition("@") if "@" in parts.path else (parts.path, "", "")
        below = Path(parse_qs(parts.fragment).get("subdirectory", ["."])[0])
        if parts.scheme not in _SCHEMES or ref.startswith("-") or below.is_absolute() or ".." in below.parts:
            raise environment_errors.SourceError(
                f"{uv_errors.redacted(text)} is not an address that git can be given",
                hint=f"write git+SCHEME://…@REF, with one of {', '.join(_SCHEMES)}",
            )
        return cls(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), ref or None, below)


async def fetch(
    text: str, target: Path, *, environ: Mapping[str, str], timeout_s: float, offline: bool
) -> Path:
    """Check out an address into a new directory and return the project in it.

    Raises:
        SourceError: git is not there, or the address is none.
        DownloadError: git could not fetch it.
    """
    address = Address.parse(text)
    git = shutil.which("git", path=environ.get("PATH"))
    if git is None:
        raise environment_errors.SourceError(
            "a version control address needs git, and there is none on PATH",
            code="source.no_git",
            hint="install git, or add a local copy of the project",
        )
    if offline and urlsplit(address.url).scheme != "file":
        raise environment_errors.DownloadError(
            f"offline: {uv_errors.redacted(address.url)} cannot be fetched",
            code="environment.offline_missing",
        )
    env = {**scrubbed(environ), "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    steps = [(git, "clone", "--quiet", "--no-checkout", "--", address.url, str(target))]
    steps.append((git, "-C", str(target), "checkout", "--quiet", "--detach", address.ref or "HEAD"))
    for argv in steps:
        result = await commands.run(argv, env=env, cwd=target.parent, timeout_s=timeout_s)
        if result.code != 0:
            said = uv_errors.redacted(result.stderr).strip()
            raise environment_errors.DownloadError(
                f"git could not fetch {uv_errors.redacted(address.url)}: {said[-300:]}",
                details={"output": said[-5000:]},
            )
    return target / address.subdirectory
