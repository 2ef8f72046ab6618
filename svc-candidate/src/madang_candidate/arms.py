"""The filter layer of the bandit: which of the arms at hand are worth a try."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from madang.ranker.v1 import bandit_pb2
from madang_candidate.chance import chances
from madang_candidate.index import Floats, ItemIndex, Rows, top
from madang_runtime.changelog.table import LogTable
from madang_runtime.segments import EVERYBODY

Numbers = NDArray[np.float64]
_Z = 1.645  # a one-sided bound of 95 %


def lower_bound(impressions: Numbers, rewards: Numbers) -> Floats:
    """Wilson's lower bound of rewards / impressions; 0 without impressions.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA
    1927.
    """
    n = np.maximum(impressions, 1)
    p = np.minimum(rewards / n, 1)
    z2 = _Z**2
    centre = p + z2 / (2 * n)
    spread = _Z * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    bound = np.maximum((centre - spread) / (1 + z2 / n), 0)
    return np.where((impressions > 0) & (rewards > 0), bound, 0).astype(np.float32)


class SurfaceArms:
    """One surface's batch as columns beside the items of an index.

    Everybody's impressions say what is fresh. What pays is by the segment's own counts, to which
    everybody's rate adds at most `pooling` rewards.
    """

    def __init__(self, batch: bandit_pb2.BanditBatch, index: ItemIndex) -> None:
        self.index = index
        self.batch = batch
        self._segments = {s.segment: s for s in batch.segments}
        rows = map(index.row, batch.item_ids)  # None for an arm that is no item any more
        self._rows = np.array([-1 if row is None else row for row in rows], np.int64)
        self._bounds: dict[str, Floats] = {}
        self._everybody = self._counts(EVERYBODY)
        self._fresh = self._everybody[0] < batch.fresh_below
        self._chance = chances(index.seeds, batch.seed)
        self._chance[index.unknown] += 1  # what is new comes before what is little known

    def propose(self, segments: Sequence[str], allowed: Rows) -> tuple[Rows, Floats]:
        """The allowed arms of highest bound, then fresh ones by chance; and their bounds.

        Of fresh arms, those come first that were put in since the models were trained. The choice
        is the same for everyone as long as the batch stands, so that what is drawn of them has an
        exact propensity.
        """
        bounds = self._bounds_of(segments[0])[allowed]
        paying = np.flatnonzero(bounds > 0)
        kept = paying[top(bounds[paying], self.batch.keep)]
        fresh = np.setdiff1d(np.flatnonzero(self._fresh[allowed]), kept, assume_unique=True)
        drawn = fresh[top(self._chance[allowed[fresh]], self.batch.fresh)]
        chosen = np.concatenate([kept, drawn])
        return allowed[chosen], bounds[chosen]

    def _bounds_of(self, segment: str) -> Floats:
        if segment not in self._bounds:
            counts = impressions, rewards = self._counts(segment)
            if segment != EVERYBODY:
                shown, paid = self._everybody
                share = np.minimum(self.batch.pooling / np.maximum(paid, 1), 1)
                counts = impressions + share * shown, rewards + share * paid
            self._bounds[segment] = lower_bound(*counts)
        return self._bounds[segment]

    def _counts(self, segment: str) -> tuple[Numbers, Numbers]:
        """Impressions and rewards of each item of the index."""
        impressions, rewards = np.zeros((2, len(self.index)))
        if found := self._segments.get(segment):
            rows = self._rows[np.frombuffer(found.arms, "<u4")]
            known = rows >= 0
            impressions[rows[known]] = np.frombuffer(found.impressions, "<u4")[known]
            rewards[rows[known]] = np.frombuffer(found.rewards, "<u4")[known]
        return impressions, rewards


class ArmFilter:
    """The arms of each surface's last batch.

    Args:
        batches: by surface.
    """

    def __init__(self, batches: LogTable[bandit_pb2.BanditBatch]) -> None:
        self._batches = batches
        self._arms: dict[str, SurfaceArms] = {}

    def arms(self, surface: str, index: ItemIndex) -> SurfaceArms | None:
        """A surface's arms among the items of an index; None before the first batch."""
        batch, arms = self._batches.get(surface), self._arms.get(surface)
        if batch is None:
            return None
        if arms is None or arms.batch is not batch or arms.index is not index:
            arms = self._arms[surface] = SurfaceArms(batch, index)
        return arms
