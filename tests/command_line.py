"""Runs `toft` as a person or a script does: a process of its own, with a home of its own, offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_S = 100


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The JSON value on stdout of a command that succeeded."""
        assert self.status == 0, self.err
        assert self.err == "", self.err
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error object on stderr of a command that failed."""
        assert self.status != 0, self.out
        assert "Traceback" not in self.err.splitlines()[0]
        told: dict[str, Any] = json.loads(self.err)["error"]
        assert {"code", "blame", "category", "message", "details", "hint"} <= set(told)
        return told


class CommandLine:
    """One home, and commands that are run on it.

    Args:
        home: `TOFT_HOME`.
        directory: Where commands are run.
        environ: More environment variables.
    """

    def __init__(self, home: Path, directory: Path, environ: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.directory = directory
        self.environ = {
            # What a person is told at once is seen only where nothing flushes it all the same.
            **{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            "TOFT_HOME": str(home),
            "TOFT_OFFLINE": "1",
            "UV_CACHE_DIR": str(directory / "uv-cache"),
            "NO_COLOR": "1",
            **(environ or {}),
        }

    def __call__(self, *arguments: str | Path, stdin: str = "") -> Done:
        """Run one command to its end."""
        done = subprocess.run(
            self.argv(*arguments),
            cwd=self.directory,
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a command and do not wait for it."""
        return subprocess.Popen(
            self.argv(*arguments),
            cwd=self.directory,
            env=self.environ,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def argv(self, *arguments: str | Path) -> list[str]:
        """Return the command."""
        return [sys.executable, "-m", "toft", *map(str, arguments)]

    def settings(self, **values: Any) -> None:
        """Write the settings file of the home."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
        (self.home / "settings.toml").write_text("".join(lines))

    def leftovers(self) -> list[str]:
        """Return what is in the home only because of an installed plugin, or of interrupted work."""
        found = []
        for name in ("plugins", "environments", "data"):
            directory = self.home / name
            found += [f"{name}/{path.name}" for path in directory.iterdir()] if directory.is_dir() else []
        found += [str(path) for path in self.home.rglob(".tmp-*")]
        return sorted(each for each in found if not each.endswith((".lock", "lock")))


def keep_token(path: Path, token: str) -> str:
    """Write a token into a file that nobody else can read, and return where that is."""
    path.touch(0o600)
    path.write_text(f"{token}\n")
    return str(path)
