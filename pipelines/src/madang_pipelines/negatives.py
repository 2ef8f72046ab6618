"""Impressions for data that has none: beside what a user chose, what retrieval would have shown.

A ranker learns to tell good candidates from bad ones only among candidates like those that it will
meet. Negatives are therefore drawn evenly from the two-tower's nearest items and from the user's
own top items, which are the lists that serving fuses.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from madang_candidate.train import TowerExamples, Towers, item_vectors
from madang_pipelines.features import USER_VIEW
from madang_ranker.train import DcnExamples
from madang_runtime.models.inputs import InputRows, columns_of
from madang_runtime.models.manifest import FeatureRef

_NEAREST, _DRAWN, _CHUNK = 300, 10, 1024


def add_negatives(
    impressions: DcnExamples,
    positives: TowerExamples,
    towers: Towers,
    features: list[FeatureRef],
    seed: int = 7,
    progress: Callable[[float], None] = lambda _: None,
) -> DcnExamples:
    """Set negatives beside the positives of each session.

    Args:
        impressions: one positive a session.
        positives: the same, as the towers were trained on them.
    """
    rng = np.random.default_rng(seed)
    catalogue = positives.catalogue
    items = InputRows(positives.items.ints[catalogue], positives.items.floats[catalogue])
    vectors = torch.from_numpy(item_vectors(towers.item, items)).T
    history = columns_of(features, USER_VIEW, "INT64")["top_items"]
    n = len(positives.user_row)
    drawn = np.zeros((n, _DRAWN), np.int64)
    for at in range(0, n, _CHUNK):
        rows = slice(at, at + _CHUNK)
        users = positives.user_row[rows]
        own = positives.users.ints[users, history] - 1
        with torch.no_grad():
            near = (_user_vectors(towers, positives, rows) @ vectors).topk(
                min(_NEAREST, len(catalogue)), sorted=False
            )
        pool = np.concatenate([near.indices.numpy(), own], axis=1)
        columns = rng.integers(0, pool.shape[1], (len(pool), _DRAWN))
        drawn[rows] = np.take_along_axis(pool, columns, axis=1)
        progress(min(1.0, (at + _CHUNK) / n))
    # Rows of a period are the catalogue's, shifted; -1 is a history that is shorter than its row.
    period_start = positives.item_row - positives.item_row % len(catalogue)
    negative = np.where(drawn < 0, -1, drawn + period_start[:, None])
    kept = (negative >= 0) & (negative != positives.item_row[:, None])
    session = np.broadcast_to(impressions.session[:, None], kept.shape)
    none = np.zeros(int(kept.sum()), bool)
    return replace(
        impressions,
        session=np.concatenate([impressions.session, session[kept]]),
        item_row=np.concatenate([impressions.item_row, negative[kept]]),
        clicked=np.concatenate([impressions.clicked, none]),
        ordered=np.concatenate([impressions.ordered, none]),
        hidden=np.concatenate([impressions.hidden, none]),
    )


def _user_vectors(towers: Towers, positives: TowerExamples, rows: slice) -> torch.Tensor:
    users = positives.user_row[rows]
    vectors: torch.Tensor = towers.user(
        torch.from_numpy(positives.users.ints[users]),
        torch.from_numpy(positives.users.floats[users]),
        torch.from_numpy(positives.context.ints[rows]),
        torch.from_numpy(positives.context.floats[rows]),
    )
    return vectors
