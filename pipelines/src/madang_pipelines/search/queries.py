"""From searches to what became of each query: how far people agree on it, and what they took."""

import json

import polars as pl

from madang_pipelines.tables import Tables
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_search.blocks import queries
from madang_search.keywords.model import keyword_text
from madang_search.settings import QUERIES

FEWEST = 5
"""Searches below which they say little of what a query means."""
_MOST, _DOCUMENTS = 2000, 20


def train_queries(tables: Tables, registry: ModelRegistry) -> str | None:
    """Count the searches before the held-out period and make the version champion; without any
    there is none, nor a champion any more.

    Returns:
        the version.
    """
    known = query_outcomes(tables, tables.test_period)
    if not len(known):
        registry.remove_alias(QUERIES, CHAMPION)
        return None
    version = registry.register(
        QUERIES,
        {queries.QUERIES: as_json(known)},
        parameters={"fewest": FEWEST, "data": tables.name},
    )
    registry.set_alias(QUERIES, CHAMPION, version)
    return version


def query_outcomes(tables: Tables, before: int) -> pl.DataFrame:
    """What became of the most frequent queries in the periods before one.

    Returns:
        text, searches, entropy in bits (of the items taken), categories and documents: structs of
        `key` and `share` or `count`, the largest first.
    """
    items = tables.frames["items"].select("item_id", category=pl.col("category_name").fill_null(""))
    found = (
        tables.frames["searches"]
        .filter(pl.col("period") < before)
        .join(items, "item_id")
        .with_columns(text=pl.col("query").map_elements(keyword_text, pl.String))
        .filter(pl.col("text") != "")
    )
    share = pl.col("count") / pl.col("count").sum()
    taken = _counts(found, "item_id")
    documents = taken.group_by("text").agg(
        searches=pl.col("count").sum(),
        entropy=-(share * share.log(2)).sum() + 0.0,
        documents=pl.struct("key", "count").head(_DOCUMENTS),
    )
    categories = (
        _counts(found, "category").group_by("text").agg(categories=pl.struct("key", share=share))
    )
    return (
        documents.filter(pl.col("searches") >= FEWEST)
        .sort("searches", "text", descending=[True, False])
        .head(_MOST)
        .join(categories, "text", maintain_order="left")
    )


def as_json(known: pl.DataFrame) -> bytes:
    """Outcomes as `QueryBook` reads them."""
    rows = {
        row["text"]: {
            "entropy": round(row["entropy"], 3),
            "categories": {one["key"]: round(one["share"], 4) for one in row["categories"]},
            "documents": {one["key"]: one["count"] for one in row["documents"]},
        }
        for row in known.iter_rows(named=True)
    }
    return json.dumps(rows, ensure_ascii=False).encode()


def _counts(found: pl.DataFrame, what: str) -> pl.DataFrame:
    """How often each text led to each of something, the most frequent first."""
    counts = found.group_by("text", key=what).agg(count=pl.len())
    return counts.sort("count", "key", descending=[True, False])
