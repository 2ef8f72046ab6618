"""Files of many formats as rows of text, with the number of each line."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv

from madang_pipelines.imports.mapping import Files, Format, MappingError
from madang_pipelines.tables import Rejected

_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
_PACKED = (".gz", ".bz2", ".zst", ".zip")
_SEPARATORS = ",\t;|"
_DITTO = re.compile(r"COL (\S+) VAL (.*?)(?= COL |$)")
_TREC = re.compile(r"<DOC>(.*?)</DOC>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<(\w+)>(.*?)(?=</?\w+>|$)", re.DOTALL)
_SMART = {"T": "title", "A": "author", "B": "source", "W": "text"}


@dataclass(frozen=True)
class Raw:
    """What a file has.

    Attributes:
        frame: n rows; of formats of text all columns are text.
        lines: the number of each row's line, counted from 1.
        rejected: lines that are no rows.
    """

    frame: pl.DataFrame
    lines: pl.Series
    rejected: Rejected


def read_file(path: Path, how: Files, beside: Path | None = None) -> Raw:
    """Read a file.

    Raises:
        MappingError: it can't be read at all; the message says why.
    """
    rejected = Rejected(path.name)
    try:
        text = _open(path, how)
        kind = how.format or _kind(path, how.member)
        if kind == "parquet":
            frame = pl.read_parquet(text)
            rejected.read = len(frame)
            return Raw(frame, _numbers(len(frame)), rejected)
        if kind == "csv":
            return _csv(text, how, path, rejected)
        if kind == "json":
            return _json(text, rejected)
        decoded = text.read().decode(how.encoding)
        if kind == "lists":
            times = beside.read_text(how.encoding) if beside else None
            return _lists(decoded, times, rejected)
        return _READERS[kind](decoded, rejected)
    except UnicodeDecodeError as error:
        raise MappingError(f"{path} is not {how.encoding}: {error}; give its encoding") from error
    except (OSError, EOFError, zipfile.BadZipFile, pl.exceptions.PolarsError) as error:
        raise MappingError(f"{path}: {error}") from error


def _kind(path: Path, member: str) -> Format:
    names = [s.lower() for s in Path(member or path.name).suffixes if s.lower() not in _PACKED]
    if names and (kind := _ENDINGS.get(names[-1])):
        return kind
    raise MappingError(f"{path}: its name does not tell its format; give format")


def _open(path: Path, how: Files) -> io.BytesIO:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(how.member or "")]
            names = [n for n in names if not n.endswith("/") and "__MACOSX" not in n]
            exact = [n for n in names if Path(n).name == how.member] or names
            if len(exact) != 1:
                raise MappingError(
                    f"{path}: member {how.member!r} names {len(exact)} files of "
                    f"{', '.join(archive.namelist()[:10])}"
                )
            return io.BytesIO(archive.read(exact[0]))
    with pa.input_stream(str(path), compression="detect") as stream:
        return io.BytesIO(stream.read())


def _csv(text: io.BytesIO, how: Files, path: Path, rejected: Rejected) -> Raw:
    data = text.read()
    if how.encoding.lower() not in ("utf-8", "utf8"):
        data = data.decode(how.encoding).encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise MappingError(f"{path} is empty")
    if how.separator == " ":  # any white space
        data = b"\n".join(b"\t".join(line.split()) for line in data.splitlines()) + b"\n"
    first = data[: 1 << 16].decode("utf-8", "replace")
    separator = "\t" if how.separator == " " else how.separator or guess_separator(first)
    quoting = csv.QUOTE_MINIMAL if how.quote else csv.QUOTE_NONE
    dialect = {"delimiter": separator, "quotechar": how.quote or '"', "quoting": quoting}
    head = next(csv.reader(io.StringIO(first), **dialect))  # type: ignore[arg-type]
    names = _unique(head) if how.header else [str(at) for at in range(len(head))]
    broken: dict[int, str] = {}

    def invalid(row: pyarrow.csv.InvalidRow) -> str:
        fields = row.actual_columns
        empty = fields == 1 and not row.text.strip()
        broken[row.number] = (
            "empty line" if empty else f"has {fields} fields, not {row.expected_columns}"
        )
        return "skip"

    def read(dtype: pa.DataType) -> pa.Table:
        broken.clear()
        return pyarrow.csv.read_csv(
            io.BytesIO(data),
            pyarrow.csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows=int(how.header)
            ),
            pyarrow.csv.ParseOptions(
                delimiter=separator,
                quote_char=how.quote or False,
                newlines_in_values=bool(how.quote),
                ignore_empty_lines=False,
                invalid_row_handler=invalid,
            ),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, dtype), strings_can_be_null=False
            ),
        )

    unreadable: set[int] = set()
    try:
        try:
            table = read(pa.string())
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error):
                raise
            table, unreadable = _decoded(read(pa.binary()))
    except pa.ArrowInvalid as error:
        raise MappingError(f"{path}: {error}") from error
    frame = pl.DataFrame(pl.from_arrow(table))
    total = len(frame) + len(broken)
    rejected.read = total
    start = 1 + how.header
    kept = sorted(set(range(start, start + total)) - broken.keys())
    rows, breaks = pl.Series(kept, dtype=pl.Int64), _breaks(frame)
    lines = rows + breaks.shift(1, fill_value=0)
    for number, why in sorted(broken.items()):
        before = rows.search_sorted(number)
        rejected.reject(number + (breaks[before - 1] if before else 0), why)
    empty = frame.select(pl.all_horizontal(pl.all() == "")).to_series()
    bad = empty | pl.Series([at in unreadable for at in range(len(frame))], dtype=pl.Boolean)
    for at in bad.arg_true().to_list():
        rejected.reject(lines[at], "is not UTF-8" if at in unreadable else "empty line")
    return Raw(frame.filter(~bad), lines.filter(~bad), rejected)


def guess_separator(text: str) -> str:
    """The separator of which the first lines have most, and all as many."""
    lines = [line for line in text.splitlines()[:20] if line.strip()]

    def fit(separator: str) -> tuple[bool, int]:
        counts = [line.count(separator) for line in lines[:-1] or lines]
        return min(counts, default=0) > 0, min(counts, default=0)

    return max(_SEPARATORS, key=fit)


def _unique(names: list[str]) -> list[str]:
    """Names of columns, of which none is empty or there twice."""
    found: list[str] = []
    for at, name in enumerate(name.strip() for name in names):
        free = (n for k in count(1) if (n := name if k == 1 else f"{name} {k}") not in found)
        found.append(next(free) if name else f"column {at}")
    return found


def _decoded(table: pa.Table) -> tuple[pa.Table, set[int]]:
    """Bytes as text, and the rows that are none."""
    bad: set[int] = set()
    columns = []
    for column in table.columns:
        texts = []
        for at, value in enumerate(column.to_pylist()):
            try:
                texts.append(value.decode())
            except UnicodeDecodeError:
                bad.add(at)
                texts.append("")
        columns.append(pa.array(texts, pa.string()))
    return pa.table(columns, names=table.column_names), bad


def _breaks(frame: pl.DataFrame) -> pl.Series:
    """Line breaks within the values of rows, up to each row."""
    within = frame.select(pl.sum_horizontal(pl.all().str.count_matches("\n"))).to_series()
    return within.cast(pl.Int64).cum_sum()


def _numbers(n: int) -> pl.Series:
    return pl.Series(range(1, n + 1), dtype=pl.Int64)


def _records(found: Iterator[tuple[int, dict[str, object]]], rejected: Rejected) -> Raw:
    lines, rows = [], []
    for line, row in found:
        lines.append(line)
        rows.append(row)
    frame = pl.DataFrame(rows, infer_schema_length=None, strict=False)
    return Raw(_flat(frame), pl.Series(lines, dtype=pl.Int64), rejected)


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Fields of fields as columns "outer.inner"."""
    while nested := [n for n, dtype in frame.schema.items() if isinstance(dtype, pl.Struct)]:
        frame = frame.unnest(nested, separator=".")
    return frame


def _jsonl(text: str, rejected: Rejected) -> Raw:
    def rows() -> Iterator[tuple[int, dict[str, object]]]:
        for number, line in enumerate(text.splitlines(), 1):
            rejected.read += 1
            try:
                row = json.loads(line)
            except ValueError:
                rejected.reject(number, "is not JSON" if line.strip() else "empty line")
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                rejected.reject(number, "is not an object")

    return _records(rows(), rejected)


def _json(text: io.BytesIO, rejected: Rejected) -> Raw:
    """An array of objects; their lines are their numbers."""
    try:
        found = json.load(text)
    except ValueError as error:
        raise MappingError(f"{rejected.source} is not JSON: {error}") from error
    if not isinstance(found, list):
        raise MappingError(f"{rejected.source} is not an array of objects")
    rejected.read = len(found)

    def rows() -> Iterator[tuple[int, dict[str, object]]]:
        for number, row in enumerate(found, 1):
            if isinstance(row, dict):
                yield number, row
            else:
                rejected.reject(number, "is not an object")

    return _records(rows(), rejected)


def _lists(text: str, times: str | None, rejected: Rejected) -> Raw:
    """Lines of a user and their items; a row a pair."""
    stamps: dict[str, list[str]] = {}
    for line in (times or "").splitlines():
        user, *values = line.split() or [""]
        stamps.setdefault(user, values)
    users, items, when, lines = [], [], [], []
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        rejected.read += 1
        user, *own = line.split() or [""]
        if not own:
            rejected.reject(number, "user without items" if user else "empty line")
        elif user in seen:
            rejected.reject(number, "user given twice")
        elif times is not None and len(stamps.get(user, [])) != len(own):
            rejected.reject(number, "as many items as times are needed")
        else:
            seen.add(user)
            users += [user] * len(own)
            items += own
            when += stamps.get(user, [])
            lines += [number] * len(own)
    frame = pl.DataFrame(
        {"user": users, "item": items} | ({"time": when} if times is not None else {}),
        schema_overrides={"user": pl.String(), "item": pl.String()},
    )
    return Raw(frame, pl.Series(lines, dtype=pl.Int64), rejected)


def _ditto(text: str, rejected: Rejected) -> Raw:
    """Lines of two records, COL name VAL value …, and whether they are one thing (Li et al.,
    "Deep entity matching with pre-trained language models", VLDB 2021)."""

    def rows() -> Iterator[tuple[int, dict[str, object]]]:
        for number, line in enumerate(text.splitlines(), 1):
            rejected.read += 1
            cells = line.split("\t")
            if len(cells) != 3 or not all(_DITTO.search(cell) for cell in cells[:2]):
                rejected.reject(number, "is not two records and a label")
                continue
            row: dict[str, object] = {"left": cells[0], "right": cells[1], "label": cells[2]}
            for side in ("left", "right"):
                for name, value in _DITTO.findall(str(row[side]).strip()):
                    row[f"{side}.{name}"] = value.strip()
            yield number, row

    return _records(rows(), rejected)


def _smart(text: str, rejected: Rejected) -> Raw:
    """Records of .I number, .T title, .A author, .B source and .W text, as the Cranfield
    collection has them; `position` counts them from 1, as some judgements do."""

    def rows() -> Iterator[tuple[int, dict[str, object]]]:
        row: dict[str, object] = {}
        start, field = 0, ""
        for number, line in enumerate([*text.splitlines(), ".I"], 1):
            if line.startswith(".I"):
                if row:
                    yield start, {k: str(v).strip() for k, v in row.items()}
                row = {}
                if name := line[2:].strip():
                    rejected.read += 1
                    row = {"id": name, "position": rejected.read}
                    row |= dict.fromkeys(_SMART.values(), "")
                start, field = number, ""
            elif line.strip() in (f".{letter}" for letter in _SMART):
                field = _SMART[line.strip()[1]]
            elif row and field:
                row[field] = f"{row[field]} {line.strip()}"

    return _records(rows(), rejected)


def _trec(text: str, rejected: Rejected) -> Raw:
    """<DOC>s; a column for each of their tags, in small letters."""

    def rows() -> Iterator[tuple[int, dict[str, object]]]:
        for found in _TREC.finditer(text):
            rejected.read += 1
            row: dict[str, object] = {}
            for tag, value in _TAG.findall(found[1]):
                name = tag.lower()
                row[name] = f"{row.get(name, '')} {' '.join(value.split())}".strip()
            yield text.count("\n", 0, found.start()) + 1, row

    return _records(rows(), rejected)


_READERS: dict[str, Callable[[str, Rejected], Raw]] = {
    "jsonl": _jsonl,
    "ditto": _ditto,
    "smart": _smart,
    "trec": _trec,
}
