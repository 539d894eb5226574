"""`toft backup DIR`: a copy of what the node knows, made while it works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toft.cli import session as sessions
from toft.cli.session import JsonOption, argument
from toft.kernel.quantities import counted


def backup(
    context: typer.Context,
    directory: Annotated[Path, argument("DIR", "A directory that is not there yet.")],
    as_json: JsonOption = False,
) -> None:
    """Copy jobs, events, results and the configuration of instances, while the node works.

    The copy is of one moment and whole. docs/how-to/back-up-and-restore.md says how to go back to it.
    """
    from toft.store import backups  # noqa: PLC0415 - SQLite is 10 ms that `toft --help` does not pay

    session = sessions.of(context)
    made = backups.write(session.settings().home, directory.expanduser().absolute())
    if as_json:
        session.terminal.json(
            {
                "path": str(made.path),
                "database_bytes": made.database_bytes,
                "blobs": made.blobs,
                "blobs_bytes": made.blobs_bytes,
            }
        )
        return
    size = (made.database_bytes + made.blobs_bytes) / 1e6
    blobs = counted(made.blobs, "large value")
    session.terminal.line(f"{made.path}: the database and {blobs}, {size:.1f} MB")
