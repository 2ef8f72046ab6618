"""Reads the records of the document log: what indexes take of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang.search.v1 import document_record_pb2
from madang.search.v1 import search_pb2 as pb
from madang_runtime.text.encoder import Encoder
from madang_search.analysis import Analyzer

Floats = NDArray[np.float32]
DocumentRecord = document_record_pb2.DocumentRecord

_AT_ONCE = 256


@dataclass(frozen=True)
class Terms:
    """The terms of a title and of a body, with spaces between them."""

    title: str
    body: str


class RecordReader:
    """Finds what records do not bring with them in the form that is ours.

    Args:
        analyzer: finds terms.
    """

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer

    def terms(self, records: Sequence[DocumentRecord]) -> list[Terms]:
        """The terms of records: those that came with them, where they are this analyzer's."""
        terms = [Terms(record.title_terms, record.body_terms) for record in records]
        others = [at for at, r in enumerate(records) if r.analyzer != self._analyzer.version]
        titles = self._analyzer.joined([records[at].document.title for at in others])
        bodies = self._analyzer.joined([records[at].document.body for at in others])
        for at, title, body in zip(others, titles, bodies, strict=True):
            terms[at] = Terms(title, body)
        return terms

    def vectors(self, encoder: Encoder, records: Sequence[DocumentRecord]) -> Floats:
        """The vectors of an encoder [n, d]: those that came with the records it made."""
        vectors = np.empty((len(records), encoder.dimension), np.float32)
        own = [at for at, r in enumerate(records) if r.encoder_version == encoder.version]
        for at in own:
            vectors[at] = np.frombuffer(records[at].vector, "<f2")
        others = sorted({*range(len(records))} - {*own})
        vectors[others] = encoded(encoder, [records[at].document for at in others])
        return vectors


def text_of(document: pb.Document) -> str:
    """What of a document is encoded."""
    return f"{document.title}\n{document.body}" if document.body else document.title


def encoded(encoder: Encoder, documents: Sequence[pb.Document]) -> Floats:
    """The vectors of documents [n, d], made some at a time."""
    vectors = np.empty((len(documents), encoder.dimension), np.float32)
    for start in range(0, len(documents), _AT_ONCE):
        part = documents[start : start + _AT_ONCE]
        vectors[start : start + len(part)] = encoder.encode([*map(text_of, part)], "document")
    return vectors
