"""The mapping: which columns of which files are what.

    name: couriers
    orders:
      files: orders.csv.gz
      join: [{files: riders.csv, by: Rider Id}]
      columns:
        order: Order No
        time: {column: Pickup - Time, format: "%I:%M:%S %p"}
        minutes: {column: Seconds to Arrival, unit: seconds}
      numbers: [Distance (KM)]
      categories: [Platform Type]

A column is a name, a position from 0 where files have no header, or a mapping; see `Column`. What
each table may have stands in `TABLES`. Files are beside the mapping, or in the folder that is given
with it.
"""

from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Format = Literal["csv", "parquet", "jsonl", "json", "lists", "ditto", "smart", "trec"]
Splits = Literal["train", "valid", "test"]


class MappingError(ValueError):
    """A mapping, or what it says of its files, is wrong; the message says what and where."""


class Type(Enum):
    """What the values of a column are."""

    ID = "id"
    TEXT = "text"
    NUMBER = "number"
    MINUTES = "minutes"
    FLAG = "yes or no"
    TIME = "time"
    LATITUDE = "latitude"
    LONGITUDE = "longitude"


_PLACE = {"latitude": Type.LATITUDE, "longitude": Type.LONGITUDE}
_ORIGIN = {f"origin_{name}": kind for name, kind in _PLACE.items()}
TABLES: dict[str, dict[str, Type]] = {
    # A row what a user did: with a time, or without.
    "interactions": {"user": Type.ID, "item": Type.ID, "time": Type.TIME, **_PLACE},
    # A row what was shown, and whether it was clicked.
    "clicks": {"label": Type.FLAG},
    # A row a document, a query, and how well (1 and up; 0 not at all) one answers the other.
    "documents": {
        "document": Type.ID,
        "title": Type.TEXT,
        "text": Type.TEXT,
        "category": Type.TEXT,
        "popularity": Type.NUMBER,
        **_PLACE,
    },
    "queries": {"query": Type.ID, "text": Type.TEXT},
    "judgements": {"query": Type.ID, "document": Type.ID, "grade": Type.NUMBER},
    # A row a query and a document with their texts, and whether one answers the other.
    "pairs": {
        "query": Type.TEXT,
        "title": Type.TEXT,
        "text": Type.TEXT,
        "label": Type.FLAG,
    },
    # A row two sentences, and how alike people find them, from 0 to 1.
    "alike": {"first": Type.TEXT, "second": Type.TEXT, "score": Type.NUMBER},
    # A row a way to say what is meant.
    "intents": {"intent": Type.ID, "phrase": Type.TEXT},
    # A row an order that arrived: after so many minutes, or so many in each stage.
    "orders": {
        "order": Type.ID,
        "user": Type.ID,
        "shop": Type.ID,
        "courier": Type.ID,
        "service": Type.TEXT,
        "category": Type.TEXT,
        "time": Type.TIME,
        **_ORIGIN,
        **_PLACE,
        "distance_km": Type.NUMBER,
        "minutes": Type.MINUTES,
        "dispatch": Type.MINUTES,
        "pickup": Type.MINUTES,
        "delivery": Type.MINUTES,
    },
    # A row a user and a campaign: whether they were told, and what they did.
    "sends": {
        "user": Type.ID,
        "campaign": Type.ID,
        "group": Type.TEXT,
        "channel": Type.TEXT,
        "time": Type.TIME,
        "told": Type.FLAG,
        "clicked": Type.FLAG,
        "ordered": Type.FLAG,
    },
    "users": {"user": Type.ID, **_PLACE},
    "items": {
        "item": Type.ID,
        "name": Type.TEXT,
        "text": Type.TEXT,
        "category": Type.TEXT,
        "price": Type.NUMBER,
        **_PLACE,
    },
}
"""The tables, and the columns that each may have."""
NEEDED: dict[str, tuple[str, ...]] = {
    "interactions": ("user", "item"),
    "clicks": ("label",),
    "documents": ("document",),
    "queries": ("query", "text"),
    "judgements": ("query", "document"),
    "pairs": ("query", "title"),
    "alike": ("first", "second", "score"),
    "intents": ("intent", "phrase"),
    "orders": (),
    "sends": ("clicked",),
    "users": ("user",),
    "items": ("item",),
}
"""The columns that each must have."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Column(_Strict):
    """Where a column comes from, and how to read it.

    Attributes:
        column: its name in the files, or its position from 0.
        sql: instead, an expression in polars' SQL over all columns, which are text; `line` is the
            line number.
        value: instead, one value for all rows.
        values: what is written → what it means, such as {"Y": true}; the rest is set aside.
        otherwise: with `values`, what the rest means.
        format: of times, as strptime has it; "" takes ISO 8601 and unix seconds or milliseconds.
        weekday: of times without a date, the column of the weekday (Monday is 1).
        unit: of minutes, what they are counted in.
        scale: numbers are multiplied by it.
    """

    column: str | int | None = None
    sql: str = ""
    value: str | float | bool | None = None
    values: dict[str, str | float | bool] = {}
    otherwise: str | float | bool | None = None
    format: str = ""
    weekday: str | int | None = None
    unit: Literal["seconds", "minutes", "hours", "milliseconds"] = "minutes"
    scale: float = 1.0

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, str | int):
            return {"column": given}
        if isinstance(given, dict) and isinstance(given.get("values"), dict):
            names = {True: "yes", False: "no"}  # as which YAML reads these words
            values = {names.get(k, str(k)): v for k, v in given["values"].items()}
            return {**given, "values": values}
        return given

    @model_validator(mode="after")
    def _one_source(self) -> "Column":
        given = [self.column is not None, bool(self.sql), self.value is not None]
        if sum(given) != 1:
            raise ValueError("give one of column, sql and value")
        return self


class Files(_Strict):
    """Files of rows, one after the other.

    Attributes:
        files: names or patterns; or by part ("train", "valid", "test"), where the split is given.
        format: unset is told by the name: .csv, .tsv, .txt, .jsonl, .json or .parquet, each also
            as .gz, .bz2 or .zst. "lists" has lines of a user and their items, "ditto" lines of two
            records (COL name VAL value …) and 0 or 1, "smart" records of .I .T .W, "trec" <DOC>s.
        member: of a .zip, the end of the name of the file to read.
        separator: of CSV; unset is guessed. " " is any white space.
        header: whether the first line has the columns' names.
        quote: of CSV; "" where quotes mean nothing.
        encoding: of text.
        beside: with "lists", files of the same users with the times of their items.
    """

    files: str | list[str] | dict[Splits, str | list[str]]
    format: Format | None = None
    member: str = ""
    separator: str = ""
    header: bool = True
    quote: str = '"'
    encoding: str = "utf-8"
    beside: str | dict[Splits, str] | None = None

    def parts(self) -> list[tuple[str, str]]:
        """Part ("" where none is given) and name of each entry of `files`."""
        found = self.files if isinstance(self.files, dict) else {"": self.files}
        return [
            (part, name)
            for part in ("", *get_args(Splits))
            if (names := found.get(part))
            for name in ([names] if isinstance(names, str) else names)
        ]


class Join(Files):
    """More columns for each row, from the first row of other files that has the same `by`."""

    by: str


class TableMapping(Files):
    """A table.

    Attributes:
        join: more columns.
        where: an expression in polars' SQL; rows for which it does not hold are left out.
        columns: of the table, by its names.
        numbers, categories: further columns that models may read, by their names in the files.
        user: with clicks, which of these tell of the user and the moment; the others, of the item.
    """

    join: list[Join] = []
    where: str = ""
    columns: dict[str, Column] = {}
    numbers: list[str | int] = []
    categories: list[str | int] = []
    user: list[str | int] = []


class Mapping(_Strict):
    """A data set.

    Attributes:
        name: what reports call it.
        utc_offset_hours: of local time; unset follows from the longitude.
        the rest: a table each, see `TABLES`.
    """

    name: str
    utc_offset_hours: float | None = None
    interactions: TableMapping | None = None
    clicks: TableMapping | None = None
    documents: TableMapping | None = None
    queries: TableMapping | None = None
    judgements: TableMapping | None = None
    pairs: TableMapping | None = None
    alike: TableMapping | None = None
    intents: TableMapping | None = None
    orders: TableMapping | None = None
    sends: TableMapping | None = None
    users: TableMapping | None = None
    items: TableMapping | None = None
    folder: Path = Field(Path(), exclude=True)

    def tables(self) -> dict[str, TableMapping]:
        """Those that are there, by name."""
        return {name: own for name in TABLES if (own := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _known_columns(self) -> "Mapping":
        if not self.tables():
            raise ValueError(f"has no table; there may be {', '.join(TABLES)}")
        for name, own in self.tables().items():
            if unknown := sorted(set(own.columns) - set(TABLES[name])):
                raise ValueError(
                    f"{name} has no column {', '.join(unknown)}; it may have "
                    f"{', '.join(TABLES[name])}, and any under numbers and categories"
                )
            given = {*own.columns} | ({"user", "item", "time"} if own.format == "lists" else set())
            if missing := [column for column in NEEDED[name] if column not in given]:
                raise ValueError(f"{name} needs the column {', '.join(missing)}")
        return self


def read_mapping(path: Path, folder: Path | None = None) -> Mapping:
    """A mapping from a file; `folder` is where its files are, unset beside it.

    Raises:
        MappingError: it can't be read as one.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = Mapping.model_validate(raw)
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"{path}: {error}") from error
    except yaml.YAMLError as error:
        raise MappingError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise MappingError(f"{path} is no mapping:\n  " + "\n  ".join(lines)) from error
    found.folder = folder or path.parent
    return found
