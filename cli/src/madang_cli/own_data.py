"""Prints what files hold, and what a mapping makes of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from madang_cli.show import print_rejected
from madang_pipelines.imports.drafting import draft, likely_table
from madang_pipelines.imports.formats import Raw, read_file
from madang_pipelines.imports.guessing import Guess, guess_columns
from madang_pipelines.imports.importing import import_tables
from madang_pipelines.imports.mapping import Files, Mapping, read_mapping
from madang_pipelines.own.report import OURS, Report

_WIDE = 24


def inspect(path: Path, folder: Path | None, table: str, console: Console) -> None:
    """A mapping with its files, or a file with a mapping to begin with."""
    if path.suffix in (".yaml", ".yml"):
        _mapped(read_mapping(path, folder), console)
        return
    raw, quoted = _plain(path)
    guesses = guess_columns(raw.frame)
    console.print(f"[bold]{escape(path.name)}[/]: {len(raw.frame):,} rows")
    _columns(guesses, console)
    print_rejected([raw.rejected], console)
    made = draft(path, guesses, table or likely_table(guesses), quoted)
    console.print("\nA mapping to begin with:\n")
    console.print(made, markup=False, highlight=False, soft_wrap=True)


def _plain(path: Path) -> tuple[Raw, bool]:
    """A file, and whether quotes in it mean anything: not where all lines fit only without."""
    quoted = read_file(path, Files(files=path.name))
    if not quoted.rejected.rows:
        return quoted, True
    plain = read_file(path, Files(files=path.name, quote=""))
    fewer = len(plain.rejected.rows) < len(quoted.rejected.rows)
    return (plain, False) if fewer else (quoted, True)


def print_report(report: Report, console: Console) -> None:
    """What a training is worth, beside simple models."""
    print_rejected(report.quality, console)
    metrics = list(dict.fromkeys(name for own in report.scores.values() for name in own))
    shown = Table(title=f"{report.data}, {report.service}", title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("")
    for name in metrics:
        shown.add_column(name, justify="right")
    for side, own in report.scores.items():
        cells = [own[name].text() if name in own else "" for name in metrics]
        shown.add_row(side, *cells, style="bold" if side == OURS else "")
    if metrics:
        console.print(shown)
    console.print(f"Judged by: {report.judged}", highlight=False)
    for model, version in report.versions.items():
        console.print(f"champion of {model}: {version}", highlight=False)


def _mapped(mapping: Mapping, console: Console) -> None:
    console.print(f"[bold]{escape(mapping.name)}[/]")
    for name, table in import_tables(mapping).items():
        parts = table.frame["part"].value_counts(sort=True).rows()
        split = ", ".join(f"{part} {rows:,}" for part, rows in parts if part)
        console.print(f"\n[bold]{name}[/]: {len(table.frame):,} rows{split and f' ({split})'}")
        times = pl.col("^time$").cast(pl.Datetime("ms"))
        _columns(guess_columns(table.frame.drop("part").with_columns(times)), console)
        print_rejected(table.quality, console)


def _columns(guesses: Sequence[Guess], console: Console) -> None:
    shown = Table(box=None, pad_edge=False)
    for name, justify in (("column", "left"), ("looks like", "left"), ("none", "right")):
        shown.add_column(name, justify=justify)  # type: ignore[arg-type]
    shown.add_column("values", justify="right")
    shown.add_column("such as")
    for guess in guesses:
        shown.add_row(
            escape(guess.name[:_WIDE]),
            guess.kind,
            f"{guess.none:.0%}" if guess.none else "",
            f"{guess.distinct:,}",
            escape(_examples(guess)),
        )
    console.print(shown)


def _examples(guess: Guess) -> str:
    if guess.least is not None and guess.most is not None and guess.kind == "time":
        first, last = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (guess.least, guess.most))
        return f"{first:%Y-%m-%d %H:%M} … {last:%Y-%m-%d %H:%M} UTC"
    if guess.least is not None and guess.most is not None and guess.kind != "yes or no":
        return f"{guess.least:,.6g} … {guess.most:,.6g}"
    return ", ".join(text[:_WIDE].replace("\n", " ") for text in guess.examples)
