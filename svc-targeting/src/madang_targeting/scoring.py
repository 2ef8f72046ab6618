"""Scores an audience that need not fit into memory, and takes the segment that is wanted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from madang_targeting.curve import Cut, Histogram, bins_of
from madang_targeting.trees import StoppedError

Floats = NDArray[np.floating]
BINS = 256
_AT_ONCE = 131_072


class Scores(NamedTuple):
    """What is thought of n users.

    Attributes:
        first, second: two probabilities of the goal, such as by a look-alike model and by the
            models of preference groups, shape [n].
        expected: probability of each outcome, the goal first, shape [outcomes, n].
    """

    first: Floats
    second: Floats
    expected: Floats


Scorer = Callable[[NDArray[np.float32]], Scores]


@dataclass(frozen=True)
class Scored:
    """An audience by two probabilities.

    Attributes:
        first, second: the bin of each user, uint8, shape [n].
        eligible: who may be in a segment, shape [n].
        histogram: of those.
    """

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    eligible: NDArray[np.bool_]
    histogram: Histogram

    def take(self, cut: Cut, most: int = 0) -> tuple[NDArray[np.int64], Cut]:
        """Whom a cut takes, rising, and what is expected of them.

        Scores have steps, on which many users stand: beyond `most` users those of whom least is
        expected are left out, on the same step by chance.
        """
        either = (self.first >= cut.first) | (self.second >= cut.second)
        rows = np.flatnonzero(either & self.eligible)
        if not 0 < most < len(rows):
            return rows, cut
        counts = np.maximum(self.histogram.counts, 1.0).ravel()
        means = self.histogram.expected.reshape(-1, BINS**2) / counts
        cells = self.first[rows].astype(np.int64) * BINS + self.second[rows]
        mixed = np.random.default_rng(0).permutation(len(rows))
        best = np.argsort(-means[0, cells[mixed]], kind="stable")[:most]
        kept = np.sort(mixed[best])
        return rows[kept], replace(cut, size=most, expected=means[:, cells[kept]].sum(1))


class Parts:
    """The rows of an audience's Parquet file, a part at a time.

    Args:
        path: of the file, one row a user.
        columns: to read, in their order; nulls are NaN.

    Raises:
        KeyError: the file lacks a column.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file, self._columns = pq.ParquetFile(path), list(columns)
        if missing := sorted(set(columns) - set(self._file.schema_arrow.names)):
            raise KeyError(f"the audience has no column {missing[0]!r}")

    def __len__(self) -> int:
        rows: int = self._file.metadata.num_rows
        return rows

    def read(
        self, progress: Callable[[float], None], stopped: Callable[[], bool]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The first row's number and inputs of each part, shape [rows, columns].

        Raises:
            StoppedError: it was told to stop.
        """
        at = 0
        for batch in self._file.iter_batches(_AT_ONCE, columns=self._columns):
            if stopped():
                raise StoppedError
            inputs = np.empty((batch.num_rows, len(self._columns)), np.float32)
            for i, name in enumerate(self._columns):
                inputs[:, i] = batch.column(name).to_numpy(zero_copy_only=False)
            yield at, inputs
            at += len(inputs)
            progress(at / len(self))


def score_audience(
    parts: Parts,
    scorer: Scorer,
    eligible: NDArray[np.bool_] | None = None,
    progress: Callable[[float], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Scored:
    """Score every user, a part at a time: three bytes a user are kept.

    Args:
        parts: of the audience.
        scorer: of inputs.
        eligible: who may be in a segment, shape [n]; None: all.
        progress: told the share done.
        stopped: asked before each part whether to stop.

    Raises:
        StoppedError: it was told to stop.
    """
    n = len(parts)
    eligible = np.ones(n, np.bool_) if eligible is None else eligible
    bins = np.empty((2, n), np.uint8)
    counts, sums = np.zeros(BINS**2), np.zeros((1, BINS**2))
    for at, inputs in parts.read(progress, stopped):
        found = scorer(inputs)
        own = slice(at, at + len(inputs))
        bins[0, own], bins[1, own] = (bins_of(p, BINS) for p in (found.first, found.second))
        weight = eligible[own].astype(np.float64)
        cells = bins[0, own].astype(np.int64) * BINS + bins[1, own]
        counts += np.bincount(cells, weight, BINS**2)
        sums = sums + np.stack([np.bincount(cells, e * weight, BINS**2) for e in found.expected])
    histogram = Histogram(counts.reshape(BINS, BINS), sums.reshape(-1, BINS, BINS))
    return Scored(bins[0], bins[1], eligible, histogram)
