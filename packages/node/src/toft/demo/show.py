"""Tells the demo to a person, as it happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from toft.demo.cast import SCAN
from toft.demo.run import Player


class Teller:
    """Prints each step.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        """Print one step; events without a line of their own are passed over."""
        line = getattr(self, f"_{event}", None)
        if line is not None:
            line(**facts)

    def _begin(self, title: str) -> None:
        self._console.print(f"\n[bold]{escape(title)}[/]")

    def _print(self, text: str) -> None:
        self._console.print(Padding(text, (0, 0, 0, 2), expand=False))

    def _installing(self, plugin: str, requirements: Sequence[str]) -> None:
        self._print(f"{plugin:<15} [dim]installing {escape(', '.join(requirements))}[/]")

    def _installed(self, player: Player) -> None:
        runtime = player.manifest.runtime
        how = f"installed in {player.install_s:.1f} s" if player.is_new else "there already"
        name = f"{player.part.plugin:<15}"
        self._print(
            f"{name} Python {runtime.python_version:<8} environment {runtime.environment[:12]}  {how}"
        )

    def _substitute(self, plugin: str, because: str, takes: str) -> None:
        self._print(f"[yellow]{plugin} cannot run here: {escape(because)}[/]")
        self._print(f"[yellow]{takes} takes its place[/]")

    def _refused(self, plugins: Sequence[str], python: str, reason: str) -> None:
        self._begin(
            f"Could {plugins[0]} and {plugins[1]} share one environment? The resolver, for Python {python}:"
        )
        self._print(f"[red]{escape(reason)}[/]")

    def _submitted(self, sequence: str) -> None:
        self._print(f"[dim]{sequence} is on disk; toft why {sequence} tells its story[/]")

    def _plug(self, step: str, killed: Sequence[str]) -> None:
        self._print(f"[red]In the middle of {escape(step)}: killed {escape(', '.join(killed))}[/]")

    def _back(self, pid: int) -> None:
        self._print(f"[green]A new daemon, process {pid}, goes on where the last one stopped[/]")

    def _survived(self, steps: int, finished: Sequence[str], again: Sequence[str]) -> None:
        self._print(
            f"[green]All {steps} jobs completed. Not run again: {escape(', '.join(finished)) or 'none'}. "
            f"Interrupted, and run again as they allow it: {escape(', '.join(again)) or 'none'}[/]"
        )

    def _pages(self, count: int, text: str) -> None:
        layer = f"a text layer of {len(text)} characters" if text else "no text layer"
        self._print(f"{count} pages, {layer}")

    def _lines(self, page: int, lines: Sequence[str]) -> None:
        for line in lines:
            self._print(f"[dim]page {page}[/]  {escape(line)}")

    def _entities(self, entities: Sequence[Mapping[str, Any]]) -> None:
        self._begin("Found in it")
        for each in entities:
            self._print(f"{each['label']:<9} {escape(each['text'])}  [dim]page {each['page']}[/]")

    def _answer(self, question: str, passage: str, page: int, **_: Any) -> None:
        self._print(escape(question))
        self._print(f"  [green]{escape(passage)}[/]  [dim]page {page}[/]")

    def _steps(self, steps: Sequence[Mapping[str, Any]]) -> None:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("plugin", no_wrap=True)
        for heading in ("python", "environment"):
            table.add_column(heading)
        for heading in ("process", "memory", "jobs", "took"):
            table.add_column(heading, justify="right")
        for step in steps:
            table.add_row(
                step["plugin"],
                step["python"],
                step["environment"][:12],
                str(step["pid"] or ""),
                f"{step['memory_bytes'] / 1e6:.0f} MB" if step["memory_bytes"] else "",
                str(step["calls"]),
                f"{step['call_s']:.2f} s",
            )
        self._console.print(Padding(table, (0, 0, 0, 2), expand=False))

    def end(self, result: Mapping[str, Any], home: Path) -> None:
        """Print what it took and what to try next."""
        plugins = [step["plugin"] for step in result["steps"]]
        self._console.print(
            f"\nRead and answered in {result['work_s']:.1f} s, "
            f"{result['duration_s']:.1f} s with everything else."
        )
        self._console.print(f"The plugins stay installed in {escape(str(home))}. Try", soft_wrap=True)
        if not result["survived"]:
            self._console.print("  toft demo --pull-the-plug", soft_wrap=True)
        self._console.print(f"  toft why {result['sequence']}", soft_wrap=True)
        self._console.print(f"  toft run {plugins[0]} pdf={escape(str(SCAN))} --json", soft_wrap=True)
        self._console.print(f"or take them away: toft plugin remove {' '.join(plugins)}", soft_wrap=True)
