"""Searches as keywords, and what people did before them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang.feature.v1 import feature_store_pb2
from madang_pipelines.tables import Tables
from madang_search.keywords.model import keyword_text
from madang_search.keywords.sequence import Sequences

KEYWORDS, LONGEST = 500, 8
"""Keywords that are recommended, the most searched ones; and the latest actions that count."""
_WITHIN_MS = 3_600_000  # as far as the feature store lists actions
_KINDS = {
    "click": feature_store_pb2.ACTION_TYPE_CLICK,
    "order": feature_store_pb2.ACTION_TYPE_ORDER,
    "search": feature_store_pb2.ACTION_TYPE_SEARCH,
}


@dataclass(frozen=True)
class KeywordLog:
    """Who searched for which keyword.

    Attributes:
        tables: that it is from.
        keywords: the most searched, the most searched first.
        popularity: of each, searches before the held-out period, [K].
        items: ids, by which items are known.
        searches: one row a search for a keyword, by time: user_id, keyword (its row), time,
            item_id, period.
    """

    tables: Tables
    keywords: list[str]
    popularity: NDArray[np.int64]
    items: list[str]
    searches: pl.DataFrame

    def nodes(self, items: pl.Series) -> pl.Series:
        """Rows of items in the table of nodes: after nothing and the keywords."""
        first = 1 + len(self.keywords)
        return items.replace_strict(
            self.items, range(first, first + len(self.items)), default=0, return_dtype=pl.Int64
        )


def keyword_log(tables: Tables, most: int = KEYWORDS) -> KeywordLog:
    """The searches of tables. Which are keywords, and how popular, is of before the held-out
    period."""
    found = (
        tables.frames["searches"]
        .with_columns(
            query=pl.Series(map(keyword_text, tables.frames["searches"]["query"]), dtype=pl.String)
        )
        .filter(pl.col("query") != "")
    )
    counts = (
        found.filter(pl.col("period") < tables.test_period)
        .group_by("query")
        .len()
        .sort("len", "query", descending=[True, False])
        .head(most)
    )
    keywords = counts["query"].to_list()
    rows = pl.DataFrame({"query": keywords}, schema={"query": pl.String}).with_row_index("keyword")
    searches = found.join(rows, "query", maintain_order="left").select(
        "user_id", pl.col("keyword").cast(pl.Int64), "time", "item_id", "period"
    )
    return KeywordLog(
        tables,
        keywords,
        counts["len"].to_numpy().astype(np.int64),
        tables.frames["items"]["item_id"].to_list(),
        searches.sort("time"),
    )


def sequences(log: KeywordLog, periods: Sequence[int]) -> Sequences:
    """The searches of some periods that have actions within the hour before them."""
    actions = pl.concat(
        [
            log.tables.frames["actions"].select(
                "user_id",
                "time",
                kind=pl.col("type").replace_strict(_KINDS, default=0, return_dtype=pl.Int64),
                node=log.nodes(log.tables.frames["actions"]["item_id"]),
            ),
            log.searches.select(
                "user_id",
                "time",
                kind=pl.lit(int(_KINDS["search"]), pl.Int64),
                node=pl.col("keyword") + 1,
            ),
        ]
    ).filter(pl.col("kind") > 0, pl.col("node") > 0)
    asked = log.searches.filter(pl.col("period").is_in(periods)).with_row_index("search")
    # By the hour first: some users did more than all others together.
    hour = pl.col("time") // _WITHIN_MS
    before = (
        asked.select("search", "user_id", asked="time", hour=pl.concat_list(hour - 1, hour))
        .explode("hour")
        .join(actions.with_columns(hour=hour), ["user_id", "hour"])
        .filter(pl.col("time") < pl.col("asked"), pl.col("time") >= pl.col("asked") - _WITHIN_MS)
        .sort("search", "time", "node")
        .group_by("search", maintain_order=True)
        .agg(pl.col("node", "kind").tail(LONGEST))
    )
    nodes = np.zeros((len(before), LONGEST), np.int64)
    kinds = np.zeros_like(nodes)
    for row, (some_nodes, some_kinds) in enumerate(before.select("node", "kind").iter_rows()):
        nodes[row, LONGEST - len(some_nodes) :] = some_nodes
        kinds[row, LONGEST - len(some_kinds) :] = some_kinds
    return Sequences(nodes, kinds, asked["keyword"].to_numpy()[before["search"].to_numpy()])
