"""Sets up a micromamba of this node's own, for an `environment.yml` where py-rattler is not installed.

Where it is fetched from is a setting: toft names no download host of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from toft.host import commands
from toft.kernel import errors, ids
from toft.plugins.environments import environment_errors, uv_errors
from toft.plugins.environments.provisioning import Progress, silent
from toft.plugins.environments.tool_environment import scrubbed
from toft.store import durable

_MOST_BYTES = 256 << 20
_FETCH_S = 60.0
_ELF = b"\x7fELF"
_MACH = (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")


@dataclass(frozen=True, kw_only=True)
class MicromambaOptions:
    """Where micromamba comes from and goes to.

    Attributes:
        prefix: The program becomes `bin/micromamba` below it.
        source: Path or address of a release: the program, or a tar archive that holds `bin/micromamba`.
        sha256: What the file must hash to; None trusts the source.
        offline: Take a source on this machine only.
    """

    prefix: Path
    source: str | None = None
    sha256: str | None = None
    offline: bool = False


class Micromamba:
    """This node's own micromamba."""

    def __init__(self, options: MicromambaOptions, *, environ: Mapping[str, str] | None = None) -> None:
        self._options = options
        self._environ = os.environ if environ is None else environ

    @property
    def path(self) -> Path:
        """Return where the program is, or will be."""
        return self._options.prefix / "bin" / "micromamba"

    async def set_up(self, *, force: bool = False, progress: Progress = silent) -> Path:
        """Put the program in place; nothing to do when it is there, unless forced.

        Raises:
            UsageError: Nobody said where to get it.
            DownloadError: The source did not answer.
            HashMismatchError: It is not the file that was meant.
            SourceError: It is no micromamba, or an archive that would write elsewhere.

        Durability: The program is there whole, or as it was before.
        """
        if not force and await asyncio.to_thread(os.access, self.path, os.X_OK):
            progress(f"{self.path} is there")
            return self.path
        source = self._options.source
        if not source:
            raise errors.UsageError(
                "nobody said where micromamba is to be fetched from",
                code="environment.no_micromamba_source",
                hint="set TOFT_MICROMAMBA_SOURCE, or micromamba_source in the settings, to the path or"
                " address of a release; or install toft[conda], which needs none",
            )
        progress(f"fetching {uv_errors.redacted(source)}")
        data = await asyncio.to_thread(_read, source, self._options.offline)
        _check_hash(data, self._options.sha256, source)
        program = await asyncio.to_thread(_program, data)
        await asyncio.to_thread(durable.make_directory, self.path.parent)
        staged = self.path.with_name(f".tmp-micromamba-{ids.ulid()}")
        try:
            await asyncio.to_thread(durable.write_file, staged, program, mode=0o755)
            progress("trying whether it runs")
            await self._try(staged)
            await asyncio.to_thread(os.replace, staged, self.path)
            await asyncio.to_thread(durable.SYSTEM.sync_directory, str(self.path.parent))
        finally:
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread(staged.unlink)
        return self.path

    async def _try(self, program: Path) -> None:
        answer = await commands.run(
            (str(program), "--version"), env=scrubbed(self._environ), cwd=program.parent, timeout_s=60
        )
        if answer.code != 0 or not answer.stdout.strip():
            raise environment_errors.SourceError(
                f"what was fetched does not run: {answer.stderr.strip()[-200:]}",
                code="environment.bad_micromamba",
            )


def _read(source: str, offline: bool) -> bytes:
    scheme = urlsplit(source).scheme
    if offline and scheme in ("http", "https"):
        raise environment_errors.DownloadError(
            f"offline: {uv_errors.redacted(source)} cannot be fetched", code="environment.offline_missing"
        )
    try:
        if scheme in ("http", "https", "file"):
            with urllib.request.urlopen(source, timeout=_FETCH_S) as answer:
                data: bytes = answer.read(_MOST_BYTES + 1)
        else:
            with Path(source).expanduser().open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError):
            # It is also the answer, and holds its connection open.
            error.close()
        raise environment_errors.DownloadError(
            f"{uv_errors.redacted(source)} could not be fetched: {error}"
        ) from error
    if len(data) > _MOST_BYTES:
        raise environment_errors.SourceError(f"it is larger than {_MOST_BYTES} bytes")
    return data


def _check_hash(data: bytes, wanted: str | None, source: str) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if wanted and digest != wanted.removeprefix("sha256:").lower():
        raise environment_errors.HashMismatchError(
            f"{uv_errors.redacted(source)} hashes to {digest}, not to {wanted}",
            hint="it is not the file that was meant; do not use it",
        )


def _program(data: bytes) -> bytes:
    if data[:4] == _ELF or data[:4] in _MACH or data[:2] == b"#!":
        return data
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return _member(archive)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise environment_errors.SourceError(
            f"it is neither a program nor a tar archive: {error}", code="environment.bad_micromamba"
        ) from error


def _member(archive: tarfile.TarFile) -> bytes:
    """Return the program out of an archive; nothing is ever extracted to where the archive says."""
    found = None
    for member in archive:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise environment_errors.SourceError(
                f"the archive would write to {member.name}", code="environment.bad_micromamba"
            )
        if path.parts[-2:] == ("bin", "micromamba"):
            found = member
    if found is None or not found.isreg() or found.size > _MOST_BYTES:
        what = "no bin/micromamba" if found is None else "a bin/micromamba that is no plain file"
        raise environment_errors.SourceError(f"the archive has {what}", code="environment.bad_micromamba")
    file = archive.extractfile(found)
    assert file is not None
    return file.read()
