"""What became of queries."""

import polars as pl
import pytest

from madang_pipelines.search.queries import query_outcomes, train_queries
from madang_pipelines.tables import Tables
from madang_runtime.models.registry import ModelRegistry
from madang_search.blocks.queries import QueryBook
from madang_search.settings import QUERIES


@pytest.fixture(scope="module")
def shops(city):
    """A shop of each of three kinds."""
    items = city.tables.frames["items"].filter(kind=1)
    return [items.filter(category_name=name)["item_id"][0] for name in ("치킨", "피자", "회")]


@pytest.fixture(scope="module")
def tables(city, shops):
    """Searches of the small city's people, as written here."""
    chicken, pizza, fish = shops
    led = [
        *[("저녁", chicken, 0)] * 4,
        *[(" 저녁 ", pizza, 1)] * 2,
        ("저녁", fish, 1),
        ("저녁", pizza, city.tables.test_period - 1),
        *[("저녁", fish, city.tables.test_period)] * 9,
        *[("드문", chicken, 0)] * 4,
        *[("  ", chicken, 0)] * 9,
    ]
    rows = [
        {"user_id": "u00001", "query": query, "time": 0, "item_id": item, "period": period}
        for query, item, period in led
    ]
    frames = city.tables.frames | {"searches": pl.DataFrame(rows)}
    return Tables("written", frames, city.tables.clock, city.tables.periods)


def test_what_was_taken_before_a_period(tables, shops):
    chicken, pizza, fish = shops
    (row,) = query_outcomes(tables, tables.test_period).to_dicts()
    assert (row["text"], row["searches"]) == ("저녁", 8)
    assert row["entropy"] == pytest.approx(1.40564, abs=1e-5)  # of 4, 3 and 1
    taken = [(one["key"], one["count"]) for one in row["documents"]]
    assert taken == [(chicken, 4), (pizza, 3), (fish, 1)]
    shares = [(one["key"], one["share"]) for one in row["categories"]]
    assert shares == [("치킨", 0.5), ("피자", 0.375), ("회", 0.125)]


def test_a_version_serves_what_was_counted(tables, shops, tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    version = train_queries(tables, registry)
    book = QueryBook(registry.load(QUERIES, registry.resolve(QUERIES)))
    assert (book.version.version, book.texts) == (version, ["저녁"])
    known = book.get("저녁")
    assert known.entropy == pytest.approx(1.406)
    assert known.categories == {"치킨": 0.5, "피자": 0.375, "회": 0.125}
    assert list(known.documents.values()) == [4, 3, 1]
    assert book.get("드문") is None, "too few searched for it"


def test_without_searches_there_is_no_version(tables, tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    train_queries(tables, registry)
    none = tables.frames | {"searches": tables.frames["searches"].head(0)}
    assert train_queries(Tables("none", none, tables.clock, tables.periods), registry) is None
    assert not registry.has_alias(QUERIES)
