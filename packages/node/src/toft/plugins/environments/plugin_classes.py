"""Finds the plugin classes of an installed distribution by reading its files; nothing of it is imported here.

First what its metadata declares (entry points of the group `toft.plugins`), else what its modules look like:
subclasses of `toft_sdk.Plugin`, or the reference system's `<package>.meta:get_plugin_metadata`. The worker
that describes the class afterwards has the last word.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toft.plugins.environments import environment_errors
from toft.plugins.environments.projects import Distribution

GROUP = "toft.plugins"
_MOST_MODULES = 2000
_MOST_BYTES = 2 << 20
_METADATA_FUNCTION = "get_plugin_metadata"


@dataclass(frozen=True)
class PluginClass:
    """Where a plugin is.

    Attributes:
        module: Dotted name to import.
        class_name: Its class; None lets the worker take the only one there is.
        name: The name it is declared under, when it is declared.
    """

    module: str
    class_name: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class _Module:
    name: str
    tree: ast.Module
    names: dict[str, str]


def find(distribution: Distribution) -> list[PluginClass]:
    """Return the plugin classes of a distribution.

    Raises:
        SourceError: It has none; says where it was looked.
    """
    declared = distribution.entry_points(GROUP)
    if declared:
        return [_declared(name, value) for name, value in sorted(declared.items())]
    read = {path: _read(distribution.root, path) for path in _sources(distribution)}
    modules = [module for module in read.values() if module is not None]
    classes = _metadata(modules) or _subclasses(modules)
    unread = [path for path, module in read.items() if module is None]
    if not classes and len(unread) == 1:
        # Newer syntax than this Python's, or none at all: the plugin's own Python can say which.
        return [PluginClass(_dotted(unread[0]))]
    if not classes:
        looked = sorted({module.name.split(".")[0] for module in modules})
        raise environment_errors.SourceError(
            f"{distribution.name} {distribution.version} has no plugin class"
            + (f" in {', '.join(looked)}" if looked else ": it has no Python modules"),
            code="source.no_plugin",
            details={"distribution": distribution.name, "modules": [module.name for module in modules][:100]},
            hint=f'derive a class from toft_sdk.Plugin, or declare it: [project.entry-points."{GROUP}"]',
        )
    return classes


def _declared(name: str, value: str) -> PluginClass:
    module, _, class_name = value.partition(":")
    if not module or not all(part.isidentifier() for part in module.strip().split(".")):
        raise environment_errors.SourceError(
            f"entry point {name} = {value} is not module:Class", code="source.bad_entry_point"
        )
    return PluginClass(module.strip(), class_name.strip() or None, name)


def _sources(distribution: Distribution) -> Iterator[Path]:
    for path in distribution.modules()[:_MOST_MODULES]:
        parts = path.with_suffix("").parts
        if all(part.isidentifier() for part in parts) and not {"tests", "test", "testing"} & set(parts):
            yield path


def _read(root: Path, path: Path) -> _Module | None:
    try:
        source = (root / path).read_bytes()
        return _parsed(path, source) if len(source) <= _MOST_BYTES else None
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def _parsed(path: Path, source: bytes) -> _Module:
    tree = ast.parse(source)
    name = _dotted(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return _Module(name, tree, dict(_imported(tree, package)))


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (first, first)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield alias.asname or alias.name, f"{module}.{alias.name}"


def _metadata(modules: list[_Module]) -> list[PluginClass]:
    found = []
    for module in modules:
        if module.name.split(".")[-1] != "meta":
            continue
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == _METADATA_FUNCTION:
                told = _literals(node)
                class_name = told.get("class")
                # Not said in so many words: the worker asks the function itself.
                where = told.get("module") if class_name else None
                found.append(
                    PluginClass(where or module.name, class_name if where else None, told.get("name"))
                )
    return found


def _literals(function: ast.FunctionDef) -> dict[str, str]:
    values: dict[str, str] = {}
    known: dict[str, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            for target in node.targets:
                if isinstance(target, ast.Name) and isinstance(node.value.value, str):
                    known[target.id] = node.value.value
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if not isinstance(key, ast.Constant) or key.value not in ("module", "class", "name"):
                    continue
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    values.setdefault(str(key.value), value.value)
                elif isinstance(value, ast.Name) and value.id in known:
                    values.setdefault(str(key.value), known[value.id])
    return values


def _subclasses(modules: list[_Module]) -> list[PluginClass]:
    """Return the leaves among the classes that derive from `toft_sdk.Plugin`, across modules."""
    plugins = {"toft_sdk.Plugin", "toft_sdk.plugin.Plugin"}
    bases: dict[str, set[str]] = {}
    places: dict[str, PluginClass] = {}
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef):
                full = f"{module.name}.{node.name}"
                bases[full] = {_resolved(base, module) for base in node.bases}
                places[full] = PluginClass(module.name, node.name)
    grown = True
    while grown:
        new = {full for full, its in bases.items() if its & plugins} - plugins
        plugins |= new
        grown = bool(new)
    inherited = set().union(*(bases[full] for full in plugins if full in bases)) if bases else set()
    return [places[full] for full in sorted(plugins & set(places)) if full not in inherited]


def _resolved(base: ast.expr, module: _Module) -> str:
    if isinstance(base, ast.Subscript):
        base = base.value
    text = ast.unparse(base)
    first, dot, rest = text.partition(".")
    if first in module.names:
        return module.names[first] + dot + rest
    return f"{module.name}.{text}"
