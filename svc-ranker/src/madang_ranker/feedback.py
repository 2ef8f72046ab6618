"""What users did with what they were shown: taken durably, then applied once."""

import logging
import threading
from collections.abc import Callable, Sequence

from madang.feature.v1 import feature_store_pb2
from madang.ranker.v1 import ranker_pb2 as pb
from madang_runtime.changelog.base import ChangeLog, Entry
from madang_runtime.dependency import Dependency
from madang_runtime.errors import Code, MadangError, invalid, reason
from madang_runtime.metrics import Metrics
from madang_runtime.times import given_ms, now_ms

log = logging.getLogger(__name__)

LOG = "feedback"
GROUP, BANDIT_GROUP, ARCHIVE_GROUP, SPEND_GROUP = "features", "bandit", "archive", "spend"
_ALL_GROUPS = {GROUP, BANDIT_GROUP, ARCHIVE_GROUP, SPEND_GROUP}
_FUTURE_MS = 300_000
BATCH = 500
_RETRY_SECONDS = 0.2
_TRIM_SECONDS = 10.0
_IDLE_SECONDS = 3600.0  # another configuration may still run, as in a rolling update

ACTIONS = {
    pb.FEEDBACK_TYPE_IMPRESSION: feature_store_pb2.ACTION_TYPE_VIEW,
    pb.FEEDBACK_TYPE_CLICK: feature_store_pb2.ACTION_TYPE_CLICK,
    pb.FEEDBACK_TYPE_CONVERSION: feature_store_pb2.ACTION_TYPE_ORDER,
    pb.FEEDBACK_TYPE_HIDE: feature_store_pb2.ACTION_TYPE_HIDE,
}

RecordActions = Dependency[
    feature_store_pb2.RecordActionsRequest, feature_store_pb2.RecordActionsResponse
]


class FeedbackIntake:
    """Takes events into the log."""

    def __init__(self, feedback: ChangeLog) -> None:
        self._log = feedback

    def record(self, events: Sequence[pb.FeedbackEvent]) -> pb.RecordFeedbackResponse:
        """Append events, all or none.

        Raises:
            MadangError: FIELD_INVALID, LOG_FULL, STORE_UNAVAILABLE.
        """
        now = now_ms()
        taken = self._log.append([(e.event_id, _timed(e, i, now)) for i, e in enumerate(events)])
        return pb.RecordFeedbackResponse(accepted=sum(taken), duplicates=len(taken) - sum(taken))


def _timed(event: pb.FeedbackEvent, i: int, now: int) -> bytes:
    """The event with its time, which must be its own and not that of whoever applies it."""
    time_ms = given_ms(event, "event_time", now, f"events[{i}].")
    if time_ms > now + _FUTURE_MS:
        raise invalid(f"events[{i}].event_time", "is more than 5 minutes in the future")
    kept = pb.FeedbackEvent()
    kept.CopyFrom(event)
    # A clock that is ahead counts as now: the store's may be behind ours.
    kept.event_time.FromMilliseconds(min(time_ms, now))
    return kept.SerializeToString()


class FeedbackConsumer:
    """Applies the log to the feature store.

    The log gives an entry at least once and the store records an event's id once, so that each
    event counts exactly once, whoever dies in between.

    Args:
        feedback: the log.
        rejected: keeps events that the store refuses, which is a bug, for people to look at.
        record: the feature store.
        name: of this consumer, unlike any other's.
        groups: that work the log off; nothing is kept for others.
    """

    def __init__(
        self,
        feedback: ChangeLog,
        rejected: ChangeLog,
        record: RecordActions,
        metrics: Metrics,
        name: str,
        groups: Sequence[str] = (GROUP,),
    ) -> None:
        self._groups = groups
        self._log = feedback
        self._rejected = rejected
        self._record = record
        self._metrics = metrics
        self._name = name

    def run(self, stop: threading.Event) -> None:
        """Apply until `stop`."""
        housekeeping = threading.Thread(target=self._keep_house, args=(stop,), daemon=True)
        housekeeping.start()
        while not stop.is_set():
            entries = patiently(stop, lambda: self._log.take(GROUP, self._name, BATCH, 1.0))
            if entries:
                self._apply(stop, entries)

    def _apply(self, stop: threading.Event, entries: list[Entry]) -> None:
        def call() -> list[Entry]:
            actions = [_action(entry) for entry in entries]
            self._record(feature_store_pb2.RecordActionsRequest(actions=actions))
            self._log.done(GROUP, [entry.position for entry in entries])
            return entries

        try:
            applied = patiently(stop, call)
        except MadangError as error:  # INVALID_ARGUMENT
            self._refused(stop, entries, error)
        else:
            self._metrics.log_applied.labels(LOG).inc(len(applied))

    def _refused(self, stop: threading.Event, entries: list[Entry], error: MadangError) -> None:
        """Find the one that is refused, and set it aside."""
        if len(entries) > 1:
            for entry in entries:
                self._apply(stop, [entry])
            return
        log.error("feedback %s is set aside: %s", entries[0].position, error.message)
        patiently(stop, lambda: self._set_aside(entries[0]))

    def _set_aside(self, entry: Entry) -> list[Entry]:
        try:
            self._rejected.append([(entry.position, entry.payload)])
        except MadangError as error:
            if error.reason != reason.ERROR_REASON_LOG_FULL:
                raise
            log.error("nobody looks at what is set aside; lost: %r", entry.payload)
        self._log.done(GROUP, [entry.position])
        return []

    def _keep_house(self, stop: threading.Event) -> None:
        while not stop.wait(_TRIM_SECONDS):
            try:
                for group in _ALL_GROUPS.difference(self._groups):
                    self._log.forget(group, _IDLE_SECONDS)
                self._log.trim()
                for group in self._groups:
                    self._metrics.log_behind.labels(LOG, group).set(self._log.behind(group))
            except MadangError as error:
                log.warning("feedback is not trimmed: %s", error.message)


def _action(entry: Entry) -> feature_store_pb2.Action:
    event = pb.FeedbackEvent.FromString(entry.payload)
    if event.type not in ACTIONS:
        raise invalid("type", f"{event.type} is not known to this version")
    return feature_store_pb2.Action(
        event_id=event.event_id,
        user_id=event.user_id,
        type=ACTIONS[event.type],
        item_id=event.item_id,
        event_time=event.event_time,
    )


def patiently(stop: threading.Event, call: Callable[[], list[Entry]]) -> list[Entry]:
    """Repeat a call while what it needs is away; nothing once `stop` is set.

    Whatever is not about the events themselves is taken to pass: an outage, a version that is not
    rolled out yet, a bug that will be mended. The events wait in the log.

    Raises:
        MadangError: INVALID_ARGUMENT.
    """
    while not stop.is_set():
        try:
            return call()
        except MadangError as error:
            if error.code == Code.INVALID_ARGUMENT:
                raise
            log.warning("feedback waits: %s", error.message)
            stop.wait(error.retry_after or _RETRY_SECONDS)
    return []
