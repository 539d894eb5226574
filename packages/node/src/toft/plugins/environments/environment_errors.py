"""What can go wrong while an environment is made; each class is one thing to do next.

UnsatisfiableError     the requirements contradict each other, or nothing fits: change them
NoInterpreterError     no Python of the wanted version: install or name one
DownloadError          an index or file did not answer: try again, or work offline
BuildError             a package's own build failed: its author's matter
HashMismatchError      a file is not the one that was locked: do not use it
DiskFullError          no space: free some
SourceError            what was given is no plugin source
"""

from __future__ import annotations

from pathlib import Path

from toft.host import disks
from toft.kernel import errors


class UnsatisfiableError(errors.NodeError):
    """No set of packages satisfies the requirements."""

    code = "environment.unsatisfiable"
    category = "user_input"
    blame = "environment"


class NoInterpreterError(errors.NotFoundError):
    """No Python that fits was found."""

    code = "environment.no_interpreter"
    blame = "environment"


class DownloadError(errors.UnavailableError):
    """An index or a file could not be reached."""

    code = "environment.download"
    blame = "environment"


class BuildError(errors.NodeError):
    """A package had to be built and its build failed."""

    code = "environment.build_failed"
    category = "fatal"
    blame = "plugin"


class HashMismatchError(errors.IntegrityError):
    """A file is not the one that was locked."""

    code = "environment.hash_mismatch"
    blame = "environment"


class DiskFullError(errors.NodeError):
    """The disk is full, or a limit on file sizes was hit."""

    code = "environment.disk_full"
    category = "resource"
    blame = "environment"


class SourceError(errors.UsageError):
    """What was given is not something a plugin can be installed from."""

    code = "source.invalid"
    exit_code = 1


def disk_full(path: Path, evidence: str, needed_bytes: int | None = None) -> DiskFullError:
    """Return the error for a full disk, with what is left of it."""
    return DiskFullError(
        f"the disk ran full while an environment was made: {evidence}",
        details={
            "resource": "disk",
            "path": str(path),
            "available_bytes": disks.read_space(path).free_bytes,
            "needed_bytes": needed_bytes,
            "evidence": evidence,
        },
        hint="free some space (toft env gc removes unused environments), then try again",
    )
