"""The command tree of `toft`, and the one place where an exception becomes an exit status."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from toft import __version__
from toft.cli import (
    backup,
    central,
    config,
    daemon,
    doctor,
    environment,
    events,
    failures,
    job,
    join,
    key,
    plugin,
    secret,
    sequence,
    token,
    top,
    trials,
    why,
)
from toft.cli import run as running
from toft.cli.session import Session, option
from toft.kernel.errors import NodeError, UsageError
from toft.plugins.plugin_errors import CancelledError, PluginError

_TYPED = ("request.command_line", "request.fields")
"""Codes of what is wrong with the words of a command, whoever finds it."""

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
app.command("run")(running.run)
app.command("why")(why.why)
app.command("top")(top.top)
app.command("events")(events.events)
app.command("backup")(backup.backup)
app.command("doctor")(doctor.doctor)
app.command("demo")(trials.demo)
app.add_typer(job.app, name="job")
app.add_typer(sequence.app, name="sequence")
app.add_typer(plugin.app, name="plugin")
app.add_typer(environment.app, name="env")
app.add_typer(secret.app, name="secret")
app.add_typer(config.app, name="config")
app.add_typer(key.app, name="key")
app.add_typer(central.app, name="central")
app.add_typer(trials.bench, name="bench")
daemon.register(app)
join.register(app)
token.register(app)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    home: Annotated[
        Path | None, option("--home", metavar="DIR", help="Where the node keeps everything [env: TOFT_HOME].")
    ] = None,
    url: Annotated[
        str | None,
        option("--url", metavar="URL", help="Ask the node that listens there [env: TOFT_URL]."),
    ] = None,
    token_file: Annotated[
        Path | None,
        option("--token-file", metavar="FILE", help="Has the token for it [env: TOFT_TOKEN_FILE]."),
    ] = None,
    ca_file: Annotated[
        Path | None,
        option("--ca-file", metavar="FILE", help="Who may have signed its certificate [env: TOFT_CA_FILE]."),
    ] = None,
    insecure: Annotated[
        bool, option("--insecure", help="Send the token to another machine without TLS.")
    ] = False,
    offline: Annotated[bool, option("--offline", help="Never use the network.")] = False,
    verbose: Annotated[bool, option("--verbose", "-v", help="Show the node's own log on stderr.")] = False,
    version: Annotated[bool, option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Take the options that every command shares."""
    session = context.ensure_object(Session)
    session.home = home.expanduser().absolute() if home else None
    session.remote = {"url": url, "token_file": token_file, "ca_file": ca_file, "insecure": insecure}
    _check_place(session)
    session.offline = True if offline else None
    if version:
        session.terminal.line(f"toft {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise UsageError("No command was given", code="request.command_line", hint="toft --help")
    session.is_verbose = verbose
    if verbose:
        from toft.kernel import log  # noqa: PLC0415 - structlog costs 40 ms

        log.show("DEBUG", session.terminal.err)


def _check_place(session: Session) -> None:
    """Refuse options that say two places, or that are shown to a node which none of them names."""
    given = [name for name, value in session.remote.items() if value]
    if "url" in given and session.home is not None:
        raise UsageError(
            "--home is on this machine and --url on another; give one", code="request.command_line"
        )
    if given and not session.wanted():
        # The owner's node would be asked instead, which no token holds back.
        raise UsageError(
            f"--{given[0].replace('_', '-')} is for a node at a URL, and no URL is given",
            code="request.command_line",
            hint="name it too, such as --url https://gpu1.example:7433",
        )


def run(arguments: Sequence[str], session: Session | None = None) -> int:
    """Run one command line and return its exit status; no expected error leaves here as an exception."""
    session = session or Session()
    as_json = "--json" in arguments
    if as_json:
        session.terminal.be_quiet_for_scripts()
    failure: NodeError | PluginError
    try:
        return _dispatch(list(arguments), session)
    except (NodeError, PluginError) as error:
        failure = error
    except _CommandLineError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            session.terminal.err.write(f"{error}\n")
            return failures.USAGE
        failure = _usage(error)
    except (KeyboardInterrupt, typer.Abort, EOFError):
        if not as_json:
            session.terminal.fail("cancelled")
            return failures.CANCELLED
        failure = CancelledError("cancelled by the person who asked")
    except (BrokenPipeError, SystemExit):
        # Whoever read the results has seen enough; Typer may make a SystemExit of it.
        _let_go_of_results(session)
        return failures.BROKEN_PIPE
    except OSError as error:
        failure = failures.from_os_error(error)
        if not error.filename:
            _let_go_of_results(session)
    if isinstance(failure, UsageError) and failure.code in _TYPED and not failure.hint:
        failure.hint = f"{session.command} --help"
    return failures.tell(
        session.terminal, failure, as_json=as_json, redactor=session.redactor(), subject=session.subject
    )


def _let_go_of_results(session: Session) -> None:
    """Keep the interpreter from complaining once more when it flushes at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), session.terminal.out.fileno())


def _dispatch(arguments: list[str], session: Session) -> int:
    status = app(arguments, prog_name="toft", obj=session, standalone_mode=False)
    if status == failures.CANCELLED:
        # Typer has made an exit status of Ctrl-C; a script is still owed its error object.
        raise KeyboardInterrupt
    session.terminal.out.flush()
    session.terminal.flush_warnings()
    return status if isinstance(status, int) else failures.OK


def _usage(error: Exception) -> UsageError:
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
