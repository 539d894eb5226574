"""`toft plugin new`: a folder with a plugin that works as it is, and the places an author fills in.

The folder appears whole or not at all. Its build backend comes with uv, so adding it needs no network.
"""

from __future__ import annotations

import errno
import keyword
import shutil
from dataclasses import dataclass
from pathlib import Path

from toft.kernel import ids
from toft.kernel.errors import ConflictError, NodeError
from toft.store import durable


@dataclass(frozen=True)
class Names:
    """The three spellings of one name: for callers, for `import`, for the class."""

    plugin: str
    module: str
    class_name: str

    @classmethod
    def of(cls, name: str) -> Names:
        """Derive the spellings.

        Raises:
            UsageError: The name could not become a path.
        """
        ids.check_name(name, "plugin name")
        words = [word for word in name.replace("_", "-").split("-") if word]
        class_name = "".join(word.capitalize() for word in words)
        if not class_name[0].isalpha() or keyword.iskeyword(class_name):
            class_name = f"Plugin{class_name}"
        # The suffix keeps a plugin called json or numpy from hiding the module of that name.
        module = "_".join(words) + "_plugin"
        return cls(name, module if module[0].isalpha() else f"plugin_{module}", class_name)


def write(name: str, parent: Path) -> list[Path]:
    """Make `parent/name` with a plugin in it.

    Returns:
        The files, relative to the folder.

    Raises:
        ConflictError: There is something of that name already.
        NodeError: The folder cannot be written.
    """
    names = Names.of(name)
    target = parent / name
    if target.exists() or target.is_symlink():
        raise _taken(target)
    staged = durable.temporary_name(target)
    files = {path: text.format(**vars(names)) for path, text in _templates(names).items()}
    try:
        for path, text in files.items():
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            (staged / path).write_text(text, encoding="utf-8")
        staged.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _taken(target) from error
        raise NodeError(
            f"{target} cannot be made: {error.strerror}",
            code="plugin.not_scaffolded",
            blame="environment",
            details={"path": str(target)},
            hint="Choose another place with --directory.",
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return sorted(files)


def _taken(target: Path) -> ConflictError:
    return ConflictError(
        f"{target} is there already",
        code="plugin.folder_exists",
        details={"path": str(target)},
        hint="Choose another name, another --directory, or move it away.",
    )


def _templates(names: Names) -> dict[Path, str]:
    return {
        Path("pyproject.toml"): _PROJECT,
        Path("src", names.module, "__init__.py"): _PLUGIN,
        Path("tests", f"test_{names.module}.py"): _TEST,
        Path("README.md"): _README,
        Path(".gitignore"): _IGNORED,
    }


_PROJECT = """\
[build-system]
requires = ["uv_build>=0.9,<1"]
build-backend = "uv_build"

[project]
name = "{plugin}"
version = "0.1.0"
description = "What {plugin} does, in one line"
readme = "README.md"
requires-python = ">=3.8"
# What your plugin imports. It gets an environment of its own: no other plugin's versions matter.
dependencies = []

[project.entry-points."toft.plugins"]
{plugin} = "{module}:{class_name}"

[tool.uv.build-backend]
module-name = "{module}"

[tool.pytest.ini_options]
pythonpath = ["src"]
"""

_PLUGIN = '''\
"""What {plugin} does, in one line."""

from toft_sdk import Plugin, run


class {class_name}(Plugin):
    """What {plugin} does, in one line."""

    name = "{plugin}"
    examples = [{{"arguments": {{"text": "Ada"}}, "result": "Hello, Ada!"}}]

    def execute(self, text: str = "world") -> str:
        """Say hello; the annotations become the schema that callers are held to."""
        return f"Hello, {{text}}!"


if __name__ == "__main__":
    run({class_name})
'''

_TEST = '''\
"""Runs in this process, as any Python class does; `toft plugin test .` runs it across a real one."""

from {module} import {class_name}


def test_it_says_hello():
    assert {class_name}().execute(text="Ada") == "Hello, Ada!"
'''

_README = """\
# {plugin}

What {plugin} does, in one line. The class is in `src/{module}/__init__.py`.

With toft on this machine:

```
toft plugin test .
toft plugin add .
toft run {plugin} text=Ada
```

With any Python that has `toft_sdk` and pytest:

```
python src/{module}/__init__.py text=Ada
pytest
```

`toft-sdk` is not among the dependencies in `pyproject.toml` on purpose: the node puts it beside the plugin.
After a change, `toft plugin refresh {plugin}`.
"""

_IGNORED = """\
__pycache__/
*.egg-info/
.venv/
dist/
"""
