"""A plugin that is one Python file: what it needs stands in its own comment block, and it becomes a wheel.

    # /// script
    # requires-python = ">=3.9"
    # dependencies = ["pysbd==0.3.4"]
    # ///

The block is the one that other tools read from scripts, so the same file also runs alone with them.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import keyword
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from toft.plugins.environments import environment_errors

_MOST_BYTES = 4 << 20
_START, _END = "# /// script", "# ///"
_DATE = (2020, 1, 1, 0, 0, 0)


def read(path: Path) -> dict[str, Any]:
    """Return what the block of a file says; empty when it has none.

    Raises:
        SourceError: The file cannot be read, the block is not TOML, or the file's name is no module's.
    """
    _check_name(path)
    lines = _source(path).splitlines()
    if _START not in lines:
        return {}
    start = lines.index(_START) + 1
    try:
        end = lines.index(_END, start)
        found = tomllib.loads(
            "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[start:end])
        )
    except (ValueError, RecursionError) as error:
        raise environment_errors.SourceError(
            f"{path.name}: its script block cannot be read: {error}",
            code="source.bad_block",
            hint='write "# /// script", lines of TOML that start with "# ", then "# ///"',
        ) from error
    wanted = found.get("dependencies", [])
    if not isinstance(wanted, list) or not all(isinstance(each, str) and "\n" not in each for each in wanted):
        raise environment_errors.SourceError(
            f"{path.name}: dependencies in its script block must be a list of texts", code="source.bad_block"
        )
    return found


def requires_python(path: Path) -> str | None:
    """Return the range of Python versions a file declares."""
    declared = read(path).get("requires-python")
    return declared if isinstance(declared, str) else None


def write_wheel(path: Path, directory: Path) -> Path:
    """Write a wheel that holds one file; the same bytes for the same file."""
    name, text = path.stem, _source(path)
    version = _version(text)
    info = f"{name}-{version}.dist-info"
    block = read(path)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {each}\n" for each in block.get("dependencies", ()))
    if block.get("requires-python"):
        metadata += f"Requires-Python: {block['requires-python']}\n"
    contents = {
        f"{name}.py": text,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: toft\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{each},{_hash(data)},{len(data.encode())}\n" for each, data in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    target = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, data in contents.items():
            archive.writestr(zipfile.ZipInfo(each, _DATE), data)
    return target


def _check_name(path: Path) -> None:
    taken = path.stem in sys.stdlib_module_names or path.stem == "toft_sdk" or keyword.iskeyword(path.stem)
    if not path.stem.isidentifier() or not path.stem.isascii() or taken:
        why = "another module has that name" if taken else "it is no name of a module"
        raise environment_errors.SourceError(
            f"{path.name} cannot be a plugin: {why}",
            code="source.bad_file_name",
            hint="rename it to letters, digits and _, such as my_plugin.py",
        )


def _source(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise environment_errors.SourceError(f"{path} is larger than {_MOST_BYTES} bytes")
        return data.decode("utf-8")
    except OSError as error:
        raise environment_errors.SourceError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise environment_errors.SourceError(f"{path} is not UTF-8 text: {error.reason}") from error


def _version(text: str) -> str:
    """Return the file's `__version__`, when it says one in so many words."""
    try:
        nodes = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        # Newer syntax than this Python's, or none: the plugin's own Python can say which.
        return "0.0.0"
    for node in nodes:
        is_version = isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == "__version__" for each in node.targets
        )
        if is_version and isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            try:
                return str(Version(str(node.value.value)))
            except InvalidVersion:
                break
    return "0.0.0"


def _hash(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
