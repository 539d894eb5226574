"""Makes small projects, wheels and wheelhouses for tests; nothing here needs a network or a build backend."""

from __future__ import annotations

import base64
import hashlib
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path

# A build backend of the project's own: `uv build` then needs nothing from an index.
_BACKEND = """
import sys
sys.path.insert(0, {tests!r})
from sample_packages import write_wheel

def build_wheel(directory, config_settings=None, metadata_directory=None):
    files = {{path: open(path, encoding="utf-8").read() for path in {files!r}}}
    return write_wheel({name!r}, {version!r}, files, directory,
        requires={requires!r}, requires_python={requires_python!r}, entry_points={entry_points!r}).name
"""


def write_wheel(
    name: str,
    version: str,
    files: Mapping[str, str],
    directory: Path | str,
    *,
    requires: tuple[str, ...] | list[str] = (),
    requires_python: str | None = None,
    entry_points: str = "",
) -> Path:
    """Write a pure wheel, the same bytes for the same arguments."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    metadata += f"Requires-Python: {requires_python}\n" if requires_python else ""
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents = {**files, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}
    if entry_points:
        contents[f"{info}/entry_points.txt"] = entry_points
    record = ""
    for path, text in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    contents[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    target = Path(directory) / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for path, text in contents.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return target


def write_project(
    directory: Path,
    name: str,
    files: Mapping[str, str],
    *,
    version: str = "1.0",
    requires: tuple[str, ...] = (),
    requires_python: str | None = None,
    entry_points: Mapping[str, str] | None = None,
) -> Path:
    """Write a project directory that builds itself."""
    directory.mkdir(parents=True)
    for path, text in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))
    lines = [f'name = "{name}"', f'version = "{version}"', f"dependencies = {list(requires)!r}"]
    if requires_python:
        lines.append(f'requires-python = "{requires_python}"')
    points = ""
    if entry_points:
        lines.append('[project.entry-points."toft.plugins"]')
        lines += [f'"{key}" = "{value}"' for key, value in entry_points.items()]
        points = "[toft.plugins]\n" + "".join(f"{key} = {value}\n" for key, value in entry_points.items())
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (directory / "pyproject.toml").write_text(build + "[project]\n" + "\n".join(lines) + "\n")
    backend = _BACKEND.format(
        tests=str(Path(__file__).parent),
        name=name,
        version=version,
        files=list(files),
        requires=list(requires),
        requires_python=requires_python,
        entry_points=points,
    )
    (directory / "backend.py").write_text(backend)
    return directory
