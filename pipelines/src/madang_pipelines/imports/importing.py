"""Files and a mapping → tables of typed columns, with what was set aside."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from madang_pipelines.imports.columns import missing, number, values_of
from madang_pipelines.imports.formats import Raw, read_file
from madang_pipelines.imports.mapping import (
    NEEDED,
    TABLES,
    Column,
    Files,
    Join,
    Mapping,
    MappingError,
    TableMapping,
    Type,
)
from madang_pipelines.tables import Rejected

Progress = Callable[[float], None]
_KEYS = {"documents": "document", "queries": "query", "users": "user", "items": "item"}
_MOST_REJECTED = 0.5
_LISTED = {"user": Column(column="user"), "item": Column(column="item")}
_DTYPES: dict[Type, pl.DataType] = {
    Type.ID: pl.String(),
    Type.TEXT: pl.String(),
    Type.FLAG: pl.Boolean(),
    Type.TIME: pl.Int64(),
}


@dataclass(frozen=True)
class Imported:
    """A table.

    Attributes:
        frame: its columns as `TABLES` names them, those that were mapped; `part` ("train", "valid",
            "test", or "" where no split is given); and those under numbers (Float64) and categories
            (String) by their own names. Times are milliseconds, minutes minutes; null is unknown.
        numbers, categories: names of the latter; one that a column of the table has, too, is
            followed by "(feature)".
        user: those that tell of the user and the moment.
        quality: what was set aside, by file.
    """

    frame: pl.DataFrame
    numbers: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    user: list[str] = field(default_factory=list)
    quality: list[Rejected] = field(default_factory=list)

    def has(self, *columns: str) -> bool:
        """Whether these were mapped."""
        return all(column in self.frame.columns for column in columns)

    def part(self, *names: str) -> pl.DataFrame:
        """The rows of some parts."""
        return self.frame.filter(pl.col("part").is_in(names))


def import_tables(
    mapping: Mapping, only: Sequence[str] = (), progress: Progress = lambda _: None
) -> dict[str, Imported]:
    """Read what a mapping names; `only` some tables, if given.

    Raises:
        MappingError: a file or column is not there, or most rows of a file are set aside.
    """
    wanted = {n: own for n, own in mapping.tables().items() if not only or n in only}
    found = {}
    for at, (name, own) in enumerate(wanted.items()):
        try:
            found[name] = _import(name, own, mapping.folder)
        except MappingError as error:
            raise MappingError(f"{name}: {error}") from error
        progress((at + 1) / len(wanted))
    return found


def files_of(how: Files, folder: Path) -> list[tuple[str, Path]]:
    """Part and path of each file. Raises: MappingError: one is not there."""
    found = []
    for part, name in how.parts():
        paths = sorted(folder.glob(name)) if any(c in name for c in "*?[") else [folder / name]
        if not paths or not paths[0].is_file():
            raise MappingError(f"there is no {folder / name}")
        found += [(part, path) for path in paths]
    return found


def read_raw(how: TableMapping, folder: Path) -> list[tuple[str, Raw]]:
    """Each file's rows as they are written, with joined columns, and its part."""
    joined = [(own.by, _whole(own, folder)) for own in how.join]
    found = []
    for part, path in files_of(how, folder):
        beside = how.beside.get(part) if isinstance(how.beside, dict) else how.beside  # type: ignore[call-overload]
        raw = read_file(path, how, folder / beside if beside else None)
        frame = raw.frame
        for by, more in joined:
            _resolve(frame, by)
            frame = frame.join(more, by, how="left", maintain_order="left")
        if how.where:
            kept = _sql(frame, raw.lines, how.where).cast(pl.Boolean).fill_null(False)
            raw = Raw(frame.filter(kept), raw.lines.filter(kept), raw.rejected)
        else:
            raw = Raw(frame, raw.lines, raw.rejected)
        found.append((part, raw))
    return found


def _whole(how: Join, folder: Path) -> pl.DataFrame:
    frames = [read_file(path, how).frame for _, path in files_of(how, folder)]
    whole = pl.concat(frames, how="diagonal_relaxed")
    _resolve(whole, how.by)
    return whole.unique(how.by, keep="first", maintain_order=True)


def _import(name: str, how: TableMapping, folder: Path) -> Imported:
    frames, quality = [], []
    for part, raw in read_raw(how, folder):
        frame, rejected = _typed(name, how, raw)
        if len(rejected.rows) > _MOST_REJECTED * max(rejected.read, 1):
            why, n = max(rejected.reasons().items(), key=lambda pair: pair[1])
            raise MappingError(
                f"{len(rejected.rows):,} of {rejected.read:,} lines of {rejected.source} are set "
                f"aside, {n:,} as “{why}”: the mapping does not fit"
            )
        quality.append(rejected)
        frames.append(frame.with_columns(part=pl.lit(part)))
    whole = pl.concat(frames, how="vertical_relaxed")
    if (key := _KEYS.get(name)) and len(frames) > 1:
        whole = whole.unique(key, keep="first", maintain_order=True)
    if not len(whole):
        raise MappingError("has no rows")
    return Imported(
        whole.rechunk(),
        [*_features(name, raw.frame, how.numbers)],
        [*_features(name, raw.frame, how.categories)],
        [*_features(name, raw.frame, how.user)],
        quality,
    )


def _features(table: str, raw: pl.DataFrame, given: Sequence[str | int]) -> dict[str, str]:
    """Features by the names that they get, and their columns in the file."""
    taken = {*TABLES[table], "part"}
    columns = [_resolve(raw, name) for name in given]
    return {f"{c} (feature)" if c in taken else c: c for c in columns}


def _typed(name: str, how: TableMapping, raw: Raw) -> tuple[pl.DataFrame, Rejected]:
    """The rows that fit, and those of the file that do not."""
    rejected = Rejected(raw.rejected.source, raw.rejected.read, list(raw.rejected.rows))
    n = len(raw.frame)
    bad = pl.Series([False] * n, dtype=pl.Boolean)

    def reject(rows: pl.Series, why: str) -> None:
        nonlocal bad
        for at in (rows & ~bad).arg_true().to_list():
            rejected.reject(raw.lines[at], why)
        bad |= rows

    columns: dict[str, pl.Series] = {}
    mapped = _mapped(how)
    for column, kind in TABLES[name].items():
        if not (given := mapped.get(column)):
            continue
        values = _source(raw, given)
        weekday = None if given.weekday is None else raw.frame[_resolve(raw.frame, given.weekday)]
        found, broken = values_of(values, kind, given, weekday)
        for why, rows in broken:
            reject(rows, f"{column} {why}")
        if (column in NEEDED[name] and kind is not Type.TEXT) or column == "label":
            reject(found.is_null(), f"{column} is not given")
        columns[column] = found.cast(_DTYPES.get(kind, pl.Float64()))
    if key := _KEYS.get(name):
        reject(~columns[key].is_first_distinct(), f"{key} is there twice")
    for own, column in _features(name, raw.frame, how.numbers).items():
        found, none = number(raw.frame[column]), missing(raw.frame[column])
        reject(~none & found.is_null(), f"{column} is not a number")
        columns[own] = found.set(none, None)
    for own, column in _features(name, raw.frame, how.categories).items():
        written = raw.frame[column].cast(pl.String).str.strip_chars()
        columns[own] = written.set(missing(raw.frame[column]), None)
    rejected.rows.sort()
    return pl.DataFrame(columns).filter(~bad), rejected


def _mapped(how: TableMapping) -> dict[str, Column]:
    """The columns; those of lists are known."""
    if how.format != "lists":
        return how.columns
    times = {"time": Column(column="time")} if how.beside else {}
    return _LISTED | times | how.columns


def _source(raw: Raw, given: Column) -> pl.Series:
    if given.value is not None:
        return pl.Series([str(given.value)] * len(raw.frame), dtype=pl.String)
    if given.sql:
        return _sql(raw.frame, raw.lines, given.sql)
    assert given.column is not None
    return raw.frame[_resolve(raw.frame, given.column)]


def _sql(frame: pl.DataFrame, lines: pl.Series, expression: str) -> pl.Series:
    with_lines = frame if "line" in frame.columns else frame.with_columns(line=lines)
    try:
        return with_lines.select(pl.sql_expr(expression).alias("_")).to_series()
    except pl.exceptions.PolarsError as error:
        raise MappingError(f"sql {expression!r}: {error}") from error


def _resolve(frame: pl.DataFrame, column: str | int) -> str:
    """The name of a column in a file."""
    names = frame.columns
    if isinstance(column, int):
        if 0 <= column < len(names):
            return names[column]
        raise MappingError(f"there is no column {column}; there are {len(names)}, from 0")
    if column in names:
        return column
    near = difflib.get_close_matches(column, names, 1)
    hint = f"; do you mean {near[0]!r}?" if near else f"; there are {', '.join(names[:20])}"
    raise MappingError(f"there is no column {column!r}{hint}")
