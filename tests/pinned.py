"""Documents that pin wheels, and the wheels; made by hand, without a network or a build."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.sample_packages import write_wheel

from toft.managed import document

PLUGIN = """
from toft_sdk import Plugin
{imports}

class Echo(Plugin):
    name = "{name}"
    version = "{version}"

    def execute(self, text: str = "") -> str:
        return "{version}: " + text
"""


def plugin_wheel(
    house: Path,
    version: str = "1.0",
    *,
    name: str = "echo",
    imports: str = "",
    requires: Sequence[str] = (),
    source: str | None = None,
) -> Path:
    """Write the wheel of a plugin."""
    text = PLUGIN.format(name=name, version=version, imports=imports) if source is None else source
    points = f"[toft.plugins]\n{name} = {name}_plugin:Echo\n"
    return write_wheel(
        f"{name}-plugin",
        version,
        {f"{name}_plugin.py": text},
        house,
        requires=tuple(requires),
        entry_points=points,
    )


def pin(path: Path, packages: Sequence[Path] = (), **more: Any) -> dict[str, Any]:
    """Return the pin of a plugin's wheel."""
    told = _told(path)
    told.pop("name")
    found: dict[str, Any] = {**told, **more}
    if packages:
        found["packages"] = [_told(each) for each in packages]
    return found


def _told(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    name, version = path.name.split("-")[:2]
    return {
        "name": name,
        "version": version,
        "filename": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
    }


def document_of(plugins: Mapping[str, Any], **sections: Any) -> document.Document:
    """Return a document that pins plugins."""
    value = {"schema_version": 1, "plugins": plugins, **sections}
    return document.author(json.dumps(value).encode(), "node.json")
