"""From searches and orders to the sentence encoder of svc-search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from madang_pipelines.city.names import CATEGORIES
from madang_pipelines.search.documents import shop_documents, upserts
from madang_pipelines.tables import Tables
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import FULL, SMALL, TOKENIZER
from madang_runtime.text.tokens import TextTokens, padded
from madang_search.backbone import load_backbone
from madang_search.records import text_of
from madang_search.train import Objective, Schedule, export, fine_tune, quantised

Progress = Callable[[str, float], None]
Floats = NDArray[np.float32]

LONGEST = 256
DENSE_WEIGHT = 0.3
"""Share of the cosine in a score of both, where nothing tells a better one."""
_MOST_TEXTS = 512
_FEWEST = 100
_AT_ONCE = 64


@dataclass(frozen=True)
class EncoderTraining:
    """How much to learn from.

    Attributes:
        most: pairs of searches and orders; the latest are taken.
        schedule: of the training.
    """

    most: int = 2500
    schedule: Schedule = field(default_factory=lambda: Schedule(epochs=1))


def train_encoder(
    tables: Tables,
    registry: ModelRegistry,
    training: EncoderTraining = EncoderTraining(),
    progress: Progress = lambda step, share: None,
) -> str:
    """Fine-tune the backbone on what people ordered after a search, and make it champion. Without
    searches the backbone is registered as it is.

    Returns:
        the version.
    """
    progress("search", 0.0)
    model, tokenizer = load_backbone()
    queries, positives, negatives = search_pairs(tables, training.most)
    if queries:
        learned = Objective([queries, positives, negatives], {"pairs": 1.0, "triplets": 1.0})
        tokens = TextTokens(tokenizer, LONGEST)

        def step(done: int, steps: int) -> None:
            progress("search", 0.8 * done / steps)

        fine_tune(model, tokens, [learned], training.schedule, step)
    progress("search", 0.8)
    unrelated = (queries, negatives) if len(queries) >= _FEWEST else strangers()
    version = register_encoder(model, tokenizer, registry, unrelated, data=tables.name)
    registry.set_alias(ENCODER, CHAMPION, version)
    progress("search", 1.0)
    return version


def register_encoder(
    model: nn.Module,
    tokenizer: bytes,
    registry: ModelRegistry,
    unrelated: tuple[Sequence[str], Sequence[str]],
    files: Mapping[str, bytes] = MappingProxyType({}),
    *,
    longest: int = LONGEST,
    **about: Any,
) -> str:
    """Export an encoder, as it is and quantised, and register it.

    Args:
        model: from token ids and their mask, int64 [n, tokens], to vectors of length 1 [n, d].
        tokenizer: content of its `tokenizer.json`.
        unrelated: queries and texts, as many, of which no query means the text beside it: they
            tell from which cosine on a text is near.
        files: further ones of the version.
        longest: tokens that it reads of a text.
        about: further parameters.

    Returns:
        the version. No alias moves.
    """
    tokens = TextTokens(tokenizer, longest)
    first, second = (encode(model, tokens, texts[:_MOST_TEXTS]) for texts in unrelated)
    apart = (first * second).sum(1)
    whole = export(model)
    return registry.register(
        ENCODER,
        {FULL: whole, SMALL: quantised(whole), TOKENIZER: tokenizer, **files},
        parameters={
            "dimension": first.shape[1],
            "longest": longest,
            "near": _threshold(apart, 0.99),
            "nearest": _threshold(apart, 0.9),
            "intent_threshold": _threshold(apart, 0.995),
            "dense_weight": DENSE_WEIGHT,
            **about,
        },
    )


def encode(model: nn.Module, tokens: TextTokens, texts: Sequence[str]) -> Floats:
    """Vectors of texts by the torch model: [n, d]."""
    model.eval()
    ids = tokens(texts)
    order = np.argsort([len(row) for row in ids], kind="stable")
    parts = []
    with torch.no_grad():
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE].tolist()
            matrix, mask = padded([ids[row] for row in rows])
            parts.append(model(torch.from_numpy(matrix), torch.from_numpy(mask)).numpy())
    vectors: Floats = np.concatenate(parts)[np.argsort(order)]
    return vectors


def search_pairs(tables: Tables, most: int) -> tuple[list[str], list[str], list[str]]:
    """The latest searches that led to an order, the shop that was ordered from, and a shop, drawn
    by popularity, of a kind that nobody took who searched for it; without searches that led to
    about every kind. Texts, n of each. Nothing of the held-out period."""
    documents = {document.document_id: document for document in upserts(shop_documents(tables))}
    found = (
        tables.frames["searches"]
        .filter(pl.col("period") < tables.test_period)
        .filter(pl.col("item_id").is_in([*documents]))
        .sort("time")
    )
    taken: dict[str, set[str]] = {}
    for query, item_id in found.select("query", "item_id").iter_rows():
        taken.setdefault(query, set()).add(documents[item_id].category)
    shops = [*documents.values()]
    popularity = np.array([shop.popularity + 1 for shop in shops])
    random = np.random.default_rng(0)
    found = found.tail(most)
    drawn = random.choice(len(shops), (len(found), 8), p=popularity / popularity.sum())
    triplets = []
    for (query, item_id), row in zip(
        found.select("query", "item_id").iter_rows(), drawn.tolist(), strict=True
    ):
        others = (shops[at] for at in row if shops[at].category not in taken[query])
        if other := next(others, None):
            triplets.append((query, text_of(documents[item_id]), text_of(other)))
    queries, positives, negatives = zip(*triplets, strict=True) if triplets else ((), (), ())
    return [*queries], [*positives], [*negatives]


def strangers() -> tuple[list[str], list[str]]:
    """Phrases about food beside phrases about other food."""
    phrases = [(at, p) for at, kind in enumerate(CATEGORIES) for p in (*kind.asked, *kind.menu)]
    pairs = [(a, b) for i, a in phrases for j, b in phrases if i != j]
    chosen = np.random.default_rng(0).permutation(len(pairs))[:_MOST_TEXTS].tolist()
    return [pairs[at][0] for at in chosen], [pairs[at][1] for at in chosen]


def _threshold(cosines: Floats, share: float) -> float:
    """The cosine that so large a share of unrelated texts stays below, at least a little."""
    return round(max(0.05, float(np.quantile(cosines, share))), 3)
