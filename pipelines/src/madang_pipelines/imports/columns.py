"""Text as values of a type: what does not fit is told row by row."""

from collections.abc import Callable, Iterator

import polars as pl

from madang_pipelines.imports.mapping import Column, MappingError, Type

_LONGEST_ID = 128
_MINUTE = {"milliseconds": 1 / 60_000, "seconds": 1 / 60, "minutes": 1.0, "hours": 60.0}
_YES = ("1", "true", "yes", "y", "t", "1.0")
_NO = ("0", "false", "no", "n", "f", "0.0")
_MONDAY_MS = 4 * 86_400_000  # 5 January 1970
_MILLISECONDS_FROM = 100_000_000_000
"""Numbers from here on are unix milliseconds, below seconds: 1973 or the year 5138."""
FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y %H:%M",
    "%d-%m-%Y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y",
    "%Y%m%d%H%M%S",
    "%a %b %d %H:%M:%S %z %Y",
    "%I:%M:%S %p",
    "%I:%M %p",
    "%H:%M:%S",
    "%H:%M",
)
"""Times that are no ISO 8601, as they are often written; where two fit, the first is guessed."""
MISSING = ("", "na", "n/a", "nan", "null", "none", "\\n", "?")
"""What files write, in any case, where there is no value."""

Broken = Iterator[tuple[str, pl.Series]]


def number(column: pl.Series) -> pl.Series:
    """Float64; null where nothing is, and where it is not a number."""
    if column.dtype == pl.String:
        stripped = column.str.strip_chars()
        column = stripped.str.replace_all(",", "") if _grouped(stripped) else stripped
    found = column.cast(pl.Float64, strict=False)
    return found.fill_nan(None)


def _grouped(column: pl.Series) -> bool:
    """Whether thousands are set apart, as in 1,234,567.8."""
    commas = column.filter(column.str.contains(",", literal=True))
    return len(commas) > 0 and bool(commas.str.contains(r"^-?\d{1,3}(,\d{3})+(\.\d+)?$").all())


def time(column: pl.Series, how: Column, weekday: pl.Series | None = None) -> pl.Series:
    """Milliseconds since the epoch, Int64."""
    if how.format:
        return _formatted(column.cast(pl.String).str.strip_chars(), how.format, weekday)
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("ms")).cast(pl.Int64)
    seconds = number(column)
    if len(seconds) and seconds.null_count() == len(seconds):
        texts = column.cast(pl.String).str.strip_chars()
        try:
            parsed = texts.str.to_datetime(strict=False, time_unit="ms", time_zone="UTC")
        except pl.exceptions.PolarsError:
            parsed = pl.Series([None] * len(texts), dtype=pl.Datetime("ms"))
        return parsed.cast(pl.Int64)
    milliseconds = pl.select(
        pl.when(seconds.abs() >= _MILLISECONDS_FROM).then(seconds).otherwise(seconds * 1000)
    ).to_series()
    return milliseconds.round().cast(pl.Int64, strict=False)


def _formatted(texts: pl.Series, form: str, weekday: pl.Series | None) -> pl.Series:
    dated = any(code in form for code in ("%Y", "%y", "%s", "%F", "%D", "%c"))
    if not dated:
        clock = texts.str.to_time(form, strict=False).cast(pl.Int64) // 1_000_000
        days = number(weekday) - 1 if weekday is not None else pl.Series([0.0] * len(texts))
        return (_MONDAY_MS + days.cast(pl.Int64) * 86_400_000 + clock).cast(pl.Int64)
    if any(code in form for code in ("%H", "%I", "%T", "%s", "%c", "%R")):
        parsed = texts.str.to_datetime(form, strict=False, time_unit="ms", time_zone="UTC")
        return parsed.cast(pl.Int64)
    return texts.str.to_date(form, strict=False).cast(pl.Datetime("ms")).cast(pl.Int64)


def missing(column: pl.Series) -> pl.Series:
    """Where nothing is."""
    if column.dtype != pl.String:
        found = column.is_null()
        return found | column.is_nan().fill_null(False) if column.dtype.is_float() else found
    return column.is_null() | column.str.strip_chars().str.to_lowercase().is_in(MISSING)


def values_of(
    raw: pl.Series, kind: Type, how: Column, weekday: pl.Series | None = None
) -> tuple[pl.Series, Broken]:
    """A column as its type, and what is wrong with which rows.

    Null where nothing is: whether that may be is the caller's to say.
    """
    if how.values:
        raw = _replaced(raw, how)
    none = missing(raw)
    found = _PARSERS[kind](raw, how, weekday).set(none, None)
    wrong = [(f"is not {_SAID[kind]}", ~none & found.is_null())]
    if kind in _BOUNDS:
        least, most = _BOUNDS[kind]
        wrong.append((f"is not between {least:g} and {most:g}", (found < least) | (found > most)))
    if kind is Type.ID:
        wrong.append(
            (f"has more than {_LONGEST_ID} characters", found.str.len_chars() > _LONGEST_ID)
        )
    return found, ((why, rows.fill_null(False)) for why, rows in wrong)


def _replaced(raw: pl.Series, how: Column) -> pl.Series:
    written = raw.cast(pl.String).str.strip_chars()
    meant = {key: str(value) for key, value in how.values.items()}
    default = None if how.otherwise is None else str(how.otherwise)
    if default is None and (other := set(written.drop_nulls().unique()) - meant.keys() - {""}):
        raise MappingError(
            f"values does not say what {sorted(other)[0]!r} means; or give otherwise"
        )
    return written.replace_strict(meant, default=default, return_dtype=pl.String)


def _text(raw: pl.Series, how: Column, _: pl.Series | None) -> pl.Series:
    if isinstance(raw.dtype, pl.List):
        return raw.cast(pl.List(pl.String)).list.join("\n")
    return raw.cast(pl.String).str.strip_chars()


def _id(raw: pl.Series, how: Column, _: pl.Series | None) -> pl.Series:
    if raw.dtype.is_float() and (raw.drop_nans().drop_nulls() % 1 == 0).all():
        raw = raw.cast(pl.Int64, strict=False)
    return raw.cast(pl.String).str.strip_chars()


def _flag(raw: pl.Series, how: Column, _: pl.Series | None) -> pl.Series:
    if raw.dtype == pl.Boolean:
        return raw
    written = raw.cast(pl.String).str.strip_chars().str.to_lowercase()
    meant = dict.fromkeys(_YES, True) | dict.fromkeys(_NO, False)
    return written.replace_strict(meant, default=None, return_dtype=pl.Boolean)


def _minutes(raw: pl.Series, how: Column, _: pl.Series | None) -> pl.Series:
    return number(raw) * _MINUTE[how.unit]


_PARSERS: dict[Type, Callable[[pl.Series, Column, pl.Series | None], pl.Series]] = {
    Type.ID: _id,
    Type.TEXT: _text,
    Type.NUMBER: lambda raw, how, _: number(raw) * how.scale,
    Type.MINUTES: _minutes,
    Type.FLAG: _flag,
    Type.TIME: time,
    Type.LATITUDE: lambda raw, how, _: number(raw),
    Type.LONGITUDE: lambda raw, how, _: number(raw),
}
_SAID = {
    Type.ID: "an id",
    Type.TEXT: "text",
    Type.NUMBER: "a number",
    Type.MINUTES: "a number",
    Type.FLAG: "yes or no",
    Type.TIME: "a time",
    Type.LATITUDE: "a number",
    Type.LONGITUDE: "a number",
}
_BOUNDS = {
    Type.LATITUDE: (-90.0, 90.0),
    Type.LONGITUDE: (-180.0, 180.0),
    Type.MINUTES: (0.0, 100_000.0),
}
