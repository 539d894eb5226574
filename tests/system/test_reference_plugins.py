"""Published plugins of the reference system, unchanged: listed in a plugins.yaml, installed, run."""

import asyncio
import contextlib
import os
import subprocess
import wave
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.interpreters import interpreter
from tests.leaks import leaks_checked  # noqa: F401 - a fixture
from tests.waiting import eventually
from tests.workers import Running, worker

import toft
from toft.host import process_tree
from toft.kernel import errors
from toft.plugins import install
from toft.plugins.artifacts import Artifacts
from toft.plugins.environments import environments, interpreters, sdk
from toft.plugins.environments import uv_environments as uv
from toft.plugins.manifests import arguments, config, manifest, registry
from toft_sdk import errors as plugin_errors

LIST = """
plugins:
  - name: media-ffmpeg
    env_name: media-ffmpeg
    python_version: "{python}"
    package: cjm-media-plugin-ffmpeg==0.0.6
    interface_libs: [cjm-plugin-system==0.0.34, cjm-media-plugin-system==0.0.7]
    requirements: [cjm-ffmpeg-utils==0.0.5, imageio-ffmpeg==0.6.0]
  - name: graph
    env_name: graph
    python_version: "{python}"
    package: cjm-graph-plugin-sqlite==0.0.9
    interface_libs: [{libraries}]
    requirements: [cjm-system-monitor-nvidia==0.0.11, cjm-text-plugin-nltk==0.0.7]
  - name: monitor
    env_name: monitor
    python_version: "{python}"
    package: cjm-system-monitor-nvidia==0.0.11
    interface_libs: [{libraries}]
    requirements: [cjm-graph-plugin-sqlite==0.0.9, cjm-text-plugin-nltk==0.0.7]
  - name: text
    env_name: text
    python_version: "{python}"
    package: cjm-text-plugin-nltk==0.0.7
    interface_libs: [{libraries}]
    requirements: [cjm-graph-plugin-sqlite==0.0.9, cjm-system-monitor-nvidia==0.0.11]
"""
LIBRARIES = (
    "cjm-plugin-system==0.0.34, cjm-graph-plugin-system==0.0.10,"
    " cjm-infra-plugin-system==0.0.7, cjm-text-plugin-system==0.0.7"
)
NAMES = ["graph", "media-ffmpeg", "monitor", "text"]
pytestmark = pytest.mark.timeout(300)


class Home:
    """An installation, and workers started from its manifests with an environment as bare as a node gives."""

    def __init__(self, home: Path, python: str) -> None:
        self.path = home
        self.data = home / "data"
        self.registry = registry.Registry(home)
        self.sdk = sdk.SdkCopy(home)
        provisioner = uv.UvProvisioner(interpreters.Interpreters((python,)), uv.UvOptions())
        self.store = environments.Environments(home, [provisioner], prepare=self.sdk.prepare)
        self.installer = install.Installer(
            self.registry, self.store, self._describe, artifacts=Artifacts(home)
        )

    async def _describe(
        self, environment: environments.Environment, module: str, class_name: str | None
    ) -> Mapping[str, Any]:
        async with self._worker(environment.python, module, class_name, load=False) as running:
            described: Mapping[str, Any] = await running.connection.request("load", timeout_s=60)
            return described

    @contextlib.asynccontextmanager
    async def ready(self, name: str, given: Mapping[str, Any] | None = None) -> AsyncIterator[Running]:
        found = self.registry.get(name)
        merged = config.validate(found.code.config_schema, given, found.runtime.config_defaults)
        async with self._worker(
            found.install.python_path, found.code.module, found.code.class_name
        ) as running:
            await running.connection.request("initialize", {"config": merged})
            yield running

    @contextlib.asynccontextmanager
    async def _worker(
        self, python: str, module: str, class_name: str | None, *, load: bool = True
    ) -> AsyncIterator[Running]:
        self.data.mkdir(parents=True, exist_ok=True)
        env = {
            "PATH": f"{Path(python).parent}:/nowhere",
            "TOFT_DATA_DIR": str(self.data),
            "HOME": str(self.data),
        }
        started = worker(class_name, module=module, python=python, load=False, paths=(), env=env)
        async with started as running:
            if load:
                await running.connection.request("load", timeout_s=60)
            yield running

    async def call(self, running: Running, name: str, **given: Any) -> Any:
        schema = self.registry.get(name).runtime.actions["execute"]["input"]
        bound = arguments.Binder(schema).bind(given)
        return await running.connection.request("call", {"action": "execute", "arguments": bound})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    python = interpreter("3.12")
    directory = tmp_path_factory.mktemp("reference")
    made = Home(directory / "home", python)
    listed = directory / "plugins.yaml"
    listed.write_text(LIST.format(python="3.12", libraries=LIBRARIES))
    asyncio.run(made.installer.add(install.Wish(source=str(listed))))
    return made


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\1" * 16000)
    return path


def test_a_list_becomes_manifests_that_the_reference_reads(home: Home) -> None:
    assert [each.name for each in home.registry.list()] == NAMES
    found = home.registry.get("media-ffmpeg")
    assert found.code.interface == "cjm_media_plugin_system.processing_interface.MediaProcessingPlugin"
    assert found.code.taxonomy == manifest.Taxonomy("media", "MediaProcessingPlugin", found.code.interface)
    assert found.runtime.hosting == "reference"
    # The package names an interface that is not there; the class says the real one.
    assert home.registry.get("graph").code.interface == "cjm_graph_plugin_system.plugin_interface.GraphPlugin"
    # Three ask for the same packages, so they share one environment.
    assert len(home.store.list()) == 2
    read = (
        "import sys; from cjm_plugin_system.core.manifest_format import load_manifest;"
        "m = load_manifest(sys.argv[1]);"
        "print(m.code.name, m.code.class_name, m.drift_tracking.config_schema_hash)"
    )
    path = home.path / "plugins" / "media-ffmpeg" / "manifest.json"
    done = subprocess.run(
        [found.install.python_path, "-c", read, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["media-ffmpeg", "FFmpegProcessingPlugin", found.config_schema_hash]


async def test_the_media_plugin_converts_a_clip_with_the_ffmpeg_from_a_wheel(home: Home, sound: Path) -> None:
    async with home.ready("media-ffmpeg", {"default_audio_format": "wav"}) as running:
        seen: list[tuple[float, str]] = []
        wanted = {"action": "convert", "input_path": str(sound), "output_format": "flac"}
        result = await running.connection.request(
            "call",
            {"action": "execute", "arguments": wanted},
            on_progress=lambda fraction, message: seen.append((fraction, message)),
        )
        made = Path(result["output_path"])
        assert made.is_relative_to(home.data)
        assert seen[-1] == (1.0, "Complete")
        assert (await asyncio.to_thread(made.read_bytes))[:4] == b"fLaC"


async def test_wrong_configuration_and_arguments_are_refused_with_every_path(home: Home) -> None:
    with pytest.raises(plugin_errors.InputError) as caught:
        async with home.ready("media-ffmpeg", {"default_audio_format": "midi", "output": 3}):
            pass
    assert set(caught.value.fields) == {"default_audio_format", "output"}
    async with home.ready("media-ffmpeg") as running:
        with pytest.raises(plugin_errors.InputError):
            await home.call(running, "media-ffmpeg", action=3)
        with pytest.raises(plugin_errors.InputError, match="Unknown action") as refused:
            await home.call(running, "media-ffmpeg", action="nonsense")
    assert list(refused.value.fields) == ["action"]


async def test_the_graph_plugin_keeps_its_graph_in_the_plugins_own_directory(home: Home) -> None:
    node = {"id": "n1", "label": "Page", "properties": {"number": 1}, "sources": []}
    async with home.ready("graph") as running:
        assert (await home.call(running, "graph", action="add_nodes", nodes=[node]))["count"] == 1
    async with home.ready("graph") as running:
        found = await home.call(running, "graph", action="get_node", node_id="n1")
    assert found["node"]["properties"] == {"number": 1}
    assert list(home.data.rglob("context_graph.db"))


async def test_the_monitor_plugin_measures(home: Home) -> None:
    async with home.ready("monitor") as running:
        status = await running.connection.request("monitor", {"what": "status"})
        assert status["memory_total_mb"] > 0
        assert isinstance(await running.connection.request("monitor", {"what": "processes"}), list)


async def test_the_text_plugin_returns_dataclasses_as_dictionaries(home: Home) -> None:
    async with home.ready("text") as running:
        result = await home.call(running, "text", text="One sentence. Another one.")
    assert [each["text"] for each in result["spans"]] == ["One sentence.", "Another one."]
    assert str(home.data) in result["metadata"]["nltk_data_dir"]


def long_silence(path: Path) -> Path:
    """Make an hour and a half of sound that takes no room on the disk and a good while to convert."""
    size = 48000 * 4 * 5400
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(b"\0" * 4)
    with path.open("r+b") as raw:
        for offset, value in ((4, 36 + size), (40, size)):
            raw.seek(offset)
            raw.write(value.to_bytes(4, "little"))
        raw.truncate(44 + size)
    return path


@pytest.mark.usefixtures("leaks_checked")
def test_through_the_node_a_cancelled_conversion_is_cancelled_and_leaves_nothing_running(
    home: Home, sound: Path, tmp_path: Path
) -> None:
    silence = long_silence(tmp_path / "long.wav")
    with toft.connect(home.path) as node:
        media = node.load("media-ffmpeg", {"default_audio_format": "wav"})
        assert media.drift is None
        call = media.start(action="convert", input_path=silence, output_format="mp3")
        eventually(lambda: call.message.startswith("Converting"), 20)
        eventually(lambda: programs("ffmpeg"), 20)
        assert call.cancel(grace_s=0.2)
        with pytest.raises(plugin_errors.CancelledError):
            call.result(20)
        assert call.outcome == "cancelled"
        eventually(lambda: not programs("ffmpeg"), 5)
        # The plugin ignores the cancel, so its process was replaced; the settings are still there.
        result = media.call(action="convert", input_path=sound, output_format="flac")
        assert Path(result["output_path"]).read_bytes()[:4] == b"fLaC"
        assert media.config["default_audio_format"] == "wav"


@pytest.mark.usefixtures("leaks_checked")
def test_through_the_node_a_plugin_is_reconfigured_switched_off_and_found_by_what_it_is(home: Home) -> None:
    with toft.connect(home.path) as node:
        graph = node.load("graph", {"readonly": False})
        graph.reconfigure({"readonly": True})
        assert graph.config["readonly"] is True
        graph.disable()
        with pytest.raises(errors.NodeError):
            graph.call(action="get_schema")
        graph.enable()
        assert "node_labels" in graph.call(action="get_schema")
        assert [each.name for each in node.installed.find(domain="graph")] == ["graph"]
        assert [each.name for each in node.installed.find(role="MediaProcessingPlugin")] == ["media-ffmpeg"]


def programs(name: str) -> list[str]:
    """Return the processes below this one that run a program."""
    found = []
    for stat in process_tree.descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if name in Path(f"/proc/{stat.pid}/cmdline").read_text().split("\0")[0]:
                found.append(str(stat.pid))
    return found
