"""How far collections have the documents' log: written by who feeds them, read by who searches."""

import time

from madang.search.v1 import document_record_pb2
from madang_runtime.changelog.compacted import CompactedLog
from madang_runtime.changelog.follower import Follower
from madang_runtime.changelog.table import LogTable
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.scope import outgoing_timeout
from madang_runtime.times import now_ms

FeedRecord = document_record_pb2.FeedRecord

PROGRESS = "milvus"
"""The compacted log of progress: a `FeedRecord` each collection."""
_LONGEST_REACH, _LOOK_SECONDS = 2.0, 0.02


class FeedProgress:
    """What is known of all collections, as their feeder said last.

    Args:
        table: the log of progress.
        metrics: count what is read.
    """

    def __init__(self, table: CompactedLog, metrics: Metrics) -> None:
        self._records = LogTable(FeedRecord.FromString)
        self._log = Follower(table, PROGRESS, self._records.apply, metrics)

    def start(self) -> None:
        """Read, and go on reading."""
        self._log.start()

    def close(self) -> None:
        """Stop reading."""
        self._log.close()

    def of(self, collection: str) -> FeedRecord:
        """What is known of a collection; an empty record when nothing is."""
        return self._records.get(collection) or FeedRecord()

    def collections(self) -> set[str]:
        """All of which anything is known."""
        return {*self._records.values}

    def renew(self) -> None:
        """Read what is new, in a round trip. Raises: MadangError NOT_FRESH_YET."""
        self._log.renew()


class FedLog:
    """How far one collection has the log; see `Followed`."""

    def __init__(self, progress: FeedProgress, collection: str) -> None:
        self._progress, self._collection = progress, collection

    @property
    def position(self) -> int:
        """Up to where it has all changes."""
        return self._progress.of(self._collection).position

    @property
    def age(self) -> float:
        """Seconds since it last had all changes, as its feeder's clock says."""
        seen = self._progress.of(self._collection).seen_time.ToMilliseconds()
        return max(now_ms() - seen, 0) / 1000

    def reach(self, position: int) -> None:
        """Wait until it has all changes up to a position.

        Raises:
            MadangError: NOT_FRESH_YET, DEADLINE_EXCEEDED.
        """
        if self.position >= position:
            return
        until = time.monotonic() + outgoing_timeout(_LONGEST_REACH)
        self._progress.renew()
        while self.position < position:
            if time.monotonic() > until:
                raise MadangError(
                    Code.UNAVAILABLE,
                    reason.ERROR_REASON_NOT_FRESH_YET,
                    f"documents: Milvus has reached {self.position}, asked for {position}",
                    retry_after=0.1,
                )
            time.sleep(_LOOK_SECONDS)
            self._progress.renew()
