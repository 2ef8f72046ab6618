"""The index `exact`: every document in memory, alike on every replica."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang.search.v1 import search_pb2 as pb
from madang_runtime.stages import Stages
from madang_runtime.text.encoder import Encoder
from madang_search.analysis import Analyzer
from madang_search.documents import Columns, Corpus, RowKeeper, Rows, Wanted
from madang_search.index import Followed, Found, Query, Reader
from madang_search.lexical import LexicalIndex
from madang_search.nearest import NearestSearcher
from madang_search.records import DocumentRecord, RecordReader, Terms, encoded, text_of

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _Fresh:
    """A document that is about to be put in: its terms, and its vector of each encoder."""

    document: pb.Document
    terms: Terms
    vectors: Mapping[Encoder, Floats]


class ExactDocuments:
    """Puts the changes of the document log into memory; fed by a `Follower`.

    Args:
        analyzer: finds terms.
        weights: of the lexical fields.
    """

    def __init__(self, analyzer: Analyzer, weights: dict[str, float]) -> None:
        self._reader, self._weights = RecordReader(analyzer), weights
        self._lock = threading.Lock()
        # The last two versions: requests that began with the one before may still run.
        self._vectors: dict[Encoder, Floats] = {}
        self._corpora: Mapping[Encoder, Corpus] = {}
        self._clear()

    def apply(self, changed: Mapping[str, bytes | None], anew: bool) -> None:
        """Take records by document id, None for deleted ones."""
        records = {
            key: DocumentRecord.FromString(payload)
            for key, payload in changed.items()
            if payload is not None
        }
        with self._lock:
            fresh = self._fresh([*records.values()])
            if anew:
                self._clear()
            for document_id, payload in changed.items():
                if payload is None:
                    self._delete(document_id)
            for one in fresh:
                self._put(one)
            self._publish()

    def attach(self, encoder: Encoder) -> None:
        """Make the vectors of an encoder that is about to serve."""
        with self._lock:
            _, documents = self._current()
        # This takes as long as it takes; what changes meanwhile is made up for after it.
        made = dict(zip(map(id, documents), encoded(encoder, documents), strict=True))
        with self._lock:
            rows, now = self._current()
            late = [document for document in now if id(document) not in made]
            made |= dict(zip(map(id, late), encoded(encoder, late), strict=True))
            vectors = np.zeros((len(self._columns), encoder.dimension), np.float32)
            for row, document in zip(rows, now, strict=True):
                vectors[row] = made[id(document)]
            self._vectors = dict([*self._vectors.items()][-1:]) | {encoder: vectors}
            self._publish()

    def corpus(self, encoder: Encoder) -> Corpus:
        """The documents as they are now, with the vectors of an attached encoder."""
        return self._corpora[encoder]

    def _current(self) -> tuple[list[int], list[pb.Document]]:
        """The rows that hold documents, and those."""
        rows = [*self._keeper.row_of.values()]
        held = self._columns.documents
        return rows, [document for row in rows if (document := held[row]) is not None]

    def _clear(self) -> None:
        self._columns, self._keeper = Columns(), RowKeeper()
        self._lexical = LexicalIndex(self._weights)
        self._codes: dict[str, int] = {}
        self._vectors = {
            encoder: np.zeros((len(self._columns), encoder.dimension), np.float32)
            for encoder in self._vectors
        }

    def _fresh(self, records: Sequence[DocumentRecord]) -> list[_Fresh]:
        """Whatever may fail or takes long, before anything is changed."""
        read = self._reader
        vectors = {encoder: read.vectors(encoder, records) for encoder in self._vectors}
        return [
            _Fresh(record.document, terms, {encoder: made[at] for encoder, made in vectors.items()})
            for at, (record, terms) in enumerate(zip(records, read.terms(records), strict=True))
        ]

    def _delete(self, document_id: str) -> None:
        row = self._keeper.release(document_id)
        if row is not None:
            self._lexical.remove(row)

    def _put(self, fresh: _Fresh) -> None:
        document = fresh.document
        row, before = self._keeper.take(document.document_id)
        if before is not None:
            self._lexical.remove(before)
        if row >= len(self._columns):
            self._columns = self._columns.grown()
            self._vectors = {
                encoder: np.concatenate([vectors, np.zeros_like(vectors)])
                for encoder, vectors in self._vectors.items()
            }
        category = self._codes.setdefault(document.category, len(self._codes))
        self._columns.put(row, document, category)
        for encoder, vectors in self._vectors.items():
            vectors[row] = fresh.vectors[encoder]
        self._lexical.put(row, fresh.terms.title, fresh.terms.body, text_of(document))

    def _publish(self) -> None:
        used = self._keeper.used
        alive = np.zeros(used, bool)
        alive[[*self._keeper.row_of.values()]] = True
        view = self._lexical.view()
        self._corpora = {
            encoder: Corpus(
                self._columns,
                vectors[:used],
                alive,
                dict(self._codes),
                view,
                len(self._keeper.row_of),
            )
            for encoder, vectors in self._vectors.items()
        }


class ExactIndex:
    """Searches the documents with the vectors of one encoder.

    Args:
        documents: in memory, with the encoder attached.
        nearest: encodes and searches.
        log: keeps the documents at the state of their log.
    """

    name = "exact"

    def __init__(self, documents: ExactDocuments, nearest: NearestSearcher, log: Followed) -> None:
        self._documents, self._nearest, self.log = documents, nearest, log

    @property
    def size(self) -> int:
        """How many documents there are."""
        return self._documents.corpus(self._nearest.encoder).size

    def search(
        self,
        query: Query,
        wanted: Wanted,
        method: "pb.SearchMethod.ValueType",
        depth: int,
        stages: Stages,
    ) -> Found:
        """See `DocumentIndex`."""
        corpus = self._documents.corpus(self._nearest.encoder)
        allowed = corpus.allowed(wanted)
        scores = np.zeros(len(allowed), np.float32)
        near = np.empty(0, np.int64)
        words = near
        similarities = np.zeros(len(allowed), np.float32)
        if method != pb.SEARCH_METHOD_DENSE:
            with stages.stage("lexical"):
                words, bm25 = corpus.lexical.search(query.terms, query.text, allowed, depth)
                scores[words] = bm25
        if method != pb.SEARCH_METHOD_LEXICAL:
            with stages.stage("dense"):
                near, cosines, vector = self._nearest(query.text, corpus.vectors, allowed, depth)
                similarities[words] = corpus.vectors[words] @ vector
                similarities[near] = cosines
        rows = np.union1d(words, near)
        return Found(_reader(corpus, rows), scores[rows], similarities[rows])

    def popular(self, wanted: Wanted, k: int) -> Found:
        """See `DocumentIndex`."""
        corpus = self._documents.corpus(self._nearest.encoder)
        rows = corpus.popular(corpus.allowed(wanted), k)
        nothing = np.zeros(len(rows), np.float32)
        return Found(_reader(corpus, rows), nothing, nothing)

    def knows(self, query: Query) -> bool:
        """See `DocumentIndex`."""
        lexical = self._documents.corpus(self._nearest.encoder).lexical
        return lexical.knows(query.terms, query.text)


def _reader(corpus: Corpus, rows: Rows) -> Reader:
    return lambda at: [corpus.document(row) for row in rows[at].tolist()]
