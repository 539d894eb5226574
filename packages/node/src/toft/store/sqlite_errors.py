"""What SQLite says becomes what somebody can do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from toft.kernel import errors

LOCKED_AFTER_S = 10.0


def translate(error: sqlite3.Error, path: Path) -> errors.NodeError:
    """Return the node's error for one of SQLite's."""
    name = getattr(error, "sqlite_errorname", "")
    details = {"path": str(path), "sqlite": f"{name}: {error}" if name else str(error)}
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return errors.UnavailableError(
            f"{path} was locked by another process for {LOCKED_AFTER_S:g} s",
            code="store.locked",
            details=details,
            hint="wait for the other toft to end",
        )
    if name.startswith("SQLITE_CONSTRAINT"):
        return errors.ConflictError(f"{path}: {error}", code="store.conflict", details=details)
    if name.startswith("SQLITE_FULL"):
        return errors.UnavailableError(
            f"{path} cannot grow: the disk is full",
            code="store.disk_full",
            details=details,
            hint="free some space: toft env gc removes environments that nothing uses",
        )
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR")):
        return errors.RefusedError(
            f"{path} cannot be used: {error}",
            code="store.unusable",
            blame="environment",
            details=details,
            hint="run toft as the user who owns it, or point TOFT_HOME at a directory of your own",
        )
    # What a check of the file finds comes without a name.
    if name and not name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return errors.NodeError(
            f"{path}: a statement failed: {error}",
            code="store.failed",
            details=details,
            hint="nothing of it was stored; toft logs shows what was asked, toft doctor looks at the file",
        )
    return errors.IntegrityError(
        f"{path}: {error}",
        code="store.damaged",
        details=details,
        hint="restore what toft backup made (docs/how-to/back-up-and-restore.md); without one, move it away: "
        "plugins stay installed, jobs and what instances were configured with are lost",
    )
