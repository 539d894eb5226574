"""Everything that can be wrong with a manifest, as sentences; nothing here raises.

`problems` looks at the whole value and goes on after each finding, so that whoever mends the file mends it
once. `warnings` has what a plugin can run with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from toft.kernel import ids

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MAX_TEXT = 100_000


def problems(data: Any) -> list[str]:
    """Return everything wrong with a manifest of format 2.0 or flat 1.0."""
    if not isinstance(data, Mapping):
        return ["a manifest is a JSON object"]
    version = data.get("format_version")
    if "format_version" not in data:
        return list(_flat(data))
    if version != "2.0":
        return [f"format_version {version!r} is not one this version reads: 2.0, or 1.0 without the key"]
    return list(_nested(data))


def warnings(data: Any) -> list[str]:
    """Return what is odd about a manifest but keeps nobody from using it: an interface without a module."""
    section = data.get("code", data) if isinstance(data, Mapping) else {}
    interface = section.get("interface") if isinstance(section, Mapping) else None
    if not isinstance(interface, str) or not interface or _DOTTED.fullmatch(interface):
        return []
    return [f"interface {interface[:80]!r} is not the dotted name of a class"]


def _nested(data: Mapping[str, Any]) -> Iterator[str]:
    for section in ("install", "code"):
        if not isinstance(data.get(section), Mapping):
            yield f"{section} must be an object"
    for section in ("drift_tracking", "overrides", "toft"):
        if not _absent_or(data.get(section), Mapping):
            yield f"{section} must be an object"
    if isinstance(data.get("install"), Mapping):
        yield from _install(data["install"], "install.")
    if isinstance(data.get("code"), Mapping):
        yield from _code(data["code"], "code.", strict=True)
    if isinstance(data.get("toft"), Mapping):
        yield from _runtime(data["toft"])
    drift = data.get("drift_tracking")
    if isinstance(drift, Mapping) and not _absent_or(drift.get("config_schema_hash"), str):
        yield "drift_tracking.config_schema_hash must be text"


def _flat(data: Mapping[str, Any]) -> Iterator[str]:
    yield from _install(data, "")
    yield from _code(data, "", strict=False)


def _install(section: Mapping[str, Any], at: str) -> Iterator[str]:
    yield from _required_text(section, ("python_path",), at)
    for name in ("conda_env", "db_path", "installed_at", "installer_version", "package_source"):
        if not _absent_or(section.get(name), str):
            yield f"{at}{name} must be text"
    for name in ("python_path", "db_path"):
        if isinstance(section.get(name), str) and "\0" in section[name]:
            yield f"{at}{name} holds a zero byte"
    variables = section.get("env_vars")
    if not _absent_or(variables, Mapping):
        yield f"{at}env_vars must be an object"
    for name, value in variables.items() if isinstance(variables, Mapping) else ():
        if not (isinstance(name, str) and _VARIABLE.fullmatch(name)):
            yield f"{at}env_vars has {name!r}, which is no name of an environment variable"
        elif not isinstance(value, str) or "\0" in value:
            yield f"{at}env_vars.{name} must be text"


def _code(section: Mapping[str, Any], at: str, *, strict: bool) -> Iterator[str]:
    required = ("name", "version", "module", "class")
    yield from _required_text(section, (*required, "description", "interface") if strict else required, at)
    if not _absent_or(section.get("description"), str):
        yield f"{at}description must be text"
    yield from _shapes(section, at)
    schema = section.get("config_schema")
    if not _absent_or(schema, Mapping):
        yield f"{at}config_schema must be an object"
    if isinstance(schema, Mapping) and not _absent_or(schema.get("properties"), Mapping):
        yield f"{at}config_schema.properties must be an object"
    yield from _taxonomy(section, at)
    yield from _resources(section.get("resources"), f"{at}resources")
    yield from _worker_env(section.get("worker_env"), f"{at}worker_env")


def _shapes(section: Mapping[str, Any], at: str) -> Iterator[str]:
    rules: tuple[tuple[str, Callable[[str], object], str], ...] = (
        ("name", ids.is_name, ids.NAME_RULE),
        ("module", _MODULE.fullmatch, "is not the dotted name of a module"),
        ("class", _MODULE.fullmatch, "is not the name of a class"),
    )
    for name, fits, wrong in rules:
        value = section.get(name)
        # A name becomes a path, a module an import: neither may hold `../`, a newline or anything unforeseen.
        if isinstance(value, str) and value and not fits(value):
            yield f"{at}{name} {value[:80]!r} {wrong}"


def _taxonomy(section: Mapping[str, Any], at: str) -> Iterator[str]:
    taxonomy = section.get("taxonomy")
    if taxonomy is None:
        return
    if not isinstance(taxonomy, Mapping):
        yield f"{at}taxonomy must be an object"
        return
    yield from _required_text(taxonomy, ("domain", "role", "interface_fqcn"), f"{at}taxonomy.")
    named, interface = taxonomy.get("interface_fqcn"), section.get("interface")
    if isinstance(named, str) and isinstance(interface, str) and named and named != interface:
        yield f"{at}taxonomy.interface_fqcn {named!r} is not {at}interface {interface!r}"


def _resources(resources: Any, at: str) -> Iterator[str]:
    if resources is None:
        return
    if not isinstance(resources, Mapping):
        yield f"{at} must be an object"
        return
    if not _absent_or(resources.get("requires_gpu"), bool):
        yield f"{at}.requires_gpu must be true or false"
    for name in ("platforms", "accelerators"):
        value = resources.get(name)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(each, str) for each in value)
        ):
            yield f"{at}.{name} must be a list of text"


def _worker_env(entries: Any, at: str) -> Iterator[str]:
    if entries is None:
        return
    if not isinstance(entries, list):
        yield f"{at} must be a list"
        return
    for index, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not (isinstance(name, str) and _VARIABLE.fullmatch(name)):
            yield f"{at}[{index}] must be an object whose name is that of an environment variable"


def _runtime(section: Mapping[str, Any]) -> Iterator[str]:
    rules: tuple[tuple[Callable[[Any], bool], str, tuple[str, ...]], ...] = (
        (
            lambda value: isinstance(value, str),
            "text",
            ("environment", "environment_kind", "source", "lock", "python_version", "sdk_version", "hosting"),
        ),
        (lambda value: isinstance(value, Mapping), "an object", ("requested", "actions", "config_defaults")),
        (lambda value: isinstance(value, bool), "true or false", ("main_thread", "fork_safe")),
        (
            lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0,
            "a whole number above zero",
            ("concurrency",),
        ),
    )
    for holds, expected, names in rules:
        for name in names:
            value = section.get(name)
            if value is not None and not holds(value):
                yield f"toft.{name} must be {expected}"
    environment = section.get("environment")
    if isinstance(environment, str) and environment and not ids.is_name(environment):
        yield f"toft.environment {environment[:80]!r} is not the hash of an environment"


def _required_text(section: Mapping[str, Any], names: tuple[str, ...], at: str) -> Iterator[str]:
    for name in names:
        value = section.get(name)
        if not isinstance(value, str) or not value.strip():
            yield f"{at}{name} is required and must be text that is not empty"
        elif len(value) > _MAX_TEXT:
            yield f"{at}{name} is longer than {_MAX_TEXT} characters"


def _absent_or(value: Any, kind: Any) -> bool:
    return value is None or isinstance(value, kind)
