"""Shows a benchmark's result to a person: one row a figure, ours beside the yardstick's and the others'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toft.bench.targets import Target


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


def render(console: Console, result: Mapping[str, Any], targets: Mapping[str, Target]) -> None:
    """Print the result as a table, one of the others beside toft, and what could not be measured."""
    peers: Mapping[str, Mapping[str, Any]] = result["peers"]
    console.print(_against_the_yardstick(result["toft"], result["yardstick"], targets))
    if peers:
        console.print(_beside_the_others({"toft": result["toft"], **peers}, targets))
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


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _against_the_yardstick(
    ours: Mapping[str, Any], yardstick: Mapping[str, Any], targets: Mapping[str, Target]
) -> Table:
    table = _table("bare loop", "toft", "ratio", "target", "")
    for key, target in targets.items():
        figure, bare = ours.get(key), yardstick.get(key)
        met = None if figure is None else target.met(figure, bare)
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[met]
        compared = "" if figure is None else ratio(figure, bare)
        label = f"{target.label}, {target.unit}"
        table.add_row(label, shown(bare), shown(figure), compared, asked(target), verdict)
    return table


def _beside_the_others(everybody: Mapping[str, Mapping[str, Any]], targets: Mapping[str, Target]) -> Table:
    table = _table(*everybody)
    for key, target in targets.items():
        figures = [shown(each.get(key)) for each in everybody.values()]
        if any(figures[1:]):
            table.add_row(f"{target.label}, {target.unit}", *figures)
    return table
