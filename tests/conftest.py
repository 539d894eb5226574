"""What every test gets: a home of its own, an event loop that may not block, and no silent skips."""

import os
import re
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster
from hypothesis import settings

# A shell starts what runs in the background with Ctrl-C ignored, and every child inherits that. Tests that
# send one need it as a person at a terminal has it, also when nobody watches this run.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes tells of the machine's other work, never of the code.
settings.register_profile("toft", deadline=None)
settings.load_profile("toft")

NO_SKIP = set(filter(None, os.environ.get("TOFT_NO_SKIP", "").split(",")))


@pytest.fixture(autouse=True)
def toft_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an empty TOFT_HOME; nothing reads or writes the one of the person who runs the tests."""
    home = tmp_path / "toft-home"
    monkeypatch.setenv("TOFT_HOME", str(home))
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    return home


@pytest.fixture(autouse=True)
def event_loop_may_not_block() -> Iterator[None]:
    """Fail a blocking call that our own code makes on the event loop's thread."""
    guard = BlockBuster(scanned_modules=["toft"])
    # Small local files are read and written where they are needed; what waits for somebody else is refused.
    for name, function in guard.functions.items():
        if not name.startswith(("io.", "os.")):
            function.activate()
    yield
    guard.deactivate()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip for something that TOFT_NO_SKIP names into a failure.

    A test says what it lacks as `pytest.skip("needs NAME: why")`; NAME is matched here.
    """
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        needed = re.search(r"needs ([a-z0-9_.-]+)", report.longrepr[2])
        if needed and needed.group(1).rstrip(".") in NO_SKIP:
            report.outcome = "failed"
            report.longrepr = f"{report.longrepr[2]}; TOFT_NO_SKIP says that it must be there"
    return report
