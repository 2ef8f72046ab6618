"""From searches and orders to the content towers, by which svc-candidate's reactive source follows
a search."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from madang_candidate.content.model import CONTENT, QUERY, SHOPS
from madang_candidate.content.towers import ContentTowers, ContentTraining, Shops, train_content
from madang_candidate.index import pack_columns
from madang_pipelines.search.documents import shop_documents, upserts
from madang_pipelines.tables import Tables
from madang_runtime.models.onnx_export import Example, export_onnx
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder
from madang_search.records import text_of

Floats = NDArray[np.float32]
Progress = Callable[[str, float], None]
FEWEST = 300
"""Searches below which there is nothing to learn."""


@dataclass(frozen=True)
class ContentExamples:
    """What the towers learn from.

    Attributes:
        ids: of the shops.
        shops: their content.
        searches: user_id, query, and shop, the row of what was ordered from.
    """

    ids: list[str]
    shops: Shops
    searches: pl.DataFrame


def content_examples(tables: Tables, searches: pl.DataFrame, encoder: Encoder) -> ContentExamples:
    """The shops that have a name, and those of some searches that led to an order from one."""
    documents = shop_documents(tables)
    ids = documents["document_id"].to_list()
    items = tables.frames["items"].select("item_id", "price")
    price = documents.join(
        items, left_on="document_id", right_on="item_id", how="left", maintain_order="left"
    )["price"]
    known = (price > 0).fill_null(value=False)
    log = price.log().set(~known, None)
    standard = ((log - log.mean()) / (log.std() or 1.0)).fill_null(0.0)
    texts = [text_of(document) for document in upserts(documents)]
    shops = Shops(
        encoder.encode(texts, "document"),
        np.stack([standard.to_numpy(), known.to_numpy()], axis=1).astype(np.float32),
        documents["popularity"].to_numpy().astype(np.float32),
    )
    rows = pl.DataFrame({"item_id": ids}, {"item_id": pl.String}).with_row_index("shop")
    found = searches.join(rows, "item_id", maintain_order="left")
    return ContentExamples(ids, shops, found.select("user_id", "query", "shop"))


def learn(
    examples: ContentExamples,
    queries: Floats,
    training: ContentTraining,
    progress: Callable[[float], None] = lambda share: None,
) -> ContentTowers:
    """Towers of examples whose queries have these vectors."""
    ordered = examples.searches["shop"].to_numpy().astype(np.int64)
    return train_content(queries, ordered, examples.shops, training, progress)


def shop_vectors(towers: ContentTowers, shops: Shops) -> Floats:
    """[s, width]."""
    with torch.no_grad():
        text, price = torch.from_numpy(shops.text), torch.from_numpy(shops.price)
        vectors: Floats = towers.of_shops(text, price).numpy()
    return vectors


def train_towers(
    tables: Tables, registry: ModelRegistry, training: ContentTraining, progress: Progress
) -> str | None:
    """Train on the searches before the held-out period, by the champion of the sentence encoders,
    and make the version champion; with too few that led to an order there is none, nor a champion
    any more.

    Returns:
        the version.
    """
    version = registry.resolve(ENCODER)
    encoder = Encoder(registry.load(ENCODER, version), small=True, threads=2)
    found = tables.frames["searches"].filter(pl.col("period") < tables.test_period)
    named = shop_documents(tables)["document_id"]
    found = found.filter(pl.col("item_id").is_in(named.implode()))
    if len(found) < FEWEST:
        registry.remove_alias(CONTENT, CHAMPION)
        return None
    progress("content", 0.0)
    examples = content_examples(tables, found, encoder)
    queries = encoder.encode(examples.searches["query"].to_list())
    towers = learn(examples, queries, training, lambda share: progress("content", 0.9 * share))
    made = registry.register(
        CONTENT,
        {
            QUERY: export_onnx(towers, {"text": Example(queries[:2])}, ["vector"]),
            SHOPS: pack_columns(
                {
                    "ids": np.array([item_id.encode() for item_id in examples.ids]),
                    "vectors": shop_vectors(towers, examples.shops),
                }
            ),
        },
        parameters={ENCODER: version, "data": tables.name},
    )
    registry.set_alias(CONTENT, CHAMPION, made)
    progress("content", 1.0)
    return made
