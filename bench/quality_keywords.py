"""Keywords of the simulated city: before an action, and after."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from madang_pipelines.search.evaluation import bootstrap
from madang_pipelines.search.keywords.batch import ranks
from madang_pipelines.search.keywords.log import KeywordLog, sequences
from madang_pipelines.search.keywords.training import (
    batch_keywords,
    graph_vectors,
    new_model,
    searched_items,
    text_vectors,
)
from madang_runtime.text.encoder import Encoder
from madang_search.keywords.sequence import Sequences, SequenceTraining, train_sequence

Scores = NDArray[np.float32]
_SEEDS = (0, 1, 2)


def list_table(log: KeywordLog) -> Iterator[str]:
    """The lists made beforehand."""
    batch, held_out = batch_keywords(log), log.tables.test_period
    assert batch, "the city has several periods"
    users, wanted = batch.asked([held_out])
    m, n, a = batch.correction.m, batch.correction.n, batch.correction.a
    corrected = f"NMF → network → popularity correction (m {m:g}, n {n:g}, a {a:g})"
    yield f"| {len(wanted):,} searches, {len(log.keywords)} keywords | hit@5 | hit@10 | MRR |"
    yield "|---|---:|---:|---:|"
    popular = _popular(log, len(wanted))
    lists = {
        "popularity": popular,
        "NMF": batch.factorised(held_out)[users],
        "NMF → network": batch.scores(held_out)[users],
        corrected: batch.corrected(held_out)[users],
    }
    for name, scores in lists.items():
        yield _row(name, [ranks(scores, wanted)])
    yield _gain("the last over popularity", lists[corrected], popular, wanted)


def sequence_table(log: KeywordLog, encoder: Encoder) -> Iterator[str]:
    """What follows from the last actions."""
    known = sequences(log, range(log.tables.test_period))
    held_out = sequences(log, [log.tables.test_period])
    graph, text = graph_vectors(log), text_vectors(log, encoder)
    nothing = np.zeros_like(graph), np.zeros_like(text)
    popular, wanted = _popular(log, len(held_out.keywords)), held_out.keywords
    shops, kinds = _neighbours(log)
    mean = shops[held_out.nodes].sum(1) + 1e-6 * popular
    yield f"| {len(wanted):,} searches with actions in the hour before | hit@5 | hit@10 | MRR |"
    yield "|---|---:|---:|---:|"
    yield _row("popularity", [ranks(popular, wanted)])
    yield _row("neighbours' mean: what led to the items", [ranks(mean, wanted)])
    of_kinds = kinds[held_out.nodes].sum(1) + 1e-6 * popular
    yield _row("neighbours' mean: what led to their categories", [ranks(of_kinds, wanted)])
    learned: dict[str, Scores] = {}
    for name, tables in (
        ("sequence of graph vectors", (graph, nothing[1])),
        ("sequence of text vectors", (nothing[0], text)),
        ("sequence of both", (graph, text)),
    ):
        found = [_scores(log, tables, known, held_out, seed) for seed in _SEEDS]
        learned[name] = found[0]
        yield _row(name, [ranks(scores, wanted) for scores in found])
    for name, other in (
        ("popularity", popular),
        ("neighbours' mean of items", mean),
        ("neighbours' mean of categories", of_kinds),
    ):
        yield _gain(f"the last over {name}", learned["sequence of both"], other, wanted)


def _scores(
    log: KeywordLog,
    tables: tuple[Scores, Scores],
    known: Sequences,
    held_out: Sequences,
    seed: int,
) -> Scores:
    model = new_model(log, *tables, seed=seed)
    train_sequence(model, known, replace(SequenceTraining(), seed=seed))
    with torch.no_grad():
        nodes, kinds = torch.from_numpy(held_out.nodes), torch.from_numpy(held_out.kinds)
        scores: Scores = model(nodes, kinds).numpy()
    return scores


def _neighbours(log: KeywordLog) -> tuple[Scores, Scores]:
    """Of each node, the shares of the keywords that led to it, or to its category: [nodes, K]."""
    shops = np.zeros((1 + len(log.keywords) + len(log.items), len(log.keywords)), np.float32)
    found = searched_items(log)
    shops[found["node"].to_numpy(), found["keyword"].to_numpy()] = found["len"].to_numpy()
    category = log.tables.frames["items"].select(pl.col("category").fill_null(0)).to_series()
    of_item = np.zeros(len(shops), np.int64)
    of_item[-len(category) :] = category.to_numpy()
    kinds = np.zeros((of_item.max() + 1, len(log.keywords)), np.float32)
    np.add.at(kinds, of_item, shops)
    kinds[0] = 0
    return _shares(shops), _shares(kinds)[of_item]


def _shares(counts: Scores) -> Scores:
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1), np.float32)


def _popular(log: KeywordLog, n: int) -> Scores:
    return np.tile(log.popularity.astype(np.float32), (n, 1))


def _row(name: str, found: list[NDArray[np.float64]]) -> str:
    """Means over seeds, with the range where there are several."""
    cells = []
    for digits, values in (
        (1, [100 * float((r <= 5).mean()) for r in found]),
        (1, [100 * float((r <= 10).mean()) for r in found]),
        (3, [float((1 / r).mean()) for r in found]),
    ):
        cell = f"{np.mean(values):.{digits}f}"
        if len(values) > 1:
            cell += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
        cells.append(cell)
    return f"| {name} | {' | '.join(cells)} |"


def _gain(name: str, better: Scores, worse: Scores, wanted: NDArray[np.int64]) -> str:
    """Of one list over another, with 95 % intervals."""
    first, second = ranks(better, wanted), ranks(worse, wanted)
    hits = bootstrap(100.0 * ((first <= 10).astype(float) - (second <= 10)))
    mrr = bootstrap(1 / first - 1 / second)
    return (
        f"| gain of {name} | | {hits.mean:+.1f} ({hits.low:+.1f} to {hits.high:+.1f}) "
        f"| {mrr.mean:+.3f} ({mrr.low:+.3f} to {mrr.high:+.3f}) |"
    )
