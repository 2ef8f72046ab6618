"""Brings a collection of Milvus to the state of the documents' log, and keeps it there."""

import time

from madang.search.v1 import document_record_pb2
from madang_runtime.changelog.compacted import Changes, CompactedLog
from madang_runtime.text.encoder import Encoder
from madang_runtime.times import now_ms
from madang_search.milvus.collection import MilvusCollection
from madang_search.milvus.progress import FeedRecord
from madang_search.records import RecordReader

_AT_ONCE = 500
_TOLD_SECONDS = 1.0


class CollectionFeed:
    """Feeds one collection. One thread uses it.

    Whatever was put in can be put in again, so a feed that ends anywhere goes on from where it last
    said that it was.

    Args:
        collection: to be fed.
        encoder: whose vectors it holds.
        reader: of the log's records.
        documents: the log.
        progress: gets what has been done.
        before: what it got last; an empty record in the beginning.
    """

    def __init__(
        self,
        collection: MilvusCollection,
        encoder: Encoder,
        reader: RecordReader,
        documents: CompactedLog,
        progress: CompactedLog,
        before: FeedRecord,
    ) -> None:
        self._collection, self._encoder, self._reader = collection, encoder, reader
        self._documents, self._progress = documents, progress
        self._state = FeedRecord()
        self._state.CopyFrom(before)
        self._told = 0.0
        self._open = False

    def step(self) -> bool:
        """Take up to some hundred changes. Returns: whether there are more.

        Raises:
            MadangError: STORE_UNAVAILABLE; the step can then be done again.
        """
        if not self._open and self._collection.open(self._encoder.dimension):
            self._state.Clear()
        self._open = False  # a server that failed may have lost the collection, or not loaded it
        more = self._step()
        self._open = True
        return more

    def _step(self) -> bool:
        state = FeedRecord()
        state.CopyFrom(self._state)
        found = self._documents.changes(state.position, _AT_ONCE)
        if found.store != state.store or found.latest < state.position:
            # Another log, or one that may have lost writes: all of it replaces all that is here.
            state.store, state.epoch, state.swept = found.store, now_ms(), False
            found = self._documents.changes(0, _AT_ONCE)
        self._take(found, state.epoch)
        state.position = found.position
        whole = found.position >= found.latest
        if whole and not state.swept:
            self._collection.sweep(state.epoch)
            state.swept = True
        if whole:
            state.seen_time.GetCurrentTime()
        self._tell(state)
        return not whole

    def _take(self, found: Changes, epoch: int) -> None:
        if not found.changed:
            return
        records = [
            document_record_pb2.DocumentRecord.FromString(payload)
            for payload in found.changed.values()
            if payload is not None
        ]
        self._collection.put(
            [record.document for record in records],
            self._reader.terms(records),
            self._reader.vectors(self._encoder, records),
            epoch,
        )
        self._collection.delete([key for key, payload in found.changed.items() if payload is None])

    def _tell(self, state: FeedRecord) -> None:
        """Say what was done once every reader can see it; that all is still there, each second."""
        before = self._state
        same = (state.position, state.epoch, state.swept) == (
            before.position,
            before.epoch,
            before.swept,
        )
        if not same or time.monotonic() - self._told > _TOLD_SECONDS:
            self._collection.settle()
            self._progress.write({self._collection.name: state.SerializeToString()})
            self._told = time.monotonic()
        self._state = state
