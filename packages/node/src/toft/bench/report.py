"""Shows a benchmark's result to a person: one row a figure, ours beside the yardstick's and the others'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toft.bench.targets import TARGETS, Target


def shown(value: float | None) -> str:
    """Return a figure with three digits that count."""
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ratio(figure: float, yardstick: float | None) -> str:
    """Return how a figure compares with the yardstick's."""
    return f"{figure / yardstick:.2f}x" if yardstick else ""


def asked(target: Target) -> str:
    """Return a target in words."""
    if target.limit is None:
        return ""
    sign = "≥" if target.is_rate else "≤"
    word = "and" if target.needs_both else "or"
    part = f" {word} {target.ratio:g}x" if target.ratio is not None else ""
    return f"{sign} {target.limit:,g}{part}"


def render(console: Console, result: Mapping[str, Any]) -> None:
    """Print the result as a table, then what could not be measured."""
    peers: Mapping[str, Mapping[str, Any]] = result["peers"]
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("", no_wrap=True)
    for heading in ("bare loop", "toft", "ratio", "target", "", *peers):
        table.add_column(heading, justify="right", no_wrap=True)
    for key, target in TARGETS.items():
        ours, bare = result["toft"].get(key), result["yardstick"].get(key)
        met = None if ours is None else target.met(ours, bare)
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[met]
        others = (shown(figures.get(key)) for figures in peers.values())
        compared = "" if ours is None else ratio(ours, bare)
        label = f"{target.label}, {target.unit}"
        table.add_row(label, shown(bare), shown(ours), compared, asked(target), verdict, *others)
    console.print(table)
    machine = result["machine"]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"load {machine['load']}"
    )
    for name, figures in {"toft": result["toft"], **peers}.items():
        for failure in figures.get("failures", ()):
            console.print(
                f"[yellow]not measured[/] {escape(failure if name in failure else f'{name}: {failure}')}"
            )
