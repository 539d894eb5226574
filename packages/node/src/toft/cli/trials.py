"""`toft demo` and `toft bench`: see toft work on real input, and measure what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toft.cli import session as sessions
from toft.cli.live import Live
from toft.cli.session import JsonOption, Session, option

if TYPE_CHECKING:
    from rich.console import Console

bench = typer.Typer(help="Measure this machine and toft on it.", no_args_is_help=True)

RoundsOption = Annotated[int, option("--rounds", metavar="N", help="Turns everybody takes; 5 when left out.")]
PeersOption = Annotated[bool, option("--peers", help="Measure other systems as well, in the same run.")]


def demo(
    context: typer.Context,
    pull_the_plug: Annotated[
        bool, option("--pull-the-plug", help="Kill a worker and the daemon in the middle, and go on.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read a scanned report with four plugins that cannot share an environment, as a graph of jobs.

    Installs what is missing, which needs the network the first time; reading it does not. Uses the daemon of
    this home; where there is none, one for itself.
    """
    from toft.demo import run, show, stage  # noqa: PLC0415 - packages that no other command needs

    session = sessions.of(context)
    chosen = session.settings()
    teller = show.Teller(_console(session, err=as_json))
    on = stage.Stage(chosen, session.environ, teller)
    with on.open(own=pull_the_plug) as node:
        demo = run.Demo(node, teller)
        if pull_the_plug:
            demo = run.Demo(node, teller, accident=on.pull_the_plug, check=on.check)
        result = demo.perform()
    if as_json:
        session.terminal.json(result)
    else:
        teller.end(result, chosen.home)


@bench.command("runtime")
def runtime(
    context: typer.Context,
    peers: PeersOption = False,
    rounds: RoundsOption = 5,
    as_json: JsonOption = False,
) -> None:
    """Measure calls, streams, big arrays, starts and ends of plugins, beside a bare echo loop."""
    _measure(context, "RUNTIME", peers=peers, rounds=rounds, as_json=as_json)


@bench.command("jobs")
def jobs(
    context: typer.Context,
    peers: PeersOption = False,
    rounds: RoundsOption = 5,
    as_json: JsonOption = False,
) -> None:
    """Measure the durable queue: submissions, jobs on real workers, a million of them, beside bare SQLite."""
    _measure(context, "JOBS", peers=peers, rounds=rounds, as_json=as_json)


@bench.command("api")
def api(
    context: typer.Context,
    rounds: Annotated[int, option("--rounds", metavar="N", help="Turns; 3 when left out.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Measure the daemon over HTTP: submissions, lists out of a million, events, pages in Chromium."""
    _measure(context, "API", peers=False, rounds=rounds, as_json=as_json)


@bench.command("central")
def central(
    context: typer.Context,
    rounds: Annotated[int, option("--rounds", metavar="N", help="Turns; 1 when left out.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Measure a central: ten thousand nodes that wait, how far a bad revision gets, and joining."""
    _measure(context, "CENTRAL", peers=False, rounds=rounds, as_json=as_json)


def _measure(context: typer.Context, name: str, *, peers: bool, rounds: int, as_json: bool) -> None:
    import asyncio  # noqa: PLC0415 - 20 ms that `toft --help` does not pay

    from toft.bench import peers as others  # noqa: PLC0415 - packages that no other command needs
    from toft.bench import report, suite  # noqa: PLC0415 - packages that no other command needs

    session = sessions.of(context)
    chosen: suite.Suite = getattr(suite, name)
    with Live(session.terminal, "bench") as live:
        found: dict[str, str] = {}
        missing: dict[str, str] = {}
        if peers:
            home = Path(session.settings().home) / "bench"
            found, missing = asyncio.run(others.install(chosen.peers, home, live.step))
        result = suite.measure(chosen, found, rounds=max(1, rounds), say=live.step)
    result["peers"].update({peer: {"failures": [why]} for peer, why in missing.items()})
    if as_json:
        session.terminal.json(result)
    else:
        report.render(_console(session), result, chosen.targets)


def _console(session: Session, *, err: bool = False) -> Console:
    """Return a console that knows styles; what plugins say is escaped before it gets there."""
    from rich.console import Console  # noqa: PLC0415 - 60 ms that a command without colour does not pay

    return Console(file=session.terminal.err if err else session.terminal.out, highlight=False, emoji=False)
