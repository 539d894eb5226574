"""The catalogue says whether a plugin can run, from what is on disk, and never shows a secret."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from toft.kernel.errors import NotFoundError
from toft.plugins import catalog
from toft.plugins.environments.environments import Environments
from toft.plugins.instances import InstanceOptions, InstanceRecord, Instances
from toft.plugins.manifests.manifest import Code, Install, Manifest, Runtime
from toft.plugins.manifests.registry import Registry
from toft.secrets.file_store import FileSecretStore
from toft.store.database import Database

DECLARED: tuple[dict[str, Any], ...] = (
    {"name": "API_KEY", "secret": True, "required": True},
    {"name": "API_URL", "secret": False, "required": True},
    {"name": "LEVEL", "secret": False, "required": True, "default": "1"},
    {"name": "HINT", "secret": False, "required": False, "label": "Hint"},
)


@dataclasses.dataclass
class Home:
    registry: Registry
    instances: Instances
    secrets: FileSecretStore
    catalog: catalog.Catalog

    def install(self, name: str, **more: Any) -> None:
        code = Code(name, "1.0", "Read", "m", "C", worker_env=more.pop("worker_env", ()))
        install = Install(python_path=more.pop("python", sys.executable))
        self.registry.write(Manifest(install, code, Runtime(python_version="3.11.7", **more)))

    async def row(self) -> catalog.Entry:
        (found,) = await self.catalog.rows()
        return found


@pytest_asyncio.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    database = Database(tmp_path / "node.db")
    await database.open({"plugins": "toft.plugins"})
    registry, instances = Registry(tmp_path), Instances(database)
    secrets = FileSecretStore(tmp_path / "secrets")
    yield Home(
        registry,
        instances,
        secrets,
        catalog.Catalog(registry, Environments(tmp_path, ()), instances, secrets),
    )
    await database.close()


async def test_a_row_has_what_scripts_rely_on(home: Home) -> None:
    home.install("ocr")
    assert (await home.row()).to_dict() == {
        "name": "ocr",
        "version": "1.0",
        "state": "ready",
        "environment": "",
        "python": "3.11.7",
        "drift": False,
        "instances": [],
    }
    assert [each.drift for each in await home.catalog.rows(drifted=["ocr"])] == [True]


async def test_a_plugin_without_its_environment_or_interpreter_is_broken(home: Home) -> None:
    home.install("ocr", environment="0" * 32)
    assert (await home.row()).state == "broken"
    home.install("ocr", python="/nonexistent/python")
    assert (await home.row()).state == "broken"


async def test_a_disabled_plugin_says_so_and_its_instances_are_named(home: Home) -> None:
    home.install("ocr")
    await home.instances.put(InstanceRecord(name="ocr-2", plugin="ocr", enabled=False))
    row = await home.row()
    assert (row.state, row.instances) == ("ready", ("ocr-2",))
    await home.instances.put(InstanceRecord(name="ocr", plugin="ocr", enabled=False))
    row = await home.row()
    assert (row.state, row.instances) == ("disabled", ("ocr", "ocr-2"))


async def test_a_plugin_is_incomplete_until_every_required_variable_has_a_value(home: Home) -> None:
    home.install("ocr", worker_env=DECLARED)
    assert (await home.row()).state == "incomplete"
    home.secrets.set("ocr", "API_KEY", "hunter22")
    assert (await home.row()).state == "incomplete"
    await home.instances.put(
        InstanceRecord(name="ocr", plugin="ocr", options=InstanceOptions(env={"API_URL": "x"}))
    )
    assert (await home.row()).state == "ready"


async def test_variables_tell_what_is_missing_and_no_value(home: Home) -> None:
    home.install("ocr", worker_env=DECLARED)
    home.secrets.set("ocr", "API_KEY", "hunter22")
    found = {each.name: each for each in await home.catalog.variables("ocr")}
    assert {name: each.satisfied for name, each in found.items()} == {
        "API_KEY": True,
        "API_URL": False,
        "LEVEL": True,
        "HINT": False,
    }
    assert {name for name, each in found.items() if each.required} == {"API_KEY", "API_URL"}
    assert "hunter22" not in str([each.to_dict() for each in found.values()])


async def test_an_unknown_plugin_is_not_found(home: Home) -> None:
    with pytest.raises(NotFoundError):
        await home.catalog.variables("nothing")
