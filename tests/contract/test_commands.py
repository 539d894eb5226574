"""What running a command promises, plain and confined: output, exit code, limits, nothing left running."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.namespaces import skip_without
from tests.waiting import eventually_async

from toft.host import commands, confined_commands, keeper

PYTHON = os.path.realpath(sys.executable)


@pytest.fixture(params=["plain", "confined"])
async def run(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[commands.Run]:
    if request.param == "plain":
        yield commands.run
        return
    kept = await keeper.Keeper.start()
    try:
        if kept.isolation.mode != "namespaces":
            skip_without(kept.isolation.reason)
        hidden = tmp_path / "hidden"
        hidden.mkdir()
        (hidden / "secret").write_text("x")
        yield confined_commands.ConfinedCommands(kept, [str(hidden)]).run
    finally:
        await kept.close()


async def python(run: commands.Run, tmp_path: Path, code: str, **more: object) -> commands.Completed:
    chosen = {"env": {"A": "1"}, "cwd": tmp_path, "timeout_s": 30, "writable": [tmp_path], **more}
    return await run((PYTHON, "-I", "-S", "-c", code), **chosen)  # type: ignore[arg-type]


async def test_output_exit_code_and_environment(run: commands.Run, tmp_path: Path) -> None:
    code = (
        "import os, sys; print(os.getcwd(), sorted(os.environ));"
        "sys.stderr.write('two\\nlines\\n'); sys.exit(7)"
    )
    done = await python(run, tmp_path, code)
    assert (done.code, done.stderr) == (7, "two\nlines\n")
    assert done.stdout.startswith(f"{tmp_path} ['A'")


async def test_a_signal_is_told_by_the_exit_code(run: commands.Run, tmp_path: Path) -> None:
    assert (await python(run, tmp_path, "import os; os.kill(os.getpid(), 9)")).code == 128 + 9


async def test_only_the_end_of_much_output_is_kept(run: commands.Run, tmp_path: Path) -> None:
    code = "import sys; sys.stdout.write('x' * 5_000_000 + 'end'); sys.stdout.flush()"
    done = await python(run, tmp_path, code)
    assert done.stdout.endswith("xend")
    assert len(done.stdout) == 1_000_000


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        code = "import time; time.sleep(300)"
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code, {marker!r}])
    os._exit(0)
open({marker!r}, "w").close()
time.sleep({sleep})
"""


def left(marker: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(marker) in (process.info["cmdline"] or ()):
            found.append(process.pid)
    return found


async def test_a_daemon_ends_with_the_command(run: commands.Run, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    done = await python(run, tmp_path, DAEMON.format(marker=str(marker), sleep=0))
    assert done.code == 0
    assert left(marker) == []


async def test_too_long_ends_everything_it_started(run: commands.Run, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = "import sys; sys.stderr.write('I was here'); sys.stderr.flush()" + DAEMON
    with pytest.raises(commands.CommandTimeoutError, match="was ended after 1.5 s") as caught:
        await python(run, tmp_path, code.format(marker=str(marker), sleep=300), timeout_s=1.5)
    assert caught.value.details["last_lines"] == "I was here"
    assert left(marker) == []


async def test_cancelling_ends_everything_it_started(run: commands.Run, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    running = asyncio.create_task(python(run, tmp_path, DAEMON.format(marker=str(marker), sleep=300)))
    await eventually_async(lambda: marker.exists() and bool(left(marker)), 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert left(marker) == []


async def test_one_that_is_given_up_while_it_starts_leaves_nothing(run: commands.Run, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = DAEMON.format(marker=str(marker), sleep=300)
    await python(run, tmp_path, "")
    before = psutil.Process().num_fds()
    for turns in (0, 1, 2, 3, 5, 8, 13):
        running = asyncio.create_task(python(run, tmp_path, code))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    await eventually_async(lambda: psutil.Process().num_fds() <= before, 10)
    await eventually_async(lambda: left(marker) == [], 10)


async def test_a_confined_command_writes_where_it_may_and_sees_nothing_hidden(
    run: commands.Run, tmp_path: Path
) -> None:
    if run is commands.run:
        pytest.skip("a plain command is not confined")
    mine = tmp_path / "mine"
    mine.mkdir()
    code = (
        "import os\n"
        "open('mine/here', 'w').close()\n"
        "print(os.listdir('hidden'))\n"
        "try: open('there', 'w')\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = await python(run, tmp_path, code, writable=[mine])
    assert done.stdout.split("\n")[:2] == ["[]", "30"], done.stderr
    assert (mine / "here").exists()
