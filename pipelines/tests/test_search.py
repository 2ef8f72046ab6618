"""Searches of the city, files of retrieval sets, and how rankings are judged."""

import numpy as np
import polars as pl
import pytest

from madang_pipelines.city.names import CATEGORIES
from madang_pipelines.search.documents import save_documents, shop_documents, upserts
from madang_pipelines.search.evaluation import bootstrap, ndcg, recall
from madang_pipelines.search.training import search_pairs
from madang_pipelines.sources.retrieval import (
    read_cranfield,
    read_offers,
    read_paraphrases,
    read_sentence_pairs,
)
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import FULL, SMALL, TOKENIZER


def test_searches_come_before_orders_and_say_what_was_wanted(city):
    searches, actions = city.tables.frames["searches"], city.tables.frames["actions"]
    orders = actions.filter(pl.col("type") == "order")
    assert 0.25 < len(searches) / len(orders) < 0.45
    joined = searches.with_columns(pl.col("time") + 120_000).join(
        orders, ["user_id", "time", "period"], how="semi"
    )
    assert len(joined) == len(searches)
    assert searches["item_id"].str.starts_with("s").all()  # who clicks an ad orders from its shop
    items = city.tables.frames["items"]
    kinds = searches.join(items, "item_id", maintain_order="left")["category_name"]
    by_name = {kind.korean: kind for kind in CATEGORIES}
    plain = [
        query
        for query, kind in zip(searches["query"], kinds, strict=True)
        if query in (*by_name[kind].asked, *by_name[kind].menu, by_name[kind].english.lower())
    ]
    assert 0.4 < len(plain) / len(searches) < 0.8


def test_a_shop_is_a_document(city):
    shops = shop_documents(city.tables)
    items = city.tables.frames["items"].filter(pl.col("kind") == 1)
    assert shops["document_id"].to_list() == items["item_id"].to_list()
    first, row = upserts(shops.head(1))[0], items.row(0, named=True)
    assert (first.document_id, first.title) == (row["item_id"], row["name"])
    assert set(row["menu"]) <= set(first.body.split("\n"))
    assert (first.place.latitude, first.open_hours) == (row["latitude"], row["open_hours"])
    assert shops["popularity"].sum() > 0


def test_documents_that_are_no_more_are_told(city, tmp_path):
    shops, path = shop_documents(city.tables), tmp_path / "features" / "documents.parquet"
    save_documents(shops, path)
    save_documents(shops.slice(3), path)
    saved = pl.read_parquet(path)
    assert saved.filter("gone")["document_id"].to_list() == shops["document_id"].head(3).to_list()
    assert len(saved) == len(shops)


def test_pairs_are_of_the_past_and_negatives_of_a_kind_that_nobody_took(city):
    queries, positives, negatives = search_pairs(city.tables, most=300)
    assert len(queries) == len(positives) == len(negatives)
    items = city.tables.frames["items"].select("item_id", "category_name")
    past = city.tables.frames["searches"].filter(pl.col("period") < city.tables.test_period)
    led = past.join(items, "item_id").group_by("query").agg("category_name")
    taken = {query: set(kinds) for query, kinds in led.iter_rows()}
    # The second line of a text is the kind.
    rows = [
        (query, *(text.split("\n")[1] for text in texts))
        for query, *texts in zip(queries, positives, negatives, strict=True)
    ]
    assert all(good in taken[query] and bad not in taken[query] for query, good, bad in rows)
    latest = iter(past.sort("time")["query"].tail(300))
    assert all(query in latest for query in queries), "in the order of time"
    assert 250 < len(queries) < 300, "no shop is wrong for some"


def test_a_version_of_the_encoder_has_its_own_thresholds(workspace):
    registry = workspace.registry
    manifest = registry.manifest(ENCODER, registry.resolve(ENCODER))
    assert set(manifest.files) == {FULL, SMALL, TOKENIZER}
    found = manifest.parameters
    assert 0.05 <= found["nearest"] < found["near"] < found["intent_threshold"] < 0.9


def test_offers(tmp_path):
    lines = {
        "train": "COL title VAL red shoe COL price VAL 9 \t"
        "COL title VAL shoe red COL brand VAL x \t1",
        "valid": "COL title VAL hat \tCOL title VAL shoe red COL brand VAL x \t0",
        "test": "COL title VAL hat \tCOL title VAL a hat COL price VAL  \t1",
    }
    for name, line in lines.items():
        (tmp_path / f"{name}.txt").write_text(line + "\n", "utf-8")
    found = read_offers(tmp_path)
    assert (found.titles, found.bodies) == (["shoe red", "a hat"], ["x", ""])
    assert found.queries == ["red shoe", "hat"]
    assert found.relevant == [{0: 1}, {1: 1}]
    assert (found.of("train"), found.of("test"), found.of("valid")) == ([0], [1], [])


def test_cranfield(tmp_path):
    (tmp_path / "cran.all.1400").write_text(
        ".I 1\n.T\nflow of\nair\n.A\nx\n.B\ny\n.W\nabout air .\n.I 2\n.T\nheat\n.A\n.B\n.W\n",
        "utf-8",
    )
    (tmp_path / "cran.qry").write_text(".I 001\n.W\nair\n.I 004\n.W\nheat\n", "utf-8")
    (tmp_path / "cranqrel").write_text("1 1 2\n2 2 -1\n2 1 4\n", "utf-8")
    found = read_cranfield(tmp_path)
    assert (found.titles, found.bodies) == (["flow of air", "heat"], ["about air .", ""])
    assert (found.queries, found.relevant) == (["air", "heat"], [{0: 3}, {0: 1}])
    assert found.split == ["valid", "test"]


def test_sentence_pairs_and_paraphrases(tmp_path):
    path = tmp_path / "sts.tsv"
    path.write_text('score\tsentence1\tsentence2\n5.000\t"가\t나\n2.5\t다\t라\n', "utf-8")
    found = read_sentence_pairs(path)
    assert (found.first, found.second) == (['"가', "다"], ["나", "라"])
    assert found.scores.tolist() == [1.0, 0.5]
    path.write_text("".join(f"0\t1\t문장 {i}\n" for i in range(20)), "utf-8")
    groups = read_paraphrases(path)
    assert [len(group) for group in groups] == [10, 10]
    assert groups[1][0] == "문장 10"


def test_ndcg_and_recall_by_hand():
    relevant = {7: 3, 8: 1}
    ideal = 7 + 1 / np.log2(3)
    assert ndcg([7, 8], relevant) == pytest.approx(1)
    assert ndcg([8, 0, 7], relevant) == pytest.approx((1 + 7 / 2) / ideal)
    assert ndcg([0, 1], relevant) == 0
    assert ndcg([8, 7], relevant, k=1) == pytest.approx(1 / 7)
    assert (recall([7, 0], relevant), recall([], relevant)) == (0.5, 0)
    assert (ndcg([1], {}), recall([1], {})) == (0, 0)


def test_the_bootstrap_holds_the_mean():
    found = bootstrap(np.array([0.1, 0.2, 0.3, 0.2]))
    assert found.mean == pytest.approx(0.2)
    assert found.low < 0.2 < found.high
    assert bootstrap(np.zeros(5)) == (0, 0, 0)
