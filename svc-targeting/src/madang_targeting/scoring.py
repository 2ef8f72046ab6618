"""Scores an audience that is larger than memory, and takes a segment out of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from madang_targeting.curve import Cut, Histogram, best_cut, bins_of
from madang_targeting.members import Members

Floats = NDArray[np.floating]
Model = Callable[[Floats], NDArray[np.float64]]
BINS = 256
_AT_ONCE = 131_072


class StoppedError(Exception):
    """The work was called off."""


@dataclass(frozen=True)
class Scored:
    """An audience by two probabilities of the same response, such as by a look-alike model and by
    the simulator of preferences.

    Attributes:
        first, second: the bin of each user, uint8, shape [n].
        histogram: of the bins.
    """

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    histogram: Histogram

    def __len__(self) -> int:
        return len(self.first)


def score_audience(
    path: str,
    columns: Sequence[str],
    models: tuple[Model, Model],
    progress: Callable[[float], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Scored:
    """Score every user of a Parquet file, a part at a time: two bytes a user are kept.

    What is expected of a user is the mean of both probabilities.

    Args:
        path: of the file, one row a user.
        columns: what the models read, in their order; nulls are NaN.
        models: give P(response) of n users each.
        progress: told the share done.
        stopped: asked before each part whether to go on.

    Raises:
        StoppedError: it was told to stop.
        KeyError: the file lacks a column.
    """
    file = pq.ParquetFile(path)
    if missing := sorted(set(columns) - set(file.schema_arrow.names)):
        raise KeyError(f"the audience has no column {missing[0]!r}")
    n = file.metadata.num_rows
    bins = np.empty((2, n), np.uint8)
    counts, response, at = np.zeros((BINS, BINS)), np.zeros((BINS, BINS)), 0
    for batch in file.iter_batches(_AT_ONCE, columns=list(columns)):
        if stopped():
            raise StoppedError
        inputs = _matrix(batch, columns)
        found = [model(inputs) for model in models]
        own = [bins_of(p, BINS).astype(np.uint8) for p in found]
        bins[:, at : at + len(inputs)] = own
        cells = own[0].astype(np.int64) * BINS + own[1]
        counts += np.bincount(cells, minlength=BINS**2).reshape(BINS, BINS)
        expected = (found[0] + found[1]) / 2
        response += np.bincount(cells, expected, BINS**2).reshape(BINS, BINS)
        at += len(inputs)
        progress(at / n)
    return Scored(bins[0], bins[1], Histogram(counts, response))


def _matrix(batch: "pq.RecordBatch", columns: Sequence[str]) -> NDArray[np.float32]:
    """Columns of a batch, NaN for null, shape [n, columns]."""
    found = np.empty((batch.num_rows, len(columns)), np.float32)
    for i, name in enumerate(columns):
        column = batch.column(name)
        values = column.to_numpy(zero_copy_only=False)
        found[:, i] = values.astype(np.float32)
    return found


def take(scored: Scored, size: int) -> tuple[Members, Cut]:
    """The segment of at least `size` users of whom most is expected, as an OR of both scores."""
    cut = best_cut(scored.histogram, size)
    rows = np.flatnonzero((scored.first >= cut.first) | (scored.second >= cut.second))
    return Members.of_rows(rows), cut
