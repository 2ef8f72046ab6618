"""Which ads may be shown to a user now, and what a click on them pays."""

import threading
import time
from collections.abc import Mapping
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from madang.candidate.v1 import candidate_pb2 as pb
from madang.common.v1 import place_pb2
from madang.ranker.v1 import pacing_pb2
from madang_candidate.chance import chances
from madang_candidate.index import Floats, ItemIndex, Rows
from madang_runtime.changelog.table import LogTable
from madang_runtime.errors import Code, MadangError, reason

MICROS = 1_000_000
_HOUR_SECONDS = 3600
_BATCH = "all"


class PacedAds:
    """Bids and pass-through rates beside the items of an index.

    A campaign with a budget that the batch does not know yet has the rate 0; one of an item that is
    no ad is passed over.

    Args:
        campaigns: by item.
        batch: the last of pacing.
        index: the items.

    Attributes:
        bids: what a click pays, shape [items]; 0 for nothing.
        paced: whether an item has a budget, shape [items].
        rates: the share of users that may be shown an item that has one, shape [items].
    """

    def __init__(
        self,
        campaigns: Mapping[str, pb.Campaign],
        batch: pacing_pb2.PacingBatch,
        index: ItemIndex,
    ) -> None:
        self._seeds = index.seeds
        self.made_at = batch.made_at.ToMilliseconds() / 1000 if batch.item_ids else None
        rates = dict(zip(batch.item_ids, np.frombuffer(batch.rates, "<f4").tolist(), strict=True))
        self.bids: Floats = np.zeros(len(index), np.float32)
        self.paced: NDArray[np.bool_] = np.zeros(len(index), bool)
        self.rates: Floats = np.zeros(len(index), np.float32)
        for item_id, campaign in campaigns.items():
            row = index.row(item_id)
            if row is not None and index.kinds[row] == place_pb2.ITEM_KIND_AD:
                self.bids[row] = campaign.bid_micros / MICROS
                self.paced[row] = campaign.daily_budget_micros > 0
                self.rates[row] = rates.get(item_id, 0.0)

    def shown_to(self, user_id: str, hour: int, rows: Rows) -> Rows:
        """Those of some rows that may be shown to a user in an hour: the same on every replica, and
        in every request of theirs while the rates stand."""
        keep = ~self.paced[rows]
        paced = rows[~keep]
        seed = crc32(f"{user_id}\x1f{hour}".encode())
        keep[~keep] = chances(self._seeds[paced], seed) < self.rates[paced]
        return rows[keep]


class AdCampaigns:
    """The campaigns as they are now, and how they are paced; fed by two `Follower`s.

    Args:
        stale_seconds: how old a batch may be, by either clock, to vouch for a budget.
    """

    def __init__(self, stale_seconds: float) -> None:
        self._campaigns = LogTable(pb.Campaign.FromString)
        self._pacing = LogTable(pacing_pb2.PacingBatch.FromString)
        self._stale_seconds = stale_seconds
        self._lock = threading.Lock()
        # Of the last two indexes: requests that began with the one before may still run.
        self._made: dict[ItemIndex, PacedAds] = {}

    def apply_campaigns(self, changed: Mapping[str, bytes | None], anew: bool) -> None:
        """Take campaigns by item, None for ended ones."""
        self._campaigns.apply(changed, anew)
        self._renew()

    def apply_pacing(self, changed: Mapping[str, bytes | None], anew: bool) -> None:
        """Take the last batch."""
        self._pacing.apply(changed, anew)
        self._renew()

    def _renew(self) -> None:
        with self._lock:
            self._made = {index: self._make(index) for index in self._made}

    def _make(self, index: ItemIndex) -> PacedAds:
        batch = self._pacing.get(_BATCH) or pacing_pb2.PacingBatch()
        return PacedAds(self._campaigns.values, batch, index)

    def of(self, index: ItemIndex) -> PacedAds | None:
        """What there is to know of an index's ads; None without any campaign."""
        if not self._campaigns.values:
            return None
        if index not in (made := self._made):
            with self._lock:
                if index not in (made := self._made):
                    last = dict([*made.items()][-1:])
                    made = self._made = last | {index: self._make(index)}
        return made[index]

    def allowed(self, ads: PacedAds, user_id: str, rows: Rows) -> tuple[Rows, MadangError | None]:
        """Those of some rows that may be shown to a user now; and why budgets can't be kept, in
        which case no ad that has one may."""
        if not ads.paced[rows].any():
            return rows, None
        if stale := self._stale(ads):
            return rows[~ads.paced[rows]], stale
        return ads.shown_to(user_id, int(time.time() // _HOUR_SECONDS), rows), None

    def solvent(self, ads: PacedAds, rows: Rows) -> Rows:
        """Those of some rows that no spent budget keeps from being shown to somebody."""
        keep = ~ads.paced[rows]
        return rows[keep] if self._stale(ads) else rows[keep | (ads.rates[rows] > 0)]

    def _stale(self, ads: PacedAds) -> MadangError | None:
        age = 0.0 if ads.made_at is None else time.time() - ads.made_at
        if abs(age) <= self._stale_seconds:
            return None
        return MadangError(
            Code.UNAVAILABLE,
            reason.ERROR_REASON_NOT_FRESH_YET,
            f"spending was last read {age:.0f} s ago",
        )
