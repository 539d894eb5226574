"""The blocking facade: the same words, usable from threads, Ctrl-C safe."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import daemons, nodes
from tests.leaks import leaks_checked
from tests.waiting import eventually

import toft
from toft import blocking
from toft.kernel import errors, settings
from toft.plugins import errors as faults
from toft_sdk.errors import CancelledError, InputError, TransientError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["embedded", "daemon"], autouse=True)
def way(request: pytest.FixtureRequest, toft_home: Path, leaks_checked: None) -> Iterator[str]:
    """Every promise holds for a node in this process and for one in a daemon."""
    if request.param == "embedded":
        yield request.param
        return
    with daemons.running(toft_home, toft_home.parent):
        yield request.param


@pytest.fixture
def node(toft_home: Path, way: str) -> Iterator[blocking.Node]:
    nodes.register(toft_home)
    read = settings.read({}, directory=toft_home.parent, home=toft_home)
    with toft.connect(settings=read) as opened:
        assert type(opened).__name__ == {"embedded": "Node", "daemon": "DaemonNode"}[way]
        yield opened


def test_a_script_calls_streams_and_watches(node: blocking.Node) -> None:
    with node.load("misbehaving", {"label": "x"}) as plugin:
        assert plugin.call("echo", value=(1, 2)) == (1, 2)
        assert plugin.call(do="echo", value=3) == 3
        assert list(plugin.stream("chunks", count=700)) == list(range(700))
        told: list[float] = []
        handle = plugin.start_with("work", {"seconds": 0.2}, on_progress=lambda share, _: told.append(share))
        assert handle.result(timeout_s=5) >= 0.2
        assert (handle.outcome, handle.usage, handle.is_open) == ("succeeded", {"seconds": 0.2}, False)
        assert told[-1] == handle.progress
        assert plugin.stats()["calls"] == 4
        assert [each.id for each in node.instances()] == ["misbehaving"]
        assert plugin.logs(5) == []
    assert node.instances() == []


def test_errors_are_the_typed_ones(node: blocking.Node) -> None:
    plugin = node.load("misbehaving")
    with pytest.raises(TransientError):
        plugin.call("raise_error", kind="TransientError")
    with pytest.raises(InputError):
        plugin.call("echo", nonsense=1)
    with pytest.raises(InputError):
        plugin.start("nothing")
    with pytest.raises(faults.WorkerLostError):
        plugin.call("segv")
    with pytest.raises(errors.NotFoundError):
        node.load("missbehaving")
    with pytest.raises(TransientError):
        list(plugin.stream("chunks_then_raise"))


def test_cancel_and_timeout_work_from_the_outside(node: blocking.Node) -> None:
    plugin = node.load("misbehaving")
    handle = plugin.start("work", seconds=60)
    with pytest.raises(TimeoutError):
        handle.result(timeout_s=0.05)
    assert handle.is_open
    assert handle.cancel() is True
    with pytest.raises(CancelledError):
        handle.result(timeout_s=5)
    with pytest.raises(faults.CallTimeoutError):
        plugin.call_with("work", {"seconds": 60}, timeout_s=0.1)
    with plugin.stream("chunks", count=10**9) as chunks:
        assert next(chunks) == 0
    eventually(lambda: plugin.stats()["running"] == 0)


def test_many_threads_share_one_instance(node: blocking.Node) -> None:
    plugin = node.load("misbehaving")
    results: dict[int, list[int]] = {}

    def work(number: int) -> None:
        results[number] = [plugin.call("echo", value=number * 100 + each) for each in range(50)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number * 100 + each for each in range(50)] for number in range(8)}


def test_a_closed_node_says_so(toft_home: Path) -> None:
    nodes.register(toft_home)
    node = toft.connect(toft_home)
    plugin = node.load("misbehaving")
    node.close()
    node.close()
    with pytest.raises(errors.UnavailableError):
        plugin.call("echo")
    with pytest.raises(errors.UnavailableError):
        node.plugins()


def test_secrets_reach_the_plugin_and_nothing_that_is_shown(toft_home: Path) -> None:
    nodes.register(
        toft_home,
        worker_env=[
            {"name": "API_KEY", "secret": True, "required": False},
            {"name": "MODE", "default": "fast"},
        ],
    )
    with toft.connect(toft_home) as node:
        plugin = node.load("misbehaving")
        before = plugin.call("look")["environ"]
        assert before["MODE"] == "fast"
        assert "API_KEY" not in before
        node.set_secret("misbehaving", "API_KEY", "hunter2-secret")
        assert plugin.call("look")["environ"]["API_KEY"] == "hunter2-secret"
        with pytest.raises(TransientError) as caught:
            plugin.call("raise_error", kind="TransientError", message="key hunter2-secret refused")
        assert "hunter2" not in str(caught.value) + str(caught.value.to_dict())
        plugin.call("write_fds", text="printing hunter2-secret\n", fds=[1])
        eventually(lambda: any("printing" in line for line in plugin.logs()))
        assert not any("hunter2" in line for line in plugin.logs())
        pid = plugin.stats()["pid"]
        assert "hunter2" not in Path(f"/proc/{pid}/environ").read_text()
        with pytest.raises(errors.UsageError, match="API_KEY"):
            node.load("misbehaving", instance="two", env={"API_KEY": "visible"})


def test_a_drifted_schema_is_told_and_does_not_keep_it_from_running(toft_home: Path) -> None:
    nodes.register(toft_home, config_schema={"type": "object", "properties": {"old": {"type": "integer"}}})
    with toft.connect(toft_home) as node:
        plugin = node.load("misbehaving")
        assert plugin.drift is not None
        assert "setting old is gone" in plugin.drift.changes
        assert node.plugins()[0].drift is True
        assert plugin.call("echo", value=1) == 1


def test_the_machine_is_looked_at_by_the_node_or_by_a_plugin(node: blocking.Node) -> None:
    assert node.system()["memory_total_mb"] > 0
    assert node.system("processes") == []
    node.load("misbehaving", is_monitor=True)
    # That plugin cannot say, so the node answers itself.
    assert node.system()["cpu_count"] >= 1


def test_two_processes_share_one_home(node: blocking.Node, toft_home: Path) -> None:
    node.configure("misbehaving", {"label": "first"})
    code = (
        "import sys, toft\n"
        "with toft.connect(sys.argv[1]) as node:\n"
        "    plugin = node.load('misbehaving')\n"
        "    print(plugin.call('where')['label'], flush=True)\n"
        "    node.set_enabled('misbehaving', False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(toft_home)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "first\n"
    with pytest.raises(faults.DisabledError):
        node.load("misbehaving").call("echo")


def test_ctrl_c_ends_the_call_and_then_the_program(toft_home: Path, way: str) -> None:
    nodes.register(toft_home)
    code = (
        "import sys, toft\n"
        "with toft.connect(sys.argv[1]) as node:\n"
        "    plugin = node.load('misbehaving')\n"
        "    print(plugin.stats()['pid'], flush=True)\n"
        "    try:\n"
        "        plugin.call('work', seconds=60)\n"
        "    except KeyboardInterrupt:\n"
        "        while not plugin.stats()['cancelled']:\n"
        "            pass\n"
        "        print('interrupted', plugin.call('echo', value=1), flush=True)\n"
    )
    script = subprocess.Popen(
        [sys.executable, "-c", code, str(toft_home)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert script.stdout is not None
        pid = int(script.stdout.readline())
        time.sleep(0.3)
        script.send_signal(signal.SIGINT)
        assert script.stdout.readline() == "interrupted 1\n"
        assert script.wait(20) == 0
        if way == "embedded":
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
    finally:
        script.kill()
        script.wait()
        script.stdout.close()
