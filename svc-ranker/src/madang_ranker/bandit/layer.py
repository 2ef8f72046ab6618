"""The ranking layer: what the bandit does to a list."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang.ranker.v1.decision_pb2 import Exploration
from madang_ranker.bandit.draws import BatchDraws, Drawn
from madang_ranker.bandit.explore import Explored, explore
from madang_ranker.bandit.policy import BanditPolicy
from madang_ranker.proposed import Proposed

EXPLORE = "explore"
"""The source of svc-candidate that is the filter layer."""
_HOUR_MS = 3_600_000

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Tried:
    """A list that the bandit had a hand in.

    Attributes:
        list: the merged list.
        proposed: indices of the items that passed the filter; `drawn` has a row of each.
        batch: whose draws they are.
        segment, ranking: what was drawn for.
    """

    list: Explored
    proposed: Ints
    drawn: Drawn
    batch: BatchDraws
    segment: str
    ranking: int

    def of_page(self, proposed: Proposed, page: slice) -> Exploration:
        """What is kept of one page of the list."""
        row = np.zeros(len(self.list.order), np.intp)
        row[self.proposed] = np.arange(len(self.proposed))
        shown, pool = self.list.order[page], row[self.list.pool]
        explored = self.list.explored[page]
        rates = np.where(explored, self.drawn.rates[row[shown], self.ranking], 0)
        return Exploration(
            batch_id=self.batch.batch_id,
            segment=self.segment,
            ranking=self.ranking,
            rankings=self.batch.rankings,
            explored=explored.tobytes(),
            rates=rates.astype("<f4").tobytes(),
            pool_item_ids=[proposed.item_ids[i] for i in self.list.pool.tolist()],
            pool_impressions=self.drawn.impressions[pool].astype("<u4").tobytes(),
            pool_rewards=self.drawn.rewards[pool].astype("<u4").tobytes(),
        )


class BanditLayer:
    """Merges draws into lists.

    Args:
        draws: gives the draws of a surface, None before its first batch.
    """

    def __init__(self, draws: Callable[[str], BatchDraws | None]) -> None:
        self._draws = draws

    def merge(
        self,
        surface: str,
        policy: BanditPolicy | None,
        user_id: str,
        time_ms: int,
        proposed: Proposed,
        order: Ints,
    ) -> Tried | None:
        """Let the bandit try items in a list; None where nothing explores.

        Args:
            surface, policy: where, and how it explores.
            user_id, time_ms: who keeps a ranking for an hour.
            proposed: the items.
            order: their indices, best first as the model has it.
        """
        batch = self._draws(surface) if policy else None
        tried = proposed.reasons.given_by(EXPLORE)
        if policy is None or batch is None or not len(tried):
            return None
        drawn = batch.draw(proposed.segment, [proposed.item_ids[i] for i in tried.tolist()])
        ranking = batch.ranking_of(user_id, time_ms // _HOUR_MS)
        merged = explore(order, tried, drawn.rates, ranking, policy)
        return Tried(merged, tried, drawn, batch, proposed.segment, ranking)
