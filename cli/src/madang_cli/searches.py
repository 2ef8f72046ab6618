"""Prints what became of searches."""

import polars as pl
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from madang_pipelines.search.query_log import SearchReport

_MOST = 8


def print_searches(report: SearchReport, slow_ms: float, console: Console) -> None:
    """All searches, then the queries that need a look."""
    k, queries = report.k, report.queries
    _print("Searches", [*report.totals.iter_rows(named=True)], k, console)
    for title, found in (
        ("Without an answer", queries.filter(pl.col("unanswered") > 0)),
        (
            f"Slower than {slow_ms:g} ms",
            queries.filter(pl.col("slowest") > slow_ms).sort("slowest", descending=True),
        ),
        (
            f"Answered, and nothing of the first {k} clicked",
            queries.filter((pl.col("clicked") == 0) & (pl.col("unanswered") < 1)),
        ),
    ):
        if len(found):
            _print(title, [*found.head(_MOST).iter_rows(named=True)], k, console)
        if (more := len(found) - _MOST) > 0:
            console.print(f"  and {more:,} more")


def _print(title: str, rows: list[dict[str, float]], k: int, console: Console) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("query", overflow="ellipsis", max_width=20, no_wrap=True)
    for column in ("asked", "none", "fixed", f"CTR@{k}", "orders", "MRR", "ms", "worst"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(str(row.get("query", "all"))),
            f"{row['searches']:,}",
            *(f"{100 * row[name]:.0f} %" for name in ("unanswered", "corrected")),
            *(f"{100 * row[name]:.0f} %" for name in ("clicked", "ordered")),
            f"{row['reciprocal_rank']:.2f}",
            *(f"{row[name]:.0f}" for name in ("median", "slowest")),
        )
    console.print(table)
