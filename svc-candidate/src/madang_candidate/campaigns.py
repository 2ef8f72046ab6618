"""Which ads may be shown to a user now, and what a click on them pays."""

import time
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from madang.candidate.v1 import candidate_pb2 as pb
from madang.ranker.v1 import pacing_pb2
from madang_candidate.chance import chances, seeds
from madang_candidate.index import Floats, ItemIndex, Rows
from madang_runtime.changelog.table import LogTable
from madang_runtime.errors import Code, MadangError, reason

MICROS = 1_000_000
_HOUR_SECONDS = 3600
_BATCH = "all"


class PacedAds:
    """Bids and pass-through rates beside the items of an index.

    A campaign with a budget that the batch does not know yet has the rate 0.

    Args:
        campaigns: by item.
        batch: the last of pacing.
        index: the items.
    """

    def __init__(
        self, campaigns: LogTable[pb.Campaign], batch: pacing_pb2.PacingBatch, index: ItemIndex
    ) -> None:
        self.of = campaigns.values, batch, index
        rates = dict(zip(batch.item_ids, np.frombuffer(batch.rates, "<f4").tolist(), strict=True))
        self.bids: Floats = np.zeros(len(index), np.float32)
        self.rates: Floats = np.ones(len(index), np.float32)
        self.paced: NDArray[np.bool_] = np.zeros(len(index), bool)
        for item_id, campaign in campaigns.values.items():
            if (row := index.row(item_id)) is not None:
                self.bids[row] = campaign.bid_micros / MICROS
                if campaign.daily_budget_micros:
                    self.paced[row] = True
                    self.rates[row] = rates.get(item_id, 0.0)
        self._seeds = seeds(index.ids)

    def shown_to(self, user_id: str, hour: int, rows: Rows) -> Rows:
        """Those of some rows that may be shown to a user in an hour: the same on every replica, and
        in every request of theirs while the rates stand."""
        chance = chances(self._seeds[rows], crc32(f"{user_id}\x1f{hour}".encode()))
        return rows[chance < self.rates[rows]]


class AdCampaigns:
    """The campaigns as they are now, and how they are paced.

    Args:
        campaigns: by item.
        pacing: the last batch.
        stale_seconds: age from which a batch can't vouch for a budget any more.
    """

    def __init__(
        self,
        campaigns: LogTable[pb.Campaign],
        pacing: LogTable[pacing_pb2.PacingBatch],
        stale_seconds: float,
    ) -> None:
        self._campaigns = campaigns
        self._pacing = pacing
        self._stale_seconds = stale_seconds
        self._none = pacing_pb2.PacingBatch()
        self._made: PacedAds | None = None

    def of(self, index: ItemIndex) -> PacedAds | None:
        """What there is to know of an index's ads; None without any campaign."""
        if not self._campaigns.values:
            return None
        batch, made = self._pacing.get(_BATCH) or self._none, self._made
        # By identity: all three are replaced when they change.
        wanted = self._campaigns.values, batch, index
        if made is None or any(a is not b for a, b in zip(made.of, wanted, strict=True)):
            made = self._made = PacedAds(self._campaigns, batch, index)
        return made

    def allowed(self, ads: PacedAds, user_id: str, rows: Rows) -> tuple[Rows, MadangError | None]:
        """Those of some rows that may be shown to a user now; and why budgets can't be kept, in
        which case no ad that has one may."""
        now = time.time()
        batch = ads.of[1]
        age = now - batch.made_at.ToMilliseconds() / 1000
        if batch.item_ids and age > self._stale_seconds:
            stale = MadangError(
                Code.UNAVAILABLE,
                reason.ERROR_REASON_NOT_FRESH_YET,
                f"spending was last read {age:.0f} s ago",
            )
            return rows[~ads.paced[rows]], stale
        return ads.shown_to(user_id, int(now // _HOUR_SECONDS), rows), None
