"""The data-quality gate: what data must be like before anything is trained on it.

Rules are YAML, a table's columns by name:

    least_rows: 1000
    columns:
      order_id: {unique: true}
      delivery: {nulls: 0.05, least: 0, most: 240}
      service: {among: [standard, express]}
    rules:
      - {name: delivered after pickup, where: "delivery > 0"}

A row that breaks a rule is set aside; a table of which too many rows do is refused.
"""

from importlib.resources import files
from pathlib import Path

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field

from madang_pipelines.tables import Rejected


class ColumnRules(BaseModel):
    """What a column must be like.

    Attributes:
        dtype: of polars, such as "Float64"; "" takes any.
        nulls: share of rows that may have none; nulls are set aside only where this is 0.
        least, most: of its values; NaN and infinite ones never pass.
        among: what there may be.
        unique: whether none may be there twice.
    """

    model_config = ConfigDict(extra="forbid")

    dtype: str = ""
    nulls: float = Field(0.0, ge=0, le=1)
    least: float | None = None
    most: float | None = None
    among: list[str] | None = None
    unique: bool = False


class RowRule(BaseModel):
    """An expression in polars' SQL that holds in each row; null counts as held."""

    model_config = ConfigDict(extra="forbid")

    name: str
    where: str


class TableRules(BaseModel):
    """The rules of one table.

    Attributes:
        least_rows: fewer, once bad rows are set aside, are refused.
        failing: share of rows that may break a rule; more are refused.
    """

    model_config = ConfigDict(extra="forbid")

    least_rows: int = 1
    failing: float = Field(0.02, ge=0, le=1)
    columns: dict[str, ColumnRules] = {}
    rules: list[RowRule] = []


class GateError(ValueError):
    """A table was refused; the message says by which rule, and how many rows."""


def load_rules(name: str) -> TableRules:
    """The rules of a table that come with this package."""
    return read_rules(Path(str(files("madang_pipelines") / "rules" / f"{name}.yaml")))


def read_rules(path: Path) -> TableRules:
    """Rules from a file. Raises: pydantic's error."""
    return TableRules.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def check(name: str, frame: pl.DataFrame, rules: TableRules) -> tuple[pl.DataFrame, Rejected]:
    """The rows that hold all rules, and what was set aside, by its row counted from 1.

    Raises:
        GateError: a column is missing or of another type, too many rows break a rule, or too few
            are left.
    """
    rejected = Rejected(name, read=len(frame))
    good = pl.Series([True] * len(frame), dtype=pl.Boolean)
    for column, wanted in rules.columns.items():
        if column not in frame.columns:
            raise GateError(f"{name}: has no column {column!r}")
        found = str(frame.schema[column])
        if wanted.dtype and found != wanted.dtype:
            raise GateError(f"{name}.{column}: is {found}, must be {wanted.dtype}")
        for rule, broken in _column_rules(frame[column], wanted):
            good &= _judge(f"{name}.{column}", rule, broken, rules.failing, rejected)
        if wanted.nulls and frame[column].null_count() > wanted.nulls * len(frame):
            share = frame[column].null_count() / len(frame)
            raise GateError(
                f"{name}.{column}: {share:.1%} of {len(frame):,} rows are null, at most "
                f"{wanted.nulls:.1%} may be"
            )
    for row_rule in rules.rules:
        held = frame.select(pl.sql_expr(row_rule.where).fill_null(True).alias("held"))["held"]
        good &= _judge(name, row_rule.name, ~held, rules.failing, rejected)
    kept = frame.filter(good)
    if len(kept) < rules.least_rows:
        raise GateError(f"{name}: {len(kept):,} good rows, needs at least {rules.least_rows:,}")
    return kept, rejected


def _column_rules(column: pl.Series, wanted: ColumnRules) -> list[tuple[str, pl.Series]]:
    """Each rule's name and which rows break it."""
    found = []
    if not wanted.nulls:
        found.append(("is null", column.is_null()))
    if column.dtype.is_float():
        found.append(("is not finite", ~column.is_finite()))
        column = column.fill_nan(None)
    if wanted.least is not None:
        found.append((f"is below {wanted.least:g}", column < wanted.least))
    if wanted.most is not None:
        found.append((f"is above {wanted.most:g}", column > wanted.most))
    if wanted.among is not None:
        found.append((f"is none of {', '.join(wanted.among)}", ~column.is_in(wanted.among)))
    if wanted.unique:
        found.append(("is there twice", ~column.is_first_distinct()))
    return [(rule, broken.fill_null(False)) for rule, broken in found]


def _judge(
    where: str, rule: str, broken: pl.Series, allowed: float, rejected: Rejected
) -> pl.Series:
    """Note the rows that break a rule, and return the others. Raises: GateError."""
    rows = broken.arg_true().to_list()
    if len(rows) > allowed * len(broken):
        raise GateError(
            f"{where}: {rule} in {len(rows):,} of {len(broken):,} rows, the first in row "
            f"{rows[0] + 1}; at most {allowed:.1%} may be"
        )
    for row in rows:
        rejected.reject(row + 1, f"{where.rpartition('.')[2]} {rule}")
    return ~broken
