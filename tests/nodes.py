"""A node for tests, with plugins that need no environment of their own: they come with the SDK."""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from toft import open_node
from toft.kernel import settings
from toft.plugins.manifests import manifest, registry
from toft.plugins.node import Node
from toft_sdk import introspect


def register(
    home: Path,
    name: str = "misbehaving",
    *,
    module: str = "toft_sdk.misbehaving",
    class_name: str = "MisbehavingPlugin",
    **described: Any,
) -> manifest.Manifest:
    """Write the manifest of a class that every worker can import, run by the interpreter of the tests."""
    told = {**introspect.describe(module, class_name), "name": name, **described}
    found = manifest.from_description(
        told, manifest.Install(python_path=sys.executable), manifest.Runtime(source="tests")
    )
    registry.Registry(home).write(found)
    return found


@contextlib.asynccontextmanager
async def running(home: Path, **given: Any) -> AsyncIterator[Node]:
    """Open a node whose settings come from the test alone."""
    read = settings.read({}, directory=home.parent, home=home, **given)
    async with open_node(settings=read) as node:
        yield node
