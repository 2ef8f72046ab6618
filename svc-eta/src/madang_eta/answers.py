"""From distributions to what callers get."""

from dataclasses import dataclass

import numpy as np

from madang.eta.v1 import eta_pb2 as pb
from madang_eta.distribution import (
    Floats,
    Ints,
    Windows,
    delayed,
    means,
    mode_windows,
    quantiles,
    sure_window,
)
from madang_eta.kinds import Kind

DEFAULT_LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Arrivals:
    """n rows of a batch as columns.

    Attributes:
        sources: an EtaSource each.
        mean: minutes. quantiles: minutes, shape [n, levels].
        window: that users are shown.
        buffer: minutes that were added.
    """

    sources: Ints
    mean: Floats
    quantiles: Floats
    window: Windows
    buffer: Ints

    @classmethod
    def none(cls, n: int, levels: int) -> "Arrivals":
        """Rows of which nothing is known."""
        zeros = np.zeros(n, np.int64)
        nothing = Windows(zeros.copy(), zeros.copy(), np.zeros(n))
        sources = np.full(n, pb.ETA_SOURCE_NONE)
        return cls(sources, np.zeros(n), np.zeros((n, levels)), nothing, zeros.copy())

    @classmethod
    def of(cls, pmf: Floats, levels: Floats, length: int, buffer: Ints) -> "Arrivals":
        """From distributions, shape [n, minutes], and the buffers to add."""
        pmf = delayed(pmf, buffer)
        sources = np.full(len(pmf), pb.ETA_SOURCE_ONLINE)
        found = quantiles(pmf, levels)
        return cls(sources, means(pmf), found, mode_windows(pmf, length), buffer)

    def put(self, rows: Ints, other: "Arrivals") -> None:
        """Fill rows in."""
        self.sources[rows], self.mean[rows] = other.sources, other.mean
        self.quantiles[rows], self.buffer[rows] = other.quantiles, other.buffer
        for mine, theirs in zip(self.window, other.window, strict=True):
            mine[rows] = theirs

    def answer(self) -> pb.PredictBatchResponse:
        """As it is sent, without serving_info."""
        return pb.PredictBatchResponse(
            sources=self.sources.astype(np.uint8).tobytes(),
            mean_minutes=self.mean.astype("<f4").tobytes(),
            quantile_minutes=self.quantiles.astype("<f4").tobytes(),
            window_starts=self.window.start.astype("<u2").tobytes(),
            window_ends=self.window.end.astype("<u2").tobytes(),
            window_probabilities=self.window.probability.astype("<f4").tobytes(),
            buffer_minutes=self.buffer.astype("<i4").tobytes(),
        )


def one_answer(
    pmf: Floats, kind: Kind, request: pb.PredictRequest, buffer: int
) -> pb.PredictResponse:
    """The answer to Predict, without stages and serving_info.

    Args:
        pmf: of what is left, shape [1, minutes].
        kind: whose settings are taken.
        request: the levels and the hit rate that are wanted.
        buffer: minutes to add.
    """
    pmf = delayed(pmf, np.array([buffer]))
    levels = np.array(request.quantiles or DEFAULT_LEVELS)
    shown = pmf[0, : kind.horizon_minutes]
    return pb.PredictResponse(
        probabilities=shown.astype("<f4").tobytes(),
        beyond=max(float(1 - shown.sum()), 0.0),
        mean_minutes=float(means(pmf)[0]),
        quantile_minutes=quantiles(pmf, levels)[0].tolist(),
        window=window(mode_windows(pmf, kind.window_minutes), 0),
        sure_window=window(sure_window(pmf, request.hit_rate or kind.hit_rate), 0),
        buffer_minutes=buffer,
    )


def window(found: Windows, row: int) -> pb.Window:
    """One row's window as it is sent."""
    return pb.Window(
        start_minute=int(found.start[row]),
        end_minute=int(found.end[row]),
        probability=min(float(found.probability[row]), 1.0),
    )
