"""What the columns of a file may be, guessed from what is in them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from madang_pipelines.imports.columns import FORMATS, missing, number, time
from madang_pipelines.imports.mapping import Column

_SAMPLE = 100_000
_YEARS = (0, 4_102_444_800_000)  # 1970 to 2100
_FIRST_TIME = 631_152_000  # seconds of 1990: smaller numbers are counts, not times
_FEW = 1000
_EXAMPLES = 3
_TRIED = 1000
_LATITUDE = re.compile(r"(^|[^a-z])lat(itude)?([^a-z]|$)")
_LONGITUDE = re.compile(r"(^|[^a-z])(lng|long?|longitude)([^a-z]|$)")


@dataclass(frozen=True)
class Guess:
    """What a column is.

    Attributes:
        name: of the column.
        kind: "number", "whole number", "yes or no", "time", "latitude", "longitude", "category",
            "id", "text" or "empty".
        none: share of rows without a value.
        distinct: number of values there are.
        examples: the most frequent values.
        form: of times that are not ISO 8601 or unix times, as strptime has it.
        least, most: of numbers.
    """

    name: str
    kind: str
    none: float
    distinct: int
    examples: list[str]
    least: float | None = None
    most: float | None = None
    form: str = ""


def guess_columns(frame: pl.DataFrame) -> list[Guess]:
    """A guess for each column, from its first rows."""
    return [_guess(column) for column in frame.head(_SAMPLE).iter_columns()]


def _guess(column: pl.Series) -> Guess:
    none = missing(column)
    if isinstance(column.dtype, pl.List):
        column = column.cast(pl.List(pl.String)).list.join(", ")
    there = column.filter(~none)
    counts = there.cast(pl.String).value_counts(sort=True)
    distinct = len(counts)
    examples = counts[column.name].head(_EXAMPLES).to_list()
    share = none.mean()
    assert isinstance(share, float)
    numbers, form = number(there), ""
    if numbers.null_count() or not len(there):
        kind, form = _of_text(there, distinct)
        numbers = numbers.clear()
    else:
        kind = _of_numbers(column.name, there, numbers, distinct)
    least, most = numbers.min(), numbers.max()
    return Guess(
        column.name,
        kind,
        share,
        distinct,
        examples,
        least if isinstance(least, float) else None,
        most if isinstance(most, float) else None,
        form,
    )


def _of_numbers(name: str, there: pl.Series, numbers: pl.Series, distinct: int) -> str:
    whole = bool((numbers % 1 == 0).all())
    lower = name.lower()
    least, most = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    rules: dict[str, Callable[[], bool]] = {
        "yes or no": lambda: whole and {least, most} == {0.0, 1.0} and distinct == 2,
        "latitude": lambda: bool(_LATITUDE.search(lower)) and least >= -90 and most <= 90,
        "longitude": lambda: bool(_LONGITUDE.search(lower)) and -180 <= least <= most <= 180,
        "time": lambda: whole and least >= _FIRST_TIME and _is_time(there),
        "id": lambda: whole and (lower == "id" or lower.endswith(("_id", " id"))),
        "whole number": lambda: whole,
    }
    return next((kind for kind, holds in rules.items() if holds()), "number")


def _of_text(there: pl.Series, distinct: int) -> tuple[str, str]:
    """The kind, and the format of times."""
    if not len(there):
        return "empty", ""
    if there.dtype.is_temporal() or _is_time(there):
        return "time", ""
    texts = there.cast(pl.String)
    if form := next((form for form in FORMATS if _is_time(texts.head(_TRIED), form)), ""):
        return "time", form
    if set(texts.str.to_lowercase().unique()) <= {"yes", "no", "true", "false", "y", "n", "t", "f"}:
        return "yes or no", ""
    if distinct <= _FEW and distinct * 5 <= len(there):
        return "category", ""
    words = texts.str.count_matches(r"\s").mean()
    return "text" if isinstance(words, float) and words >= 1 else "id", ""


def _is_time(there: pl.Series, form: str = "") -> bool:
    found = time(there, Column(column="", format=form))
    return not found.null_count() and bool(found.is_between(*_YEARS).all())
