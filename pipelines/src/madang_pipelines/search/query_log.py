"""What became of searches, from the logs of svc-search and of feedback."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from madang_pipelines.sources.decision_log import read_log

_UNANSWERED = ("NEAREST", "POPULAR")


@dataclass(frozen=True)
class SearchReport:
    """Reports on searches; shares are in [0, 1]. Only first pages count.

    Attributes:
        k: positions that count for click-through.
        totals: one row, the columns of `queries` but over all searches.
        queries: one row a query (in small letters): query, searches; unanswered (no document
            has its words or is near), corrected, degraded: shares of them; median and slowest,
            in milliseconds; clicked and ordered: shares of which something among the first k was
            (CTR@k); reciprocal_rank: mean of 1 / position of the first click, 0 for none;
            click_entropy in bits: 0 when all click the same document (Dou et al., 2007), null
            without clicks.
    """

    k: int
    totals: pl.DataFrame
    queries: pl.DataFrame


def report_searches(folder: Path, feedback: Path | None = None, k: int = 10) -> SearchReport:
    """Read the logs `searches` and `feedback`, Parquet files by date, below a folder. Feedback
    belongs to a search by its request_id.

    Args:
        folder: of the logs.
        feedback: that log, where it is elsewhere.
        k: positions that count for click-through.

    Raises:
        ValueError: there is no log of searches.
    """
    searches = (
        read_log(folder / "searches", _COLUMNS)
        .filter(pl.col("first_position") == 1)
        .with_columns(pl.col("query").str.strip_chars().str.to_lowercase())
    )
    told = _acted_on(searches, _feedback(feedback or folder / "feedback"))
    first = told.group_by("search_id").agg(
        clicked=(pl.col("type") == "CLICK").and_(pl.col("position") <= k).any(),
        ordered=(pl.col("type") == "CONVERSION").and_(pl.col("position") <= k).any(),
        first=pl.col("position").filter(pl.col("type") == "CLICK").min(),
    )
    joined = searches.join(first, "search_id", how="left")
    entropies = _click_entropies(told)
    queries = joined.group_by("query").agg(_measures()).join(entropies, "query", how="left")
    return SearchReport(
        k, joined.select(_measures()), queries.sort("searches", "query", descending=[True, False])
    )


_COLUMNS = (
    "search_id",
    "query",
    "first_position",
    "document_ids",
    "fallback",
    "degraded",
    "milliseconds",
)


def _feedback(folder: Path) -> pl.DataFrame:
    """Unique events; none where nothing was ever fed back."""
    columns = ("event_id", "request_id", "item_id", "type")
    if not any(folder.glob("**/*.parquet")):
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return read_log(folder, columns).unique("event_id")


def _acted_on(searches: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """What was clicked and ordered of what was found: search_id, query, item_id, type, position."""
    shown = (
        searches.filter(pl.col("search_id").is_in(events["request_id"].implode()))
        .select("search_id", "query", item_id="document_ids")
        .with_columns(position=pl.int_ranges(1, pl.col("item_id").list.len() + 1))
        .explode("item_id", "position")
    )
    return shown.join(
        events.rename({"request_id": "search_id"}), ["search_id", "item_id"], how="inner"
    )


def _measures() -> list[pl.Expr]:
    milliseconds = pl.col("milliseconds")
    return [
        pl.len().alias("searches"),
        pl.col("fallback").is_in(_UNANSWERED).mean().alias("unanswered"),
        (pl.col("fallback") == "CORRECTED").mean().alias("corrected"),
        (pl.col("degraded").list.len() > 0).mean().alias("degraded"),
        milliseconds.median().alias("median"),
        milliseconds.max().alias("slowest"),
        pl.col("clicked").fill_null(value=False).mean(),
        pl.col("ordered").fill_null(value=False).mean(),
        (1 / pl.col("first")).fill_null(0).mean().alias("reciprocal_rank"),
    ]


def _click_entropies(told: pl.DataFrame) -> pl.DataFrame:
    clicks = told.filter(pl.col("type") == "CLICK").group_by("query", "item_id").len()
    share = pl.col("len") / pl.col("len").sum()
    return clicks.group_by("query").agg(click_entropy=-(share * share.log(2)).sum() + 0.0)
