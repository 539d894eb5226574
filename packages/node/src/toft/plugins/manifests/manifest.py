"""What is known about an installed plugin without starting it: the manifest, format 2.0.

The layout is that of the reference system, so that either reads the other's files: `install`, `code`,
`drift_tracking`, `overrides`. What only toft knows stands in a section of its own, `toft`, which other
readers pass over. Sections and keys that this version does not know are kept and written back. The flat
format 1.0 is read; writing always gives 2.0.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from toft.kernel.errors import IntegrityError
from toft.plugins.manifests import manifest_checks

FORMAT = "2.0"
MAX_BYTES = 4 << 20
DEFAULT_INTERFACE = "toft_sdk.plugin.Plugin"


class ManifestError(IntegrityError):
    """A manifest cannot be read or is not one; `details["problems"]` has everything wrong with it."""

    code = "manifest.invalid"
    blame = "environment"


@dataclass(frozen=True)
class Install:
    """Where the plugin was installed, and from what."""

    python_path: str
    conda_env: str = ""
    db_path: str = ""
    env_vars: Mapping[str, str] = field(default_factory=dict)
    installed_at: str = ""
    installer_version: str = ""
    package_source: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Taxonomy:
    """What kind of plugin it is: `media` / `MediaProcessingPlugin`."""

    domain: str
    role: str
    interface_fqcn: str


@dataclass(frozen=True)
class Resources:
    """What the author says it needs; hints, never promises."""

    requires_gpu: bool = False
    platforms: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Code:
    """What the plugin's code said when it was last asked."""

    name: str
    version: str
    description: str
    module: str
    class_name: str
    interface: str = DEFAULT_INTERFACE
    taxonomy: Taxonomy | None = None
    resources: Resources | None = None
    config_schema: Mapping[str, Any] | None = None
    worker_env: tuple[Mapping[str, Any], ...] = ()
    regenerated_at: str | None = None
    category: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Runtime:
    """What only toft knows; the `toft` section.

    Attributes:
        environment: Hash of the environment the plugin runs in; empty for one that toft did not make.
        environment_kind: `uv`, `conda`, or empty.
        source: What `toft plugin add` was given.
        requested: How to ask for the same environment again: requirements, python, env_file and so on.
        lock: What the environment holds, as text with hashes; empty when it has no lock.
        python_version: Version of the environment's interpreter.
        sdk_version: The SDK that described the code.
        actions: Input and output schema of each action, and whether it streams.
        config_defaults: Configuration the code has when nothing is given.
        main_thread: Calls must run on the worker's main thread.
        concurrency: Most calls at once; None is any number.
        fork_safe: A process that imported the plugin may be forked.
        hosting: `toft`, or `reference` for a class written for the reference system.
        secrets_scope: Scope in the secret store; empty is the plugin's own.
        extra: Keys this version does not know.
    """

    environment: str = ""
    environment_kind: str = ""
    source: str = ""
    requested: Mapping[str, Any] = field(default_factory=dict)
    lock: str = field(default="", repr=False)
    python_version: str = ""
    sdk_version: str = ""
    actions: Mapping[str, Any] = field(default_factory=dict)
    config_defaults: Mapping[str, Any] = field(default_factory=dict)
    main_thread: bool = False
    concurrency: int | None = None
    fork_safe: bool = False
    hosting: str = "toft"
    secrets_scope: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """One installed plugin.

    Attributes:
        install: Where it is.
        code: What its code said.
        runtime: What only toft knows.
        config_schema_hash: Hash of the configuration schema at the time of writing; None in format 1.0.
        overrides: Free for the operator; kept as it is.
        format_version: The format it was read from; writing gives 2.0 whatever this says.
        extra: Sections this version does not know.
    """

    install: Install
    code: Code
    runtime: Runtime = field(default_factory=Runtime)
    config_schema_hash: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    format_version: str = FORMAT
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The plugin's name, checked: it may become a path."""
        return self.code.name

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as format 2.0."""
        return {
            "format_version": FORMAT,
            "install": _written(self.install),
            "code": _written_code(self.code),
            "drift_tracking": {"config_schema_hash": self.config_schema_hash},
            "overrides": dict(self.overrides),
            "toft": _written(self.runtime),
            **self.extra,
        }

    def to_json(self) -> bytes:
        """Return the bytes of the file."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False).encode() + b"\n"


def from_description(description: Mapping[str, Any], install: Install, runtime: Runtime) -> Manifest:
    """Make a manifest from what a worker's `describe` answered.

    Args:
        description: What `toft_sdk.introspect.describe` returns, with the plugin's name checked.
        install: Where the plugin was installed.
        runtime: What toft knows apart from the code; the parts the description has are filled in.

    Raises:
        ManifestError: The description is not one; everything wrong with it is in `details["problems"]`.
    """
    known = {name: description[name] for name in _DESCRIBED if description.get(name) is not None}
    if description.get("python"):
        known["python_version"] = description["python"]
    code = {
        name: value
        for name, value in description.items()
        if name not in (*_DESCRIBED, "python") and value is not None
    }
    code.setdefault("interface", DEFAULT_INTERFACE)
    # The reference's readers want a description; a plugin without one is still a plugin.
    code["description"] = code.get("description") or code.get("name")
    data = {
        "format_version": FORMAT,
        "install": _written(install),
        "code": code,
        "drift_tracking": {"config_schema_hash": schema_hash(description.get("config_schema"))},
        "overrides": {},
        "toft": {**_written(runtime), **known},
    }
    return parse(data, what=f"what {code.get('module', 'the plugin')} says about itself")


_DESCRIBED = ("actions", "config_defaults", "main_thread", "concurrency", "fork_safe", "hosting")


def regenerated(manifest: Manifest, description: Mapping[str, Any], *, at: str) -> Manifest:
    """Return the manifest with its code section as the code is now; `installed_at` and the rest stay.

    Args:
        manifest: The one on disk.
        description: What the worker's `describe` answered now.
        at: The time, UTC RFC 3339.
    """
    fresh = from_description({**description, "name": manifest.name}, manifest.install, manifest.runtime)
    return replace(
        fresh,
        code=replace(fresh.code, regenerated_at=at),
        overrides=manifest.overrides,
        extra=manifest.extra,
    )


def parse(data: Any, *, what: str = "the manifest") -> Manifest:
    """Read a manifest from its JSON value, format 2.0 or flat 1.0.

    Raises:
        ManifestError: With every problem.
    """
    problems = manifest_checks.problems(data)
    if problems:
        listed = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise ManifestError(f"{what} is not valid: {listed}", details={"problems": problems})
    return _from_flat(data) if "format_version" not in data else _from_nested(data)


def read(path: pathlib.Path) -> Manifest:
    """Read a manifest file.

    Raises:
        ManifestError: It is not there, too big, not JSON, or not a manifest.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}", code="manifest.unreadable") from error
    if len(text) > MAX_BYTES:
        raise ManifestError(f"{path} is larger than {MAX_BYTES} bytes", code="manifest.unreadable")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not JSON: {error}", code="manifest.unreadable") from error
    return parse(data, what=str(path))


def schema_hash(schema: Mapping[str, Any] | None) -> str:
    """Return the hash that tells whether a configuration schema changed; no schema counts as an empty one."""
    return dict_hash(schema or {})


def dict_hash(value: Any) -> str:
    """Return `sha256:` and the hash of a JSON value, the same however its keys are ordered."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return bytes_hash(text.encode())


def bytes_hash(data: bytes) -> str:
    """Return `sha256:` and the hash of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


_ANYTHING = {"parameters": {}, "required": [], "additional": True, "x-toft-file-backed": True}
_FOREIGN = Runtime(
    hosting="reference",
    concurrency=1,
    actions={"execute": {"input": _ANYTHING, "output": {}, "stream": True, "description": ""}},
)


def _from_nested(data: Mapping[str, Any]) -> Manifest:
    known = ("format_version", "install", "code", "drift_tracking", "overrides", "toft")
    # Without the section, the reference system wrote it.
    told = data.get("toft")
    return Manifest(
        install=_section(Install, data["install"]),
        code=_code(data["code"]),
        runtime=_FOREIGN if told is None else _section(Runtime, told),
        config_schema_hash=(data.get("drift_tracking") or {}).get("config_schema_hash"),
        overrides=dict(data.get("overrides") or {}),
        extra={name: value for name, value in data.items() if name not in known},
    )


def _from_flat(data: Mapping[str, Any]) -> Manifest:
    install = {name: data[name] for name in _INSTALL if name in data}
    code = {name: data[name] for name in (*_CODE, "class", "category") if name in data}
    # The operator's word, kept where operators' words stand in 2.0.
    overrides = {"category": data["category_override"]} if data.get("category_override") else {}
    code.pop("regenerated_at", None)
    # 2.0 requires both; written back, the manifest must still be one.
    code["description"] = code.get("description") or code["name"]
    code["interface"] = code.get("interface") or DEFAULT_INTERFACE
    return Manifest(
        install=_section(Install, install),
        code=_code(code),
        runtime=_FOREIGN,
        overrides=overrides,
        format_version="1.0",
    )


def _code(data: Mapping[str, Any]) -> Code:
    named = {("class_name" if name == "class" else name): value for name, value in data.items()}
    taxonomy = named.pop("taxonomy", None)
    resources = named.pop("resources", None)
    code: Code = _section(Code, named)
    return replace(
        code,
        taxonomy=Taxonomy(taxonomy["domain"], taxonomy["role"], taxonomy["interface_fqcn"])
        if taxonomy
        else None,
        resources=_section(Resources, resources) if resources is not None else None,
    )


def _section(kind: Any, data: Mapping[str, Any]) -> Any:
    """Build a section; a list becomes a tuple, None a default, an unknown key goes to `extra`."""
    fields = kind.__dataclass_fields__
    given: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in data.items():
        if name == "extra" or name not in fields:
            extra[name] = value
        elif value is not None:
            given[name] = tuple(value) if isinstance(value, list) else value
    return kind(**given, extra=extra)


_INSTALL = tuple(name for name in Install.__dataclass_fields__ if name != "extra")
_CODE = tuple(name for name in Code.__dataclass_fields__ if name not in ("extra", "class_name", "category"))


def _written(section: Any) -> dict[str, Any]:
    written = {}
    for name in section.__dataclass_fields__:
        value = getattr(section, name)
        if name != "extra":
            written[name] = list(value) if isinstance(value, tuple) else value
    return {**written, **section.extra}


def _written_code(code: Code) -> dict[str, Any]:
    """Optional keys are written only when they say something, as the reference does."""
    written: dict[str, Any] = {
        "name": code.name,
        "version": code.version,
        "description": code.description,
        "module": code.module,
        "class": code.class_name,
        "interface": code.interface,
    }
    if code.taxonomy is not None:
        taxonomy = code.taxonomy
        written["taxonomy"] = {
            "domain": taxonomy.domain,
            "role": taxonomy.role,
            "interface_fqcn": taxonomy.interface_fqcn,
        }
    if code.resources is not None:
        written["resources"] = _written(code.resources)
    if code.config_schema is not None:
        written["config_schema"] = dict(code.config_schema)
    if code.worker_env:
        written["worker_env"] = [dict(each) for each in code.worker_env]
    for name in ("category", "regenerated_at"):
        if getattr(code, name):
            written[name] = getattr(code, name)
    return {**written, **code.extra}
