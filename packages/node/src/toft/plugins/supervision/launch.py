"""What a worker is started with: command, environment, what it may see and write, what it is told first.

A worker gets nothing by accident. Its environment is an allow-list; the node's home is hidden from it, and
its own data directory, its environment and the SDK are shown again; secrets are not here at all, they
travel in the welcome.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toft.host import keeper
from toft.kernel import errors

_PASSED_ON = ("LANG", "LANGUAGE", "TMPDIR", "TZ")
_SCRATCH = ("/tmp", "/var/tmp")
# A plugin has no business with its user's keys, whatever else of his files it may read.
_KEYS = (".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".password-store")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Everything one worker is started with.

    Attributes:
        instance: Whose worker it will be.
        argv: The command; the socket is descriptor 3.
        env: The whole environment.
        cwd: Directory it starts in.
        sandbox: What it sees and may write.
        limits: What it may use.
        module: The plugin's module.
        class_name: Its class.
        secrets: Variables that travel over the socket.
        paths: Directories to import from before the environment's own; for code that is not installed.
        defaults: The configuration the plugin has by itself; the same need not be sent, and what reads a
            configuration need not be imported. None sends everything.
    """

    instance: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    sandbox: keeper.Sandbox | None
    limits: keeper.Limits
    module: str
    class_name: str | None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    paths: tuple[str, ...] = ()
    defaults: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a node is.

    Attributes:
        home: `TOFT_HOME`, absolute.
        sdk: Directory that holds `toft_sdk`.
        models_dir: Shown read-only to every plugin.
        cwd: The node's working directory.
        environ: The node's environment, of which little is passed on.
    """

    home: Path
    sdk: Path
    models_dir: Path | None
    cwd: Path
    environ: Mapping[str, str]

    def data_directory(self, plugin: str) -> Path:
        """Return where a plugin may keep what it likes; its HOME."""
        return self.home / "data" / plugin


def environment_variables(
    place: Place, plugin: str, python: str, declared: Mapping[str, str]
) -> dict[str, str]:
    """Return the whole environment of a worker.

    Args:
        place: Where the node is.
        plugin: Whose worker it is.
        python: Its interpreter; scripts beside it are found first.
        declared: What the plugin declared and somebody gave a value.
    """
    inherited = {
        name: value
        for name, value in place.environ.items()
        if name in _PASSED_ON or (name.startswith("LC_") and name.isidentifier())
    }
    bin_directory = os.path.dirname(python)
    path = place.environ.get("PATH") or os.defpath
    data = str(place.data_directory(plugin))
    own = {"PATH": f"{bin_directory}:{path}", "HOME": data, "TOFT_DATA_DIR": data}
    if place.models_dir is not None:
        own["TOFT_MODELS_DIR"] = str(place.models_dir)
    return {**inherited, **own, **declared}


def declared_values(
    specs: Sequence[Mapping[str, Any]], installed: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """Return the visible variables: what the instance sets, else the installation, else the plugin's default.

    Args:
        specs: What the plugin declares, secret ones included.
        installed: Values from its manifest.
        given: Values of this instance.

    Raises:
        UsageError: A secret was given as a plain value, where logs and process lists show it.
    """
    values = {
        str(spec["name"]): str(spec["default"])
        for spec in specs
        if not spec.get("secret") and spec.get("default") is not None
    }
    secret = {str(spec["name"]) for spec in specs if spec.get("secret")}
    exposed = sorted(secret & given.keys())
    if exposed:
        raise errors.UsageError(
            f"{', '.join(exposed)} is declared as a secret",
            code="instance.secret_in_env",
            hint="toft secret set PLUGIN NAME",
        )
    return {**values, **installed, **given}


def missing_variables(specs: Sequence[Mapping[str, Any]], have: Mapping[str, str]) -> list[str]:
    """Return the required variables that nobody gave a value."""
    return [str(spec["name"]) for spec in specs if spec.get("required", True) and spec["name"] not in have]


def sandbox(
    place: Place,
    plugin: str,
    python: str,
    prefix: Path,
    *,
    writable: Sequence[str] = (),
    network: bool = True,
) -> keeper.Sandbox:
    """Return what a worker sees and may write.

    Args:
        place: Where the node is.
        plugin: Whose worker it is.
        python: Its interpreter.
        prefix: Its environment's directory.
        writable: Directories somebody granted it.
        network: Whether it has one.
    """
    shown = [prefix, place.sdk, *_interpreter_below(place.home, python)]
    if place.models_dir is not None and place.models_dir.is_dir():
        shown.append(place.models_dir)
    may_write = [
        str(place.data_directory(plugin)),
        *filter(os.path.isdir, _SCRATCH),
        *_scratch_of(place),
    ]
    granted = [_granted(place, path) for path in writable]
    if _is_exposed(place, may_write, granted):
        shown.append(place.cwd)
    may_write += granted
    return keeper.Sandbox(
        hidden=tuple(hidden_directories(place)),
        read_only=tuple(dict.fromkeys(str(path) for path in shown if path.exists())),
        writable=tuple(dict.fromkeys(may_write)),
        network=network,
    )


def _granted(place: Place, path: str) -> str:
    """Return a directory somebody granted, unless it would show what the mask hides."""
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(place.home))
    if real == home or home in real.parents or real in home.parents:
        raise errors.UsageError(
            f"{path} cannot be granted to a plugin: it holds, or is part of, the node's own home",
            code="instance.grant_refused",
            details={"path": str(real), "home": str(home)},
            hint="a plugin always has a directory of its own: TOFT_DATA_DIR",
        )
    if not real.is_dir():
        raise errors.UsageError(
            f"{path} cannot be granted to a plugin: it is not a directory",
            code="instance.grant_refused",
            details={"path": str(real)},
        )
    return str(real)


def _is_exposed(place: Place, writable: Sequence[str], granted: Sequence[str]) -> bool:
    """Say whether the node's working directory must be made read-only because what is around it is not.

    `toft.toml` and `.toft/manifests` are read there: whoever writes them decides what runs next, and where.
    """
    cwd = Path(os.path.realpath(place.cwd))
    open_to_it = {Path(os.path.realpath(path)) for path in writable}
    given = {Path(os.path.realpath(path)) for path in granted}
    return bool(open_to_it & set(cwd.parents)) and cwd not in open_to_it | given and cwd.is_dir()


def _scratch_of(place: Place) -> list[str]:
    """Return the node's own TMPDIR, which its workers are told too, unless it is far too much."""
    path = place.environ.get("TMPDIR")
    if not path or not os.path.isdir(path):
        return []
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(place.home))
    return [str(real)] if real != Path("/") and real != home and home not in real.parents else []


def is_own_place(place: Place) -> bool:
    """Say whether a plugin may start in the node's working directory, where a caller's paths begin.

    Not the root, not the node's home, anything above or in it, and not a person's whole home directory.
    """
    cwd, home = Path(os.path.realpath(place.cwd)), Path(os.path.realpath(place.home))
    user_home = Path(os.path.realpath(place.environ.get("HOME") or "/"))
    holds_too_much = any(cwd == top or cwd in top.parents for top in (Path("/"), home, user_home))
    return cwd.is_dir() and not holds_too_much and home not in cwd.parents


def hidden_directories(place: Place) -> Iterator[str]:
    """Yield what nobody else's code sees: the node's home, and where a person keeps keys."""
    if place.home.is_dir():
        yield str(place.home)
    user_home = place.environ.get("HOME")
    if user_home:
        for name in _KEYS:
            path = os.path.join(user_home, name)
            if os.path.isdir(path):
                yield path


def _interpreter_below(home: Path, python: str) -> list[Path]:
    # A virtual environment links to its base interpreter, which must not lie behind the mask.
    real, top = Path(os.path.realpath(python)), Path(os.path.realpath(home))
    return [real.parent.parent] if top in real.parents else []
