"""The copy of the SDK that workers run: under its own hash, placed in one step, compiled per interpreter.

Workers never see the node's own installation: it may be editable, and belongs to another Python. All plugins
of one Python version share the compiled files, so no plugin's own Python makes them: what starts in an
environment runs that environment's code, and an interpreter from a channel is as foreign as the plugin.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import toft_sdk
from toft.host import commands
from toft.kernel import errors, ids
from toft.plugins.environments import interpreters
from toft.plugins.environments.tool_environment import scrubbed
from toft.store import durable

_COMPILE_S = 60.0


class SdkCopy:
    """The SDK of this node, below `TOFT_HOME/sdk/<hash>/`.

    Args:
        home: `TOFT_HOME`.
        source: The package to copy; the installed `toft_sdk` by default.
        environ: What the compiling interpreter may see, scrubbed.
        found: The Pythons of this machine.
    """

    def __init__(
        self,
        home: Path,
        *,
        source: Path | None = None,
        environ: Mapping[str, str] | None = None,
        found: interpreters.Interpreters | None = None,
    ) -> None:
        self._home = home
        self._root = home / "sdk"
        self._interpreters = found or interpreters.Interpreters(environ=environ)
        self._source = source or Path(str(toft_sdk.__file__)).parent
        self._environ = os.environ if environ is None else environ
        self._placed: Path | None = None
        self._ready: set[str] = set()
        self._compiling = asyncio.Lock()

    @property
    def directory(self) -> Path:
        """Return the directory that holds `toft_sdk`; places it first, which blocks briefly."""
        if self._placed is None:
            self._placed = self._place()
        return self._placed

    def boot_path(self) -> str:
        """Return the program a worker is started with."""
        return str(self.directory / "toft_sdk" / "boot.py")

    async def prepare(self, python: str, cache_tag: str) -> str:
        """Make sure that an interpreter finds the SDK compiled; costs a few `stat` calls when it is.

        Where no Python of this machine makes files of its kind, its workers compile what they need at each
        start, which is slower and nothing worse.

        Args:
            python: The interpreter of an environment.
            cache_tag: Its tag in the names of compiled files.

        Returns:
            The same as `boot_path`.

        Raises:
            NodeError: The interpreter cannot compile it (`environment.sdk_refused`): it is too old or broken.
        """
        if python not in self._ready:
            # One at a time: loads that start side by side would all compile the same files.
            async with self._compiling:
                if python not in self._ready and not await asyncio.to_thread(self._is_compiled, cache_tag):
                    trusted = await self._trusted(python, cache_tag)
                    if trusted is not None:
                        await self._compile(trusted)
            self._ready.add(python)
        return self.boot_path()

    async def _trusted(self, python: str, cache_tag: str) -> str | None:
        """Return an interpreter of the machine, not of an environment, whose files the given one loads."""
        if sys.implementation.cache_tag == cache_tag:
            return sys.executable
        # A virtual environment links to the interpreter it was made with.
        base, top = await asyncio.to_thread(lambda: (os.path.realpath(python), os.path.realpath(self._home)))
        if not base.startswith(top + os.sep):
            return base
        found = await self._interpreters.everything()
        return next((one.path for one in found if one.cache_tag == cache_tag), None)

    def _is_compiled(self, cache_tag: str) -> bool:
        package = self.directory / "toft_sdk"
        sources = {path.stem for path in package.glob("*.py")}
        compiled = {path.name.split(".", 1)[0] for path in package.glob(f"__pycache__/*.{cache_tag}.pyc")}
        return bool(cache_tag) and sources <= compiled

    async def _compile(self, python: str) -> None:
        directory = self.directory
        # Unchecked: the directory is named after what is in it, so nothing there can be out of date.
        arguments = ("-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
        result = await commands.run(
            (python, *arguments, str(directory / "toft_sdk")),
            env=scrubbed(self._environ),
            cwd=directory,
            timeout_s=_COMPILE_S,
        )
        if result.code != 0:
            raise errors.NodeError(
                f"{python} cannot compile the SDK: {(result.stderr or result.stdout).strip()[-300:]}",
                code="environment.sdk_refused",
                blame="environment",
                details={"output": (result.stdout + result.stderr)[-5000:]},
            )
        await asyncio.to_thread(durable.sync_tree, directory)

    def _place(self) -> Path:
        files = sorted(path for path in self._source.iterdir() if path.suffix == ".py")
        contents = {path.name: path.read_bytes() for path in files}
        digest = hashlib.sha256()
        for name, data in contents.items():
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
        target = self._root / digest.hexdigest()[:32]
        if target.is_dir():
            return target
        durable.make_directory(self._root)
        staged = self._root / f".tmp-{ids.ulid()}"
        (staged / "toft_sdk").mkdir(parents=True)
        for name, data in contents.items():
            (staged / "toft_sdk" / name).write_bytes(data)
        try:
            durable.publish_directory(staged, target)
        except OSError:
            durable.remove_directory(staged)
            # Another process placed the same bytes first.
            if not target.is_dir():
                raise
        return target
