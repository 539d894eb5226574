"""The reference system's list of plugins to install, `plugins.yaml`: read, checked, never executed.

Each plugin has a unique `name`, an `env_name`, a `package`, and either `env_file` or `python_version`;
`interface_libs` are installed before it. Paths are relative to the file. Keys that only the reference's own
tools use are accepted and told about.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from packaging.requirements import InvalidRequirement, Requirement

from toft.kernel import ids, suggestions
from toft.kernel.errors import UsageError

MAX_BYTES = 1 << 20
_MOST_PLUGINS = 1000
_ENV_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_PYTHON = re.compile(r"[\d.]+|[<>=!~][\d.,<>=!~ *]+")
_URL = re.compile(r"(git\+)?[a-z]+://", re.ASCII)
_EDITABLE = re.compile(r"(-e|--editable)[ =]\s*")
_KNOWN = (
    "name",
    "env_name",
    "package",
    "env_file",
    "python_version",
    "interface_libs",
    "requirements",
    "env_vars",
    "description",
)


class PluginsFileError(UsageError):
    """A `plugins.yaml` cannot be used; `details["problems"]` has everything wrong with it."""

    code = "plugins_yaml.invalid"


@dataclass(frozen=True)
class Listed:
    """One plugin to install.

    Attributes:
        name: The plugin's name.
        env_name: What the reference calls its environment; kept in the manifest.
        package: A requirement, a URL, or an absolute path of a project or wheel.
        env_file: Absolute path or URL of an `environment.yml`; None for a plain Python environment.
        python_version: Which Python; None where `env_file` says it.
        interface_libs: Requirements installed before the package, in order.
        requirements: More requirements, installed with it: a binary that comes as a wheel, for one.
        env_vars: Variables for the worker, shown and stored openly.
        is_editable: `package` was written with `-e`; toft installs a copy.
        extra: Keys nobody here uses.
    """

    name: str
    env_name: str
    package: str
    env_file: str | None = None
    python_version: str | None = None
    interface_libs: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    env_vars: Mapping[str, str] = field(default_factory=dict)
    is_editable: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PluginsFile:
    """A checked `plugins.yaml`.

    Attributes:
        path: The file.
        plugins: What it lists, in its order.
        notes: What it says that toft does not use, as sentences.
    """

    path: pathlib.Path
    plugins: tuple[Listed, ...]
    notes: tuple[str, ...]


def read(path: pathlib.Path) -> PluginsFile:
    """Read and check a `plugins.yaml`.

    Raises:
        PluginsFileError: It cannot be read or is not right; every problem is named.
    """
    data = _load(path)
    found = problems(data)
    if found:
        listed = "\n".join(f"  {each}" for each in found)
        raise PluginsFileError(
            f"{path} is not right:\n{listed}",
            details={"path": str(path), "problems": found},
            hint=f"mend {path} and run the same command again",
        )
    directory = path.absolute().parent
    plugins = tuple(_listed(each, directory) for each in data["plugins"])
    return PluginsFile(path, plugins, tuple(_notes(data, plugins)))


def problems(data: Any) -> list[str]:
    """Return everything wrong with the value of a `plugins.yaml`, as sentences."""
    if not isinstance(data, Mapping) or not isinstance(data.get("plugins"), list):
        return ["it must be an object with a list called plugins"]
    if len(data["plugins"]) > _MOST_PLUGINS:
        return [f"it lists {len(data['plugins'])} plugins; {_MOST_PLUGINS} is the most"]
    found: list[str] = []
    first: dict[str, int] = {}
    for index, entry in enumerate(data["plugins"]):
        at = f"plugins[{index}]"
        if not isinstance(entry, Mapping):
            found.append(f"{at} must be an object")
            continue
        found.extend(f"{at}{each}" for each in _entry(entry))
        name = entry.get("name")
        if isinstance(name, str):
            if name in first:
                found.append(f"{at}.name {name[:80]!r} is taken by plugins[{first[name]}]")
            first.setdefault(name, index)
    return found


def _entry(entry: Mapping[Any, Any]) -> Iterator[str]:
    yield from _shaped(entry, "name", ids.is_name, ids.NAME_RULE)
    yield from _shaped(entry, "env_name", _ENV_NAME.fullmatch, "is not a name for an environment")
    package = entry.get("package")
    if not _is_text(package):
        yield ".package is required and must be text that is not empty"
    elif _looks_like_option(_EDITABLE.sub("", package)):
        yield f".package {package!r} would be read as an option"
    if entry.get("env_file") is None and entry.get("python_version") is None:
        yield " needs env_file or python_version"
    if entry.get("env_file") is not None and not _is_text(entry["env_file"]):
        yield ".env_file must be a path or a URL"
    python = entry.get("python_version")
    # Nothing is quoted that is not text: a few aliases in the file can unfold into more than fits in memory.
    if not (
        python is None or type(python) is float or (_is_text(python) and _PYTHON.fullmatch(python.strip()))
    ):
        yield '.python_version is not a version, such as "3.12"'
    for name in ("interface_libs", "requirements"):
        yield from _requirements(entry.get(name), name)
    yield from _variables(entry.get("env_vars"))


def _shaped(entry: Mapping[Any, Any], name: str, fits: Callable[[str], object], wrong: str) -> Iterator[str]:
    value = entry.get(name)
    if not _is_text(value):
        yield f".{name} is required and must be text that is not empty"
    elif not fits(value):
        yield f".{name} {value[:80]!r} {wrong}"


def _requirements(value: Any, name: str) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, list) or not all(_is_text(each) for each in value):
        yield f".{name} must be a list of requirements"
        return
    for each in value:
        if _looks_like_option(_EDITABLE.sub("", each)):
            yield f".{name} has {each!r}, which would be read as an option"


def _variables(value: Any) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, Mapping):
        yield ".env_vars must be an object"
        return
    for name, each in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield ".env_vars has a name that no environment variable can have"
        elif not isinstance(each, (str, int, float)):
            yield f".env_vars.{name} must be text"


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip()) and not any(mark in value for mark in "\n\r\0")


def _looks_like_option(text: str) -> bool:
    return text.lstrip().startswith("-")


def _listed(entry: Mapping[str, Any], directory: pathlib.Path) -> Listed:
    *others, package = _split(entry["package"].strip())
    bare = _EDITABLE.sub("", package)
    is_editable = bare != package
    env_file = entry.get("env_file")
    python = entry.get("python_version")
    return Listed(
        name=entry["name"],
        env_name=entry["env_name"],
        package=_placed(bare, directory, must_be_path=is_editable),
        env_file=None if env_file is None else _placed(env_file.strip(), directory, must_be_path=True),
        python_version=None if python is None else _version(python),
        interface_libs=(*_each_placed(entry.get("interface_libs"), directory), *others),
        requirements=tuple(_each_placed(entry.get("requirements"), directory)),
        env_vars={name: str(value) for name, value in (entry.get("env_vars") or {}).items()},
        is_editable=is_editable,
        extra={str(name): value for name, value in entry.items() if name not in _KNOWN},
    )


def _split(package: str) -> list[str]:
    """Take several requirements in one text apart, as a shell would; the last is the plugin's own."""
    words = package.split()
    if len(words) < 2 or _is_requirement(package) or not all(map(_is_requirement, words)):
        return [package]
    return words


def _is_requirement(text: str) -> bool:
    try:
        Requirement(text)
    except InvalidRequirement:
        return False
    return True


def _version(python: Any) -> str:
    # Unquoted, YAML reads 3.10 as the number 3.1, and nobody means that.
    return "3.10" if python == 3.1 else str(python).strip()


def _each_placed(values: list[str] | None, directory: pathlib.Path) -> Iterable[str]:
    for each in values or ():
        bare = _EDITABLE.sub("", each.strip())
        yield _placed(bare, directory, must_be_path=bare != each.strip())


def _placed(text: str, directory: pathlib.Path, *, must_be_path: bool) -> str:
    """Make a path absolute, starting at the file's directory; leave URLs and requirements alone."""
    if _URL.match(text):
        return text
    looks_like_path = text.startswith((".", "/", "~")) or text.endswith((".whl", ".tar.gz"))
    if not (must_be_path or looks_like_path):
        return text
    return str((directory / pathlib.Path(text).expanduser()).resolve())


def _notes(data: Mapping[str, Any], plugins: tuple[Listed, ...]) -> Iterator[str]:
    for name in data:
        if name != "plugins":
            yield f"{name} is not used"
    for each in plugins:
        if each.is_editable:
            yield f"{each.name}: installed as a copy; after changes: toft plugin refresh {each.name}"
        for name in each.extra:
            near = suggestions.nearest(name, _KNOWN)
            yield f"{each.name}: {name} is not used" + (f"; did you mean {near}?" if near else "")


def _load(path: pathlib.Path) -> Any:
    import yaml  # noqa: PLC0415 - 25 ms that a node which reads no YAML does not pay

    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PluginsFileError(
            f"{path} cannot be read: {error.strerror}", code="plugins_yaml.unreadable"
        ) from error
    if len(text) > MAX_BYTES:
        raise PluginsFileError(f"{path} is larger than {MAX_BYTES} bytes", code="plugins_yaml.unreadable")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PluginsFileError(f"{path} is not YAML: {error}", code="plugins_yaml.unreadable") from error
