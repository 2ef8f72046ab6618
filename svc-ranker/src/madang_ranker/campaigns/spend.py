"""Charges clicks on ads to their campaigns, once each."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from google.protobuf.message import DecodeError

from madang.candidate.v1 import candidate_pb2
from madang.ranker.v1 import ranker_pb2 as pb
from madang_ranker.feedback import BATCH, SPEND_GROUP, patiently
from madang_runtime.changelog.base import ChangeLog, Count, Entry

CAMPAIGNS = "campaigns"
"""The compacted log of campaigns by item, which svc-candidate writes."""
Campaigns = Mapping[str, candidate_pb2.Campaign]
_KEPT_SECONDS = 3 * 86_400.0


def spend_name(day: int) -> str:
    """The set of counters of a day, in millionths of the currency by item."""
    return f"spend:{day}"


def day_of(now: float, utc_offset_hours: float) -> tuple[int, float]:
    """The day of a time in seconds since the epoch, and the share of that day that is over."""
    days = (now + utc_offset_hours * 3600) / 86_400
    return int(days // 1), days % 1


class SpendCounter:
    """Works off the feedback log into what each campaign has spent today.

    A click costs the bid that stands when it is worked off, and counts in that day.

    Args:
        feedback: the log.
        campaigns: gives the campaigns as they are now.
        utc_offset_hours: when days begin.
        name: of this consumer, unlike any other's.
    """

    def __init__(
        self,
        feedback: ChangeLog,
        campaigns: Callable[[], Campaigns],
        utc_offset_hours: float,
        name: str,
    ) -> None:
        self._log = feedback
        self._campaigns = campaigns
        self._utc_offset_hours = utc_offset_hours
        self._name = name
        self._counted = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since everything that was taken was counted."""
        return time.monotonic() - self._counted

    def run(self, stop: threading.Event) -> None:
        """Count until `stop`."""
        while not stop.is_set():
            entries = patiently(stop, lambda: self._log.take(SPEND_GROUP, self._name, BATCH, 1.0))
            if entries:
                patiently(stop, partial(self._count, entries))
            self._counted = time.monotonic()

    def _count(self, entries: list[Entry]) -> list[Entry]:
        clicked = {entry.position: _clicked(entry) for entry in entries}
        campaigns = self._campaigns() if any(clicked.values()) else {}
        day, _ = day_of(time.time(), self._utc_offset_hours)
        charged = {
            position: [Count(spend_name(day), item_id, campaigns[item_id].bid_micros)]
            if item_id in campaigns
            else []
            for position, item_id in clicked.items()
        }
        self._log.count(SPEND_GROUP, charged, _KEPT_SECONDS)
        return entries


def _clicked(entry: Entry) -> str:
    """The item of a click; "" of any other event, or when a bug let in what is none."""
    try:
        event = pb.FeedbackEvent.FromString(entry.payload)
    except DecodeError:
        return ""
    return event.item_id if event.type == pb.FEEDBACK_TYPE_CLICK else ""
