"""Spreads daily budgets over the day.

Source: Agarwal, Ghosh, Wei and You, "Budget pacing for targeted online advertisements at LinkedIn",
KDD 2014: an ad takes part in a share of requests, its pass-through rate, which falls by a tenth
whenever more is spent than is due by now, and rises by a tenth otherwise.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from madang.ranker.v1 import pacing_pb2
from madang_ranker.campaigns.spend import Campaigns, day_of, spend_name
from madang_ranker.feedback import BATCH, SPEND_GROUP
from madang_runtime.changelog.base import ChangeLog
from madang_runtime.changelog.compacted import CompactedLog
from madang_runtime.errors import MadangError

log = logging.getLogger(__name__)

PACING, BATCH_KEY = "pacing", "all"
"""The compacted log of pacing, and its only key."""
START, STEP, LEAST = 0.1, 0.1, 1e-3
_YOUNG = 0.9  # of the time between batches
_LOOK_SECONDS = 2.0  # how soon a new campaign is seen
_COUNTED_SECONDS, _MOST_BEHIND = 10.0, 10 * BATCH
Numbers = NDArray[np.float64]


def due(share_of_day: float, hours: Sequence[float]) -> float:
    """The share of a daily budget that should be spent by a time of the day.

    Args:
        share_of_day: in [0, 1).
        hours: weights of the 24 hours.
    """
    ends = np.concatenate([[0.0], np.cumsum(hours)])
    return float(np.interp(share_of_day * 24, np.arange(25), ends / ends[-1]))


def next_rates(rates: Numbers, spent: Numbers, budgets: Numbers, due_share: float) -> Numbers:
    """Pass-through rates of n campaigns, from those before; 0 where the budget is spent."""
    ahead = spent > budgets * due_share
    moved = np.clip(np.where(ahead, rates * (1 - STEP), rates * (1 + STEP)), LEAST, 1.0)
    return np.where(spent >= budgets, 0.0, moved)


class Pacer:
    """Publishes a batch every so often, if spending is counted as it should be.

    Several may run: one that finds the last batch young leaves it.

    Args:
        feedback: beside which spending is counted.
        table: takes the batches, and has the last one when this process starts.
        campaigns: gives the campaigns as they are now.
        hours: when budgets should be spent: weights of the 24 hours.
        utc_offset_hours: when days begin.
        every: seconds between batches.
        behind: seconds since spending was counted.
    """

    def __init__(
        self,
        feedback: ChangeLog,
        table: CompactedLog,
        campaigns: Callable[[], Campaigns],
        hours: Sequence[float],
        utc_offset_hours: float,
        every: float,
        behind: Callable[[], float],
    ) -> None:
        self._behind = behind
        self._log = feedback
        self._table = table
        self._campaigns = campaigns
        self._hours = hours
        self._utc_offset_hours = utc_offset_hours
        self._every = every

    def run(self, stop: threading.Event) -> None:
        """Make batches until `stop`."""
        while True:
            try:
                self.make(time.time())
            except MadangError as error:
                log.warning("pacing waits: %s", error.message)
            if stop.wait(min(self._every, _LOOK_SECONDS)):
                return

    def make(self, now: float) -> None:
        """Publish a batch when it is time or campaigns have changed, unless nobody knows what was
        spent.

        Raises:
            MadangError: STORE_UNAVAILABLE.
        """
        budgets = {i: c.daily_budget_micros for i, c in self._campaigns().items()}
        ids = sorted(i for i, budget in budgets.items() if budget)
        payload = self._table.changes(0, 1).changed.get(BATCH_KEY)
        before = pacing_pb2.PacingBatch.FromString(payload or b"")
        young = 0 <= now - before.made_at.ToMilliseconds() / 1000 < _YOUNG * self._every
        if list(before.item_ids) == ids and (young or not ids):
            return
        if self._behind() > _COUNTED_SECONDS or self._log.behind(SPEND_GROUP) > _MOST_BEHIND:
            log.warning("pacing waits: clicks are not counted yet")
            return
        day, share = day_of(now, self._utc_offset_hours)
        rate = dict(zip(before.item_ids, np.frombuffer(before.rates, "<f4").tolist(), strict=True))
        if before.day != day:
            rate = {}
        spent_by = self._log.counters(spend_name(day))
        spent = np.array([spent_by.get(i, 0) for i in ids], np.int64)
        if young:  # only campaigns have changed: it is not yet time to move the rates of others
            rates = np.array([rate.get(i, START) for i in ids])
        else:
            rates = next_rates(
                np.array([rate.get(i) or START for i in ids]),
                spent.astype(np.float64),
                np.array([budgets[i] for i in ids], np.float64),
                due(share, self._hours),
            )
        batch = pacing_pb2.PacingBatch(
            day=day,
            item_ids=ids,
            spent_micros=spent.astype("<i8").tobytes(),
            rates=rates.astype("<f4").tobytes(),
        )
        if young:
            batch.made_at.CopyFrom(before.made_at)
        else:
            batch.made_at.FromMilliseconds(int(now * 1000))
        self._table.write({BATCH_KEY: batch.SerializeToString()})
