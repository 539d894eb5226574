"""A start pays only for what it uses."""

from __future__ import annotations

import subprocess
import sys


def test_an_event_that_nobody_hears_brings_nothing_in() -> None:
    program = (
        "import sys; from toft.kernel import log; log.get_logger('x').warning('unheard', a=1);"
        "sys.exit('structlog' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60).returncode == 0


def test_the_node_is_opened_without_what_only_some_commands_need() -> None:
    wanted = ("structlog", "rich", "yaml", "toft_sdk.testing", "numpy", "typer")
    program = f"import sys, toft.blocking; print([name for name in {wanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_and_version_start_without_the_node() -> None:
    wanted = ("asyncio", "rich", "toft.blocking", "toft.wiring", "yaml", "packaging")
    program = (
        "import sys; from toft.cli import app; app.run(['--help']);"
        f"sys.stderr.write(str([name for name in {wanted!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]"


def test_version_is_answered_by_almost_nothing() -> None:
    program = (
        "import sys; sys.argv = ['toft', '--version']; from toft.__main__ import main; main();"
        "sys.stderr.write(str([name for name in ('typer', 'asyncio', 'typing') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("toft ")
    assert done.stderr == "[]"
