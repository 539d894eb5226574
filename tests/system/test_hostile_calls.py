"""What a plugin can do to its own worker in a call: the caller hears of it, the next call works."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests import hostile_plugin, nodes
from tests.command_line import CommandLine

from toft.plugins import errors as faults
from toft_sdk.errors import PluginError


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_plugin.install(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def toft(installed: Path, tmp_path: Path) -> CommandLine:
    return CommandLine(installed, tmp_path)


ENDS: dict[str, tuple[str, str, str]] = {
    "an exception whose text raises": (
        "class E(Exception):\n  def __str__(self): raise RuntimeError\n  __repr__ = __str__\nraise E()",
        "plugin.exception",
        "cannot be put into words",
    ),
    "an exception whose text is none": (
        "class E(Exception):\n  def __str__(self): return 5\nraise E()",
        "plugin.exception",
        "cannot be put into words",
    ),
    "an error with fields of the wrong kind": (
        "from toft_sdk import FatalError\nerror = FatalError('x')\nerror.code = object()\n"
        "error.details = 5\nraise error",
        "plugin.exception",
        "FatalError",
    ),
    "an error of fifty megabytes": ("raise ValueError('x' * 50_000_000)", "plugin.input", "xxx"),
    "an exception of no known kind": (
        "class B(BaseException): pass\nraise B('as told')",
        "plugin",
        "as told",
    ),
    "KeyboardInterrupt": ("raise KeyboardInterrupt('as told')", "plugin.exception", "as told"),
    "GeneratorExit": ("raise GeneratorExit('as told')", "plugin.exception", "as told"),
    "a number nobody can write down": ("r = 1 << 1_000_000", "result.unencodable", "bits"),
    "a list of a thousand levels": (
        "r = []\nfor _ in range(1000): r = [r]",
        "result.unencodable",
        "deeper than",
    ),
    "progress beyond any number": ("self.report_progress(10 ** 400)", "plugin.exception", "too large"),
    "no builtins": (
        "import builtins; builtins.len = builtins.isinstance = builtins.type = None",
        "worker.exited",
        "70",
    ),
    "no descriptors": ("os.closerange(0, 1000)", "worker.exited", "ended itself"),
    "no descriptors for the future": (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
        "worker.exited",
        "70",
    ),
    "an exit from a thread": (
        "threading.Thread(target=os._exit, args=(4,)).start(); time.sleep(60)",
        "worker.exited",
        "4",
    ),
}


@pytest.mark.parametrize("what", ENDS)
async def test_whatever_a_plugin_raises_or_breaks_its_call_ends(installed: Path, what: str) -> None:
    code, expected, word = ENDS[what]
    async with nodes.running(installed, restart_first_s=0.01) as node:
        plugin = await node.load("hostile")
        with pytest.raises((PluginError, faults.WorkerLostError)) as caught:
            await plugin.call_with("execute", {"code": code}, timeout_s=20)
        assert str(caught.value.code).startswith(expected)
        assert word in caught.value.message
        assert len(caught.value.message) < 100_000
        assert len(caught.value.trace if isinstance(caught.value, PluginError) else "") < 100_000
        assert await plugin.call("execute", code="r = 'still here'") == "still here"


HARMLESS = {
    "a thread that exits": "thread = threading.Thread(target=sys.exit); thread.start(); thread.join()",
    "a thread that stays": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "a handler at exit that hangs": "import atexit; atexit.register(time.sleep, 600)",
    "every signal blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "every signal ignored": "[signal.signal(s, signal.SIG_IGN) for s in (1, 2, 13, 15)]"
    " if threading.current_thread() is threading.main_thread() else None",
    "no standard streams": "sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None; print('x')",
    "another umask and directory": "os.umask(0o777); os.chdir('/')",
    "no memory left to map": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1, 1))",
    "a low limit of recursion": "sys.setrecursionlimit(60)",
    "faulthandler elsewhere": "import faulthandler; faulthandler.enable(open('/dev/null', 'w'))",
    "a json module that is broken": "import json; json.dumps = json.loads = None",
    "a handler for asynchronous interrupts": "signal.pthread_kill(threading.get_ident(), signal.SIGCHLD)",
}


@pytest.mark.parametrize("what", HARMLESS)
async def test_bad_manners_in_a_worker_hold_nobody_up(installed: Path, what: str) -> None:
    async with nodes.running(installed, restart_first_s=0.01, cleanup_s=0.5) as node:
        plugin = await node.load("hostile")
        assert await plugin.call_with("execute", {"code": HARMLESS[what] + "\nr = 1"}, timeout_s=20) == 1
        assert await plugin.call_with("execute", {"code": "r = 2"}, timeout_s=20) == 2
        await asyncio.wait_for(plugin.unload(), 10)


async def test_a_worker_that_stops_itself_is_ended_by_silence_or_by_time(installed: Path) -> None:
    stop = {"code": "os.kill(os.getpid(), signal.SIGSTOP); time.sleep(600)"}
    async with nodes.running(installed, restart_first_s=0.01, cancel_grace_s=0.2) as node:
        plugin = await node.load("hostile", call_stall_s=0.5)
        with pytest.raises(faults.WorkerLostError) as stalled:
            await plugin.call_with("execute", stop)
        assert stalled.value.code == "worker.stalled"
        with pytest.raises(faults.CallTimeoutError) as late:
            await plugin.call_with("execute", stop, timeout_s=0.5)
        assert late.value.code == "call.timeout"
        assert await plugin.call("execute", code="r = 3") == 3


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("r = 'a\\ud800b'", "a\\ud800b\n"),
        ("r = {'k\\ud800': ['\\udfff']}", "\\udfff"),
        ("r = '\\x1b]0;mine\\x07'", "\x1b]0;mine\x07\n"),
    ],
)
def test_half_a_character_in_a_result_is_spelled_out(toft: CommandLine, code: str, shown: str) -> None:
    done = toft("run", "hostile", f"code={code}")
    assert done.status == 0, done.err
    assert shown in done.out
    assert toft("run", "hostile", f"code={code}", "--json").status == 0
    assert toft("run", "hostile", "--stream", f"code={code.replace('r = ', 'r = [')}]").status == 0


def test_what_a_plugin_says_cannot_drive_the_terminal_of_errors_and_logs(toft: CommandLine) -> None:
    code = (
        "print('\\x1b[31mred'); self.report_progress(0.5, '\\x1b[2J'); raise ValueError('\\x1b]0;mine\\x07')"
    )
    done = toft("run", "hostile", f"code={code}")
    assert done.status == 1
    assert "\x1b" not in done.err
    assert "\x07" not in done.err
    assert "\\x1b]0;mine" in done.err
    assert "\x1b" not in toft("plugin", "logs", "hostile").out
