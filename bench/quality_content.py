"""What the content towers add to the texts of the simulated city's shops."""

from collections.abc import Iterator

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from madang_candidate.content.towers import ContentTraining
from madang_pipelines.city.truth import kilometres
from madang_pipelines.search.content import content_examples, learn, shop_vectors
from madang_pipelines.search.evaluation import bootstrap
from madang_pipelines.tables import Tables
from madang_runtime.text.encoder import Encoder

Floats = NDArray[np.float32]


def content_table(tables: Tables, encoder: Encoder) -> Iterator[str]:
    """Of the shops that deliver to a user's home: where the one is that was ordered from."""
    searches, period = tables.frames["searches"], pl.col("period")
    known = content_examples(tables, searches.filter(period < tables.test_period), encoder)
    held_out = content_examples(tables, searches.filter(period == tables.test_period), encoder)
    towers = learn(known, _encoded(known.searches, encoder), ContentTraining())
    queries = _encoded(held_out.searches, encoder)
    with torch.no_grad():
        own = towers.query(torch.from_numpy(queries))
        own = torch.nn.functional.normalize(own, dim=1).numpy()
    text = _ranks(tables, held_out.searches, queries, known.shops.text)
    content = _ranks(tables, held_out.searches, own, shop_vectors(towers, known.shops))
    yield f"| {len(text):,} searches | hit@5 | hit@10 | MRR |"
    yield "|---|---:|---:|---:|"
    for name, ranks in (("vectors of texts", text), ("content towers", content)):
        hits = (f"{100 * (ranks <= k).mean():.1f}" for k in (5, 10))
        yield f"| {name} | {' | '.join(hits)} | {(1 / ranks).mean():.3f} |"
    cells = []
    for k in (5, 10):
        gain = bootstrap(100.0 * ((content <= k).astype(float) - (text <= k)))
        cells.append(f"{gain.mean:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})")
    mrr = bootstrap(1 / content - 1 / text)
    cells.append(f"{mrr.mean:+.3f} ({mrr.low:+.3f} to {mrr.high:+.3f})")
    yield f"| gain | {' | '.join(cells)} |"


def _encoded(searches: pl.DataFrame, encoder: Encoder) -> Floats:
    return encoder.encode(searches["query"].to_list())


def _ranks(
    tables: Tables, searches: pl.DataFrame, queries: Floats, shops: Floats
) -> NDArray[np.int64]:
    """From 1; of searches whose shop delivers to the user's home."""
    items = tables.frames["items"].filter((pl.col("kind") == 1) & (pl.col("name") != ""))
    places = items.select("latitude", "longitude").to_numpy()
    radius = items["radius_km"].to_numpy()
    homes = searches.join(tables.frames["users"], "user_id", maintain_order="left").select(
        "latitude", "longitude"
    )
    found = []
    for home, query, shop in zip(homes.to_numpy(), queries, searches["shop"], strict=True):
        delivered = kilometres(home, places) <= radius
        if delivered[shop]:
            scores = np.where(delivered, shops @ query, -np.inf)
            found.append(1 + int((scores > scores[shop]).sum()))
    return np.array(found)
