"""One frozen tree of settings, read once: caller, then environment, then file, then defaults.

The file is TOML: the one named by `TOFT_SETTINGS`, else `toft.toml` in the working directory, else
`settings.toml` in the home. Relative paths in it start at the file's own directory. Unknown keys are refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from toft.kernel import errors, suggestions

_ENVIRONMENT = {
    "TOFT_HOME": "home",
    "TOFT_MODELS_DIR": "models_dir",
    "TOFT_ISOLATION": "isolation",
    "TOFT_OFFLINE": "offline",
    "TOFT_CONDA_TOOL": "conda_tool",
    "TOFT_CONDA_PREFIX": "conda_prefix",
    "TOFT_MICROMAMBA_SOURCE": "micromamba_source",
    "TOFT_MICROMAMBA_SHA256": "micromamba_sha256",
}
Isolation = Literal["auto", "namespaces", "plain"]
Scheduler = Literal["measure", "permissive", "safety", "queue"]
CondaTool = Literal["auto", "rattler", "micromamba", "mamba", "conda", "pixi"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of an embedded node.

    Attributes:
        home: Where everything durable lives; `/var/lib/toft` for root, else `$XDG_STATE_HOME/toft`, else
            `~/.local/state/toft`.
        interpreters: Python executables or directories to look in, before the ones uv finds.
        models_dir: A directory every plugin may read; its path is in the worker's `TOFT_MODELS_DIR`.
        isolation: `namespaces`, `plain`, or `auto` for the best this machine allows.
        offline: Never use the network to build an environment.
        wheelhouses: Directories of wheels, looked in beside the index; all there is when offline.
        python_downloads: Let uv download a Python when none that fits is found.
        conda_tool: What builds an environment from `environment.yml`.
        conda_prefix: Where a project-local micromamba lives; below the home when not set.
        micromamba_source: Path or address of a micromamba release, for `toft env setup-runtime`.
        micromamba_sha256: What that file must hash to.
        plugins_file: The list `plugin add` takes when it is given none.
        detect_drift: Compare a plugin's live schema with its manifest when it is loaded.
        load_stall_s: Seconds without any sign of progress after which loading or initialising is ended; 0
            waits for ever.
        call_stall_s: The same for a running call; 0 lets a call be silent for ever.
        cancel_grace_s: Seconds a cancelled call may take to end by itself before its worker is replaced.
        cleanup_s: Seconds an unloading plugin may take to clean up.
        restart_first_s: Pause before the first restart of a worker that died; doubles up to `restart_most_s`.
        restart_most_s: The longest pause.
        restart_healthy_s: A worker that lived this long starts counting from zero again.
        crash_limit: Deaths in a row after which an instance stays down until somebody asks for it.
        queue_limit: Calls that may wait for one instance; one more is answered `busy`.
        log_bytes: Size of one log file of an instance before it is rotated.
        log_files: Rotated files kept beside the current one.
        drain_s: Seconds a stopping daemon gives to what runs before it interrupts it.
        request_bytes: The most one request to the daemon may carry.
        listen: `HOST:PORT` where the daemon listens beside its socket, for whoever has a token.
        tls_cert: The certificate it shows there, a PEM file.
        tls_key: The key of that.
        insecure_public: Listen where other machines reach it without TLS; tokens can then be read on the way.
        allowed_hosts: Names by which the node may be asked there, beside `localhost` and addresses; the first
            one is how it calls itself.
        cors_origins: Origins whose pages may ask with a token, such as `https://tools.example.org`.
        lanes: Jobs that run at the same time; 0 is one for each processor.
        jobs_scheduler: What is looked at before a job gets a lane: `measure` packs by measured peaks, `queue`
            waits for free memory, `safety` fails when there is not enough, `permissive` looks at nothing.
        memory_reserve_bytes: Main memory that jobs leave free.
        jobs_pending_limit: Jobs that may be pending; one more is answered `busy`.
        jobs_keep_s: Seconds an ended job, its result and its events are remembered.
        jobs_keep_count: Ended jobs that are remembered.
        gate_hosts: `HOST` or `HOST:PORT` that the gates of a document may ask, over HTTP or TCP.
        gate_commands: `NAME=/PATH/OF/PROGRAM ARGUMENT...` that the gates of a document may run, each by its
            name.
        tracing_endpoint: Where a collector takes OpenTelemetry traces over HTTP, such as
            `http://127.0.0.1:4318/v1/traces`; none are made when not set. Needs `toft[tracing]`.
    """

    home: Path
    interpreters: tuple[str, ...] = ()
    models_dir: Path | None = None
    isolation: Isolation = "auto"
    offline: bool = False
    wheelhouses: tuple[Path, ...] = ()
    python_downloads: bool = False
    conda_tool: CondaTool = "auto"
    conda_prefix: Path | None = None
    micromamba_source: str | None = None
    micromamba_sha256: str | None = None
    plugins_file: Path = Path("plugins.yaml")
    detect_drift: bool = True
    load_stall_s: float = 60.0
    call_stall_s: float = 0.0
    cancel_grace_s: float = 3.0
    cleanup_s: float = 5.0
    restart_first_s: float = 0.1
    restart_most_s: float = 30.0
    restart_healthy_s: float = 60.0
    crash_limit: int = 5
    queue_limit: int = 1024
    log_bytes: int = 4_000_000
    log_files: int = 2
    drain_s: float = 30.0
    request_bytes: int = 1 << 30
    listen: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure_public: bool = False
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    lanes: int = 0
    jobs_scheduler: Scheduler = "measure"
    memory_reserve_bytes: int = 500_000_000
    jobs_pending_limit: int = 2_000_000
    jobs_keep_s: float = 30 * 86_400.0
    jobs_keep_count: int = 100_000
    gate_hosts: tuple[str, ...] = ()
    gate_commands: tuple[str, ...] = ()
    tracing_endpoint: str | None = None


def default_home(environ: Mapping[str, str], *, is_root: bool | None = None) -> Path:
    """Return where a node lives when nobody says otherwise."""
    if is_root if is_root is not None else os.geteuid() == 0:
        return Path("/var/lib/toft")
    base = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME", "/"), ".local", "state")
    return Path(base) / "toft"


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Attributes:
        name: `caller`, `environment` or `file`; `document` is not known here.
        where: Of each value by its name: a path, or a variable; empty for the caller.
        values: What it sets.
    """

    name: str
    where: Mapping[str, str]
    values: Mapping[str, Any]


def read(
    environ: Mapping[str, str] | None = None, *, directory: Path | None = None, **given: Any
) -> Settings:
    """Read the settings of this process.

    Args:
        environ: The environment; the process's own by default.
        directory: The working directory, where `toft.toml` is looked for.
        given: What the caller sets; None means not set.

    Raises:
        UsageError: A key is unknown, a value has the wrong type, or the file cannot be read.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    for layer in reversed(layers(environ, directory=directory, **given)):
        merged |= layer.values
    merged.setdefault("home", default_home(environ))
    return Settings(**merged)


def layers(
    environ: Mapping[str, str], *, directory: Path | None = None, **given: Any
) -> tuple[Layer, Layer, Layer]:
    """Return what each place sets, the strongest first; see `read`."""
    directory = directory or Path.cwd()
    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    _refuse_unknown(chosen, "the caller")
    chosen = _typed(chosen, directory, "the caller")
    variables = {field: name for name, field in _ENVIRONMENT.items() if environ.get(name)}
    from_environ = {field: environ[name] for field, name in variables.items()}
    from_environ_typed = _typed(from_environ, directory, "the environment")
    home = chosen.get("home") or from_environ_typed.get("home") or None
    path = _find_file(environ, directory, home or default_home(environ))
    from_file: dict[str, Any] = {}
    if path is not None:
        from_file = _typed(_load(path), path.parent, str(path))
    return (
        Layer("caller", {}, chosen),
        Layer("environment", variables, from_environ_typed),
        Layer("file", dict.fromkeys(from_file, str(path)), from_file),
    )


def _find_file(environ: Mapping[str, str], directory: Path, home: Path) -> Path | None:
    named = environ.get("TOFT_SETTINGS")
    if named:
        return (directory / named).absolute()
    for path in (directory / "toft.toml", home / "settings.toml"):
        # Another user's file in a shared directory must not choose what this process runs, nor one that a
        # plugin left where plugins may write.
        try:
            owner, is_shared = path.stat().st_uid, path.parent.stat().st_mode & stat.S_IWOTH
        except OSError:
            continue
        if owner in (0, os.geteuid()) and not is_shared and not _is_document(path):
            return path
    return None


def _is_document(path: Path) -> bool:
    """Say whether a file is a node's document, which is applied and never merely found."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return re.search(rb"^schema_version\s*=", file.read(1 << 20), re.MULTILINE) is not None
    return False


def _load(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise errors.UsageError(
            f"settings file {path} cannot be read: {error}", code="settings.unreadable"
        ) from error
    _refuse_unknown(values, str(path))
    return values


def _refuse_unknown(values: Mapping[str, Any], source: str) -> None:
    known = [field.name for field in dataclasses.fields(Settings)]
    unknown = {}
    for key in values:
        if key not in known:
            near = suggestions.nearest(key, known)
            unknown[key] = f"did you mean {near}?" if near else "no such setting"
    if unknown:
        listed = "; ".join(f"{key}: {why}" for key, why in unknown.items())
        raise errors.UsageError(
            f"unknown settings in {source}: {listed}",
            code="settings.unknown",
            details={"fields": unknown, "known": known},
        )


def _typed(values: Mapping[str, Any], base: Path, source: str) -> dict[str, Any]:
    hints = get_type_hints(Settings)
    typed: dict[str, Any] = {}
    bad: dict[str, str] = {}
    for key, value in values.items():
        try:
            typed[key] = _convert(hints[key], value, base)
        except (KeyError, TypeError, ValueError, OverflowError):
            bad[key] = f"{suggestions.shown(value)} is not {_word(hints[key])}"
    if bad:
        listed = "; ".join(f"{key}: {why}" for key, why in bad.items())
        raise errors.UsageError(
            f"settings in {source} do not fit: {listed}", code="settings.invalid", details={"fields": bad}
        )
    return typed


_TRUTH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _convert(kind: Any, value: Any, base: Path) -> Any:
    if kind == tuple[Path, ...]:
        return tuple(_convert(Path, each, base) for each in _convert(tuple[str, ...], value, base))
    if Path in (kind, *get_args(kind)):
        return (base / Path(value).expanduser()).absolute()
    if kind is bool:
        return value if isinstance(value, bool) else _TRUTH[str(value).lower()]
    if kind == tuple[str, ...]:
        if isinstance(value, str):
            raise TypeError(value)
        return tuple(str(item) for item in value)
    if kind in (int, float):
        number = float(value)
        if (
            isinstance(value, bool)
            or number < 0
            or math.isnan(number)
            or (kind is int and number != int(value))
        ):
            raise TypeError(value)
        return kind(value)
    if not isinstance(value, str) or (get_origin(kind) is Literal and value not in get_args(kind)):
        raise TypeError(value)
    return value


def _word(kind: Any) -> str:
    words = {
        bool: "true or false",
        int: "a whole number, 0 or more",
        float: "a number, 0 or more",
        str: "a text",
    }
    if kind == tuple[Path, ...]:
        return "a list of paths"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return words.get(kind, "a path" if Path in (kind, *get_args(kind)) else "a list of texts")
