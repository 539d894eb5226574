"""The command tree of `toft`, and the one place where an exception becomes an exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from toft import __version__
from toft.cli import failures, secret
from toft.cli.session import Session
from toft.kernel.errors import NodeError, UsageError
from toft_sdk.errors import PluginError

# Typer does not give its own root of usage errors a public name.
_CommandLineError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="toft",
    help="Run other people's code on machines you own, isolated from each other and from the machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(secret.app, name="secret")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    home: Annotated[
        Path | None,
        typer.Option(help="Where the node keeps everything [env: TOFT_HOME].", show_default=False),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the node's own log on stderr.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Take the options that every command shares."""
    session = context.ensure_object(Session)
    session.home = home.expanduser().absolute() if home else None
    session.offline = True if offline else None
    if version:
        session.terminal.line(f"toft {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise UsageError("No command was given", code="request.command_line", hint="toft --help")
    if verbose:
        from toft.kernel import log  # noqa: PLC0415 - structlog costs 40 ms

        log.show("DEBUG", session.terminal.err)


def run(arguments: Sequence[str], session: Session | None = None) -> int:
    """Run one command line and return its exit status; no expected error leaves here as an exception."""
    session = session or Session()
    as_json = "--json" in arguments
    try:
        return _dispatch(list(arguments), session)
    except (NodeError, PluginError) as error:
        return failures.tell(session.terminal, error, as_json=as_json)
    except _CommandLineError as error:
        return failures.tell(session.terminal, _usage(error, arguments), as_json=as_json)
    except (KeyboardInterrupt, typer.Abort, EOFError):
        session.terminal.fail("cancelled")
        return failures.CANCELLED
    except BrokenPipeError:
        # Whoever read the results has seen enough. The interpreter would complain once more while it exits.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failures.BROKEN_PIPE
    except OSError as error:
        return failures.tell(session.terminal, failures.from_os_error(error), as_json=as_json)


def _dispatch(arguments: list[str], session: Session) -> int:
    status = app(arguments, prog_name="toft", obj=session, standalone_mode=False)
    session.terminal.out.flush()
    return status if isinstance(status, int) else failures.OK


def _usage(error: Exception, arguments: Sequence[str]) -> UsageError:
    """Say what is wrong with a command line in our own words' form."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "toft"
    message = getattr(error, "format_message", error.__str__)()
    return UsageError(message.rstrip("."), code="request.command_line", hint=f"{command} --help")


def end_as_cancelled(signum: int, frame: object) -> None:
    """Treat a polite request to end like Ctrl-C: what runs is cancelled and cleaned up."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Run the command line of this process."""
    signal.signal(signal.SIGTERM, end_as_cancelled)
    return run(arguments)
