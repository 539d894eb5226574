"""A PostgreSQL server for tests: on a socket in a directory of its own, gone with its test."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

_OTHERS = ("postgres", "nobody")
"""Whom the server runs as where the tests run as root, which it refuses."""


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Start a server for the length of a `with` block, and yield how its database is reached."""
    found = _binaries()
    if found is None:
        pytest.skip("needs postgres: apt install postgresql")
    user = _user()
    directory = Path(tempfile.mkdtemp(prefix="toft-pg-"))
    try:
        if user is not None:
            os.chown(directory, user.pw_uid, user.pw_gid)
        _run(
            user,
            found / "initdb",
            "-D",
            directory / "data",
            "-A",
            "trust",
            "-U",
            "toft",
            "--no-sync",
            "-E",
            "UTF8",
        )
        options = f"-c listen_addresses='' -c unix_socket_directories='{directory}'"
        _run(
            user,
            found / "pg_ctl",
            "-D",
            directory / "data",
            "-o",
            options,
            "-l",
            directory / "log",
            "-w",
            "start",
        )
        try:
            yield f"postgresql://toft@/postgres?host={directory}"
        finally:
            _run(user, found / "pg_ctl", "-D", directory / "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def empty(dsn: str, name: str) -> Iterator[str]:
    """Make a database of its own on a running server."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
    yield dsn.replace("/postgres?", f"/{name}?")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[call-overload]


def _binaries() -> Path | None:
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    if (there := shutil.which("initdb")) is not None:
        places.append(Path(there).resolve().parent)
    return next((each for each in places if (each / "initdb").exists() and (each / "pg_ctl").exists()), None)


def _user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in _OTHERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("needs postgres: it refuses to run as root, and there is nobody else")


def _run(user: pwd.struct_passwd | None, *command: str | Path) -> None:
    more = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    # The server that pg_ctl starts keeps these streams: a pipe would never end.
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            [str(each) for each in command],
            stdout=said,
            stderr=said,
            stdin=subprocess.DEVNULL,
            cwd="/",
            **more,  # type: ignore[call-overload]
        )
        said.seek(0)
        assert done.returncode == 0, said.read().decode()
