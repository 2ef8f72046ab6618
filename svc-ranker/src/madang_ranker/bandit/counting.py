"""Counts what arms earned, by segment of users, once an event."""

import threading
import time
from collections.abc import Mapping
from functools import partial

from google.protobuf.message import DecodeError

from madang.feature.v1 import feature_store_pb2
from madang.ranker.v1 import ranker_pb2 as pb
from madang_ranker.bandit.policy import BanditPolicy
from madang_ranker.dependencies import Features
from madang_ranker.feedback import BANDIT_GROUP, BATCH, patiently
from madang_ranker.surfaces import DEFAULT
from madang_runtime.changelog.base import ChangeLog, Count, Entry
from madang_runtime.segments import SegmentBy

IMPRESSION, REWARD = "i", "r"
_SEPARATOR = "\x1f"
REWARDS = {"CLICK": pb.FEEDBACK_TYPE_CLICK, "CONVERSION": pb.FEEDBACK_TYPE_CONVERSION}


def bucket_name(surface: str, bucket: int) -> str:
    """The set of counters of a surface's bucket."""
    return f"{surface}:{bucket}"


def counter_name(kind: str, segment: str, item_id: str) -> str:
    """The counter of an arm: IMPRESSION or REWARD, in a segment."""
    return _SEPARATOR.join((kind, segment, item_id))


def parse_counter(name: str) -> tuple[str, str, str]:
    """Kind, segment and item of a counter."""
    kind, segment, item_id = name.split(_SEPARATOR, 2)
    return kind, segment, item_id


class BanditCounter:
    """Works off the feedback log into counters beside it.

    An event counts in the bucket in which it is worked off: a reward may stand in a later one than
    its impression, and leaves the window as much later.

    Args:
        feedback: the log.
        features: tells users' segments.
        segment_by: which features say so.
        policies: by surface; events of other surfaces are passed over.
        name: of this consumer, unlike any other's.
    """

    def __init__(
        self,
        feedback: ChangeLog,
        features: Features,
        segment_by: SegmentBy,
        policies: Mapping[str, BanditPolicy],
        name: str,
    ) -> None:
        self._log = feedback
        self._features = features
        self._segment_by = segment_by
        self._policies = policies
        self._name = name
        # A bucket outlives its window by two, for readers whose clocks are late.
        self._keep = max(p.window_seconds + 2 * p.bucket_seconds for p in policies.values())

    def run(self, stop: threading.Event) -> None:
        """Count until `stop`."""
        while not stop.is_set():
            entries = patiently(stop, lambda: self._log.take(BANDIT_GROUP, self._name, BATCH, 1.0))
            if entries:
                patiently(stop, partial(self._count, entries))

    def _count(self, entries: list[Entry]) -> list[Entry]:
        events = {entry.position: _event(entry) for entry in entries}
        counting = {p: kind for p, event in events.items() if (kind := self._kind(event))}
        segments = self._segments({events[p].user_id for p in counting})
        now = time.time()
        counted: dict[str, list[Count]] = {position: [] for position in events}
        for position, kind in counting.items():
            event = events[position]
            surface = event.surface or DEFAULT
            bucket = bucket_name(surface, self._policies[surface].buckets(now)[-1])
            counted[position] = [
                Count(bucket, counter_name(kind, segment, event.item_id))
                for segment in segments[event.user_id]
            ]
        self._log.count(BANDIT_GROUP, counted, self._keep)
        return entries

    def _kind(self, event: pb.FeedbackEvent) -> str:
        """What an event counts as; "" for nothing."""
        policy = self._policies.get(event.surface or DEFAULT)
        if policy and event.type == pb.FEEDBACK_TYPE_IMPRESSION:
            return IMPRESSION
        return REWARD if policy and event.type == REWARDS[policy.reward] else ""

    def _segments(self, users: set[str]) -> dict[str, list[str]]:
        user_ids = sorted(users)
        lookups = self._segment_by.lookups(user_ids) if users else []
        rows = (
            self._features(feature_store_pb2.LookupFeaturesRequest(lookups=lookups)).rows
            if lookups
            else []
        )
        return dict(zip(user_ids, self._segment_by.of(rows, len(user_ids)), strict=True))


def _event(entry: Entry) -> pb.FeedbackEvent:
    """The event; an empty one, which counts nothing, when a bug let in what is none."""
    try:
        return pb.FeedbackEvent.FromString(entry.payload)
    except DecodeError:
        return pb.FeedbackEvent()
