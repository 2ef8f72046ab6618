"""Someone's documents, queries, sentences and intents, and the encoder that learns from them."""

import numpy as np
import polars as pl
import pytest
import yaml

from madang_pipelines.imports.importing import Imported
from madang_pipelines.imports.mapping import read_mapping
from madang_pipelines.own.report import OURS
from madang_pipelines.own.search_sets import (
    document_rows,
    phrases,
    retrieval_set,
    sentence_pairs,
)
from madang_pipelines.own.searches import SearchPlan
from madang_pipelines.own.training import Plans, train_own
from madang_pipelines.search.documents import upserts
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_runtime.text import ENCODER
from madang_search.train import Schedule


def table(**columns):
    return Imported(pl.DataFrame({"part": [""] * len(next(iter(columns.values())))} | columns))


def test_pairs_are_documents_once_and_queries_with_an_answer():
    data = retrieval_set(
        {
            "pairs": table(
                part=["train", "train", "test", "test", "train"],
                query=["tea", "tea", "red  wine", "red wine", "salt"],
                title=["Green tea", "Black tea", "Merlot", "Port ", "Port"],
                text=["leaves", None, "grapes", "", ""],
                label=[True, True, True, False, False],
            )
        }
    )
    assert data.titles == ["Green tea", "Black tea", "Merlot", "Port"]
    assert data.bodies == ["leaves", "", "grapes", ""]
    assert data.queries == ["tea", "red wine"]
    assert data.relevant == [{0: 1, 1: 1}, {2: 1}]
    assert data.split == ["train", "test"]


def test_judgements_name_queries_and_documents_that_are_there():
    tables = {
        "documents": table(document=["a", "b"], title=["One", ""], text=["1", "2"]),
        "queries": table(query=["q", "r", "s"], text=["first", "second", "third"]),
        "judgements": table(
            query=["q", "q", "r", "s", "x"],
            document=["a", "b", "b", "z", "a"],
            grade=[3, 0, 1, 1, 1],
        ),
    }
    data = retrieval_set(tables)
    assert data.titles == ["One", "b"], "a document without a title is called by its id"
    assert data.queries == ["first", "second"]
    assert data.relevant == [{0: 3}, {1: 1}]
    assert set(data.split) <= {"valid", "test"}, "too few to learn from"


def test_queries_without_a_split_are_drawn_into_three():
    n = 1000
    queries = [f"query {i}" for i in range(n)]
    data = retrieval_set({"pairs": table(query=queries, title=queries)})
    shares = {part: data.split.count(part) / n for part in ("train", "valid", "test")}
    assert shares == pytest.approx({"train": 0.6, "valid": 0.2, "test": 0.2})
    pairs = sentence_pairs(table(first=queries, second=queries, score=np.linspace(0, 1, n)))
    assert [len(pairs[part].first) for part in ("train", "valid", "test")] == [600, 200, 200]


def test_an_intent_keeps_a_phrase_to_be_known_by():
    own = phrases(table(intent=["a", "a", "a", "b", "c", "c"], phrase=list("uvwxyz")))
    told = {name for name, held in zip(own.intents, own.held, strict=True) if not held}
    assert told == {"a", "b", "c"}
    assert own.held.sum() == 2


def test_documents_without_a_place_go_everywhere():
    rows = document_rows(
        table(
            document=["a", "b"],
            title=["x" * 600, "y"],
            latitude=[None, 37.5],
            longitude=[None, 127.0],
            popularity=[-1.0, 3.0],
        )
    )
    first, second = upserts(rows)
    assert not first.HasField("place")
    assert (len(first.title), first.popularity) == (512, 0)
    assert second.place.latitude == 37.5


JARGON = {
    "zorvak": "soup",
    "mibelu": "cake",
    "trast": "ribs",
    "quopi": "bread",
    "felgun": "salad",
    "hasmer": "noodles",
    "lonti": "curry",
    "vedrak": "oysters",
    "ubski": "tea",
    "pagol": "cheese",
}


def write_jargon(folder):
    """People call each food by a word that no encoder knows."""
    parts = {"train": range(8), "valid": range(8, 11), "test": range(11, 14)}
    mapped = {}
    for part, numbers in parts.items():
        asked = [(f"{word} {i}", food) for i in numbers for word, food in JARGON.items()]
        frame = pl.DataFrame(asked, schema=["query", "title"], orient="row")
        frame.write_csv(folder / f"{part}.csv")
        mapped[part] = f"{part}.csv"
    said = [
        (food, f"{text} {food}")
        for food in JARGON.values()
        for text in ("give me", "I want", "where is")
    ]
    pl.DataFrame(said, schema=["is", "said"], orient="row").write_csv(folder / "intents.csv")
    mapping = {
        "name": "kitchen",
        "pairs": {"files": mapped, "columns": {"query": "query", "title": "title"}},
        "intents": {"files": "intents.csv", "columns": {"intent": "is", "phrase": "said"}},
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(mapping))
    return read_mapping(folder / "my.yaml")


def test_words_of_a_house_are_learned(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}/models")
    schedule = Schedule(epochs=12, batch=10, learning_rate=1e-3)
    plans = Plans(searches=SearchPlan(schedule, seeds=(0,)))
    made = train_own("search", write_jargon(tmp_path), registry, plans)
    report = made.reports[0]
    assert report.chosen["the encoder"] == "fine-tuned"
    scores = report.scores
    assert set(scores) == {"BM25", "letters", "encoder as it came", "vectors", OURS}
    assert scores["vectors"]["nDCG@10"].value > scores["encoder as it came"]["nDCG@10"].value + 0.3
    assert set(scores[OURS]) == {"nDCG@10", "Recall@10", "right intent"}
    version = report.versions[ENCODER]
    assert registry.resolve(ENCODER, CHAMPION) == version
    assert b"kitchen" in registry.load(ENCODER, version).files["card.md"]
    assert 0 < registry.manifest(ENCODER, version).parameters["dense_weight"] < 1
    assert made.documents["title"].to_list() == [*JARGON.values()]
