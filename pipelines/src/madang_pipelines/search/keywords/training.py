"""From searches and what people did around them to a version of the keywords, and everybody's own
list."""

import json
from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from madang_pipelines.search.documents import shop_documents, upserts
from madang_pipelines.search.keywords.batch import BatchKeywords
from madang_pipelines.search.keywords.log import LONGEST, KeywordLog, keyword_log, sequences
from madang_pipelines.search.keywords.node2vec import Graph, Node2Vec, node_vectors
from madang_pipelines.tables import Tables
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder
from madang_search.keywords.model import MODEL, VOCABULARY, keyword_code
from madang_search.keywords.recommending import FEATURE, VIEW
from madang_search.keywords.sequence import (
    KeywordSequence,
    SequenceTraining,
    export_sequence,
    train_sequence,
)
from madang_search.records import text_of
from madang_search.settings import KEYWORDS

Floats = NDArray[np.float32]
Progress = Callable[[str, float], None]
FEWEST = 300
"""Searches below which there is nothing to learn."""
_LISTED = 20


def train_keywords(
    tables: Tables,
    registry: ModelRegistry,
    training: SequenceTraining,
    progress: Progress = lambda step, share: None,
) -> dict[str, pl.DataFrame]:
    """Train on the searches before the held-out period and make the version champion; with too few
    of them there is none, nor a champion any more. The sentence encoder must have one.

    Returns:
        the rows of the view `user_keywords`, by its name; {} without a version.
    """
    log = keyword_log(tables)
    known = range(tables.test_period)
    learned = sequences(log, known)
    if len(learned.keywords) < FEWEST:
        registry.remove_alias(KEYWORDS, CHAMPION)
        return {}
    progress("keywords", 0.0)
    batch = batch_keywords(log)
    progress("keywords", 0.2)
    encoder = Encoder(registry.load(ENCODER, registry.resolve(ENCODER)), small=True, threads=2)
    graph, text = graph_vectors(log), text_vectors(log, encoder)
    progress("keywords", 0.5)
    model = new_model(log, graph, text)
    train_sequence(model, learned, training, lambda share: progress("keywords", 0.5 + 0.4 * share))
    vocabulary = {
        "keywords": log.keywords,
        "popularity": log.popularity.tolist(),
        "items": log.items,
    }
    version = registry.register(
        KEYWORDS,
        {
            MODEL: export_sequence(model, LONGEST),
            VOCABULARY: json.dumps(vocabulary, ensure_ascii=False).encode(),
        },
        parameters={"longest": LONGEST, "data": tables.name},
    )
    registry.set_alias(KEYWORDS, CHAMPION, version)
    progress("keywords", 1.0)
    return {VIEW: user_lists(log, batch)} if batch else {}


def batch_keywords(log: KeywordLog) -> BatchKeywords | None:
    """Learned from all that is known, with the correction that was best on the last known period
    for what was learned from those before it. None where no search has a period before its own."""
    last = log.tables.test_period - 1
    later = log.searches.filter(pl.col("period") > 0)["period"]
    if not (later <= last).any():
        return None
    batch = BatchKeywords(log, range(1, last + 1))
    if (later < last).any():
        earlier = BatchKeywords(log, range(1, last))
        earlier.tune(last)
        batch.correction = earlier.correction
    return batch


def user_lists(log: KeywordLog, batch: BatchKeywords) -> pl.DataFrame:
    """Each user's keywords, as numbers; of those who neither searched nor ordered, no row."""
    known = pl.concat(
        [
            frame.filter(pl.col("period") < log.tables.test_period).select("user_id")
            for frame in (log.searches, log.tables.frames["actions"])
        ]
    ).unique()
    scores = batch.corrected(log.tables.test_period)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_LISTED]
    lists = np.zeros((len(scores), _LISTED), np.int64)
    lists[:, : best.shape[1]] = np.array([keyword_code(text) for text in log.keywords])[best]
    rows = pl.DataFrame({"entity_id": log.tables.frames["users"]["user_id"], FEATURE: lists})
    return rows.join(known, left_on="entity_id", right_on="user_id", how="semi")


def new_model(log: KeywordLog, graph: Floats, text: Floats, seed: int = 0) -> KeywordSequence:
    """A model that has learned nothing."""
    torch.manual_seed(seed)
    keywords = np.arange(1, 1 + len(log.keywords))
    return KeywordSequence(graph, text, keywords, log.popularity.astype(np.float32))


def graph_vectors(log: KeywordLog) -> Floats:
    """What the graph of categories, items and searches knows of each node: [nodes, d]."""
    items = log.tables.frames["items"]
    nodes = 1 + len(log.keywords) + len(items)
    category = items["category"].to_numpy()
    ordered = searched_items(log)
    first = np.concatenate(
        [ordered["keyword"].to_numpy() + 1, np.arange(nodes - len(items), nodes)]
    )
    second = np.concatenate([ordered["node"].to_numpy(), nodes + category])
    weights = np.concatenate([np.log1p(ordered["len"].to_numpy()), np.ones(len(items))])
    graph = Graph(nodes + int(category.max(initial=0)) + 1, first, second, weights)
    vectors = node_vectors(graph, Node2Vec())[:nodes]
    vectors[0] = 0
    return vectors


def searched_items(log: KeywordLog) -> pl.DataFrame:
    """How often (len) a keyword (its row) led to an item (its node), where that is known."""
    return (
        log.searches.with_columns(node=log.nodes(log.searches["item_id"]))
        .filter(pl.col("period") < log.tables.test_period, pl.col("node") > 0)
        .group_by("keyword", "node", maintain_order=True)
        .len()
    )


def text_vectors(log: KeywordLog, encoder: Encoder) -> Floats:
    """What the text of each node means: [nodes, d]; nothing for items without one."""
    vectors = np.zeros((1 + len(log.keywords) + len(log.items), encoder.dimension), np.float32)
    vectors[1 : 1 + len(log.keywords)] = encoder.encode(log.keywords)
    documents = upserts(shop_documents(log.tables))
    if documents:
        nodes = log.nodes(pl.Series([document.document_id for document in documents]))
        texts = [text_of(document) for document in documents]
        vectors[nodes.to_numpy()] = encoder.encode(texts, "document")
    return vectors
