"""What is to be ranked."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from madang_ranker.reasons import Reasons
from madang_runtime.segments import EVERYBODY

REACTIVE = "reactive"
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Proposed:
    """What is to be ranked: n items, and why they are proposed.

    Attributes:
        item_ids: best first, as the proposer sees it.
        kinds: one ItemKind byte an item.
        order: the proposer's scores, descending, which rank when scoring can't.
        reasons: who proposed what.
        segment: of the user, the most specific one.
        freshness_token: of the items that were proposed from.
        bids: what each item pays for a click, None when nothing pays.
    """

    item_ids: list[str]
    kinds: bytes
    order: Floats
    reasons: Reasons
    segment: str = EVERYBODY
    freshness_token: str = ""
    bids: Floats | None = None

    @cached_property
    def reactive(self) -> Floats:
        """How near each item is to the user's last actions, in [0, 1]."""
        return self.reasons.strength(REACTIVE)
