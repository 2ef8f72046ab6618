"""A whole list, of which a request shows one page."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang.ranker.v1 import ranker_pb2 as pb
from madang_ranker.bandit.layer import Tried
from madang_ranker.proposed import Floats, Proposed
from madang_ranker.scoring import ScoreRequest, Scores


@dataclass(frozen=True)
class Listing:
    """n items in order, and what they were ordered by.

    Attributes:
        proposed: the items.
        inputs, scores: of the model; None when scoring was degraded.
        utility: by item, shape [n].
        order: indices of the items, as shown.
        tried: what the bandit did, None when nothing.
    """

    proposed: Proposed
    inputs: ScoreRequest | None
    scores: Scores | None
    utility: Floats
    order: NDArray[np.intp]
    tried: Tried | None

    def items(self, page: slice) -> list[pb.RecommendedItem]:
        """One page as it is answered."""
        shown = self.order[page]
        explored = self.tried.list.explored[page] if self.tried else np.zeros(len(shown), bool)
        return [
            self._item(i, tried) for i, tried in zip(shown.tolist(), explored.tolist(), strict=True)
        ]

    def _item(self, i: int, explored: bool) -> pb.RecommendedItem:
        return pb.RecommendedItem(
            item_id=self.proposed.item_ids[i],
            kind=self.proposed.kinds[i],  # type: ignore[arg-type]
            score=float(self.utility[i]),
            click_probability=float(self.scores.click[i]) if self.scores else 0.0,
            conversion_probability=float(self.scores.order[i]) if self.scores else 0.0,
            hide_probability=float(self.scores.hide[i]) if self.scores else 0.0,
            reasons=self.proposed.reasons.at(i),
            explored=explored,
        )
