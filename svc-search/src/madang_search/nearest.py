"""Encodes queries and finds what is nearest to them: one batch for all who wait."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from madang_runtime.metrics import Metrics
from madang_runtime.models.batcher import DynamicBatcher
from madang_runtime.text.encoder import Encoder

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_MOST_TOKENS = 1024


@dataclass(frozen=True, eq=False)
class _Asked:
    tokens: Sequence[int]
    matrix: Floats
    allowed: Mask
    k: int


class Nearest(NamedTuple):
    """The nearest rows, best first, their cosines, and the query's own vector [d]."""

    rows: Rows
    similarities: Floats
    vector: Floats


class NearestSearcher:
    """Exact search by cosine. Queries that wait together are encoded together, and their dot
    products with a matrix are one product of matrices.

    Args:
        encoder: of the queries.
        metrics: get the batch sizes.
    """

    def __init__(self, encoder: Encoder, metrics: Metrics) -> None:
        self.encoder = encoder
        self._batcher = DynamicBatcher[_Asked, Nearest](
            self._run, name="search_encoder", metrics=metrics, max_rows=_MOST_TOKENS
        )

    def __call__(self, text: str, matrix: Floats, allowed: Mask, k: int) -> Nearest:
        """The k allowed rows of a matrix [n, d] that are nearest to a text.

        Raises:
            MadangError: OVERLOADED, DEADLINE_EXCEEDED.
        """
        tokens = self.encoder.tokens([text])[0]
        return self._batcher(_Asked(tokens, matrix, allowed, k), len(tokens))

    def vector(self, text: str) -> Floats:
        """The vector of a text [d]. Raises: as a call does."""
        nothing = np.empty((0, self.encoder.dimension), np.float32)
        return self(text, nothing, np.empty(0, np.bool_), 0).vector

    def _run(self, batch: Sequence[_Asked]) -> list[Nearest]:
        vectors = self.encoder.vectors([asked.tokens for asked in batch])
        found: list[Nearest | None] = [None] * len(batch)
        matrices = {id(asked.matrix): asked.matrix for asked in batch}
        for key, matrix in matrices.items():
            members = [at for at, asked in enumerate(batch) if id(asked.matrix) == key]
            scores = vectors[members] @ matrix.T
            for at, row in zip(members, scores, strict=True):
                found[at] = _top(batch[at], row, vectors[at])
        return [nearest for nearest in found if nearest is not None]


def _top(asked: _Asked, scores: Floats, vector: Floats) -> Nearest:
    rows = np.flatnonzero(asked.allowed)
    kept = scores[rows]
    order = best(kept, asked.k)
    return Nearest(rows[order], kept[order], vector)


def best(scores: NDArray[np.floating], k: int) -> Rows:
    """Positions of the k largest scores, best first; of equals, the first."""
    if k < len(scores):
        bound = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > bound)
        level = np.flatnonzero(scores == bound)[: k - len(above)]
        part = np.sort(np.concatenate([above, level]))
        return part[np.argsort(-scores[part], kind="stable")]
    return np.argsort(-scores, kind="stable")
