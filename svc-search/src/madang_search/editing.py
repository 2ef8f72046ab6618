"""What is put in and taken out: into the logs from which every replica takes it."""

from collections.abc import Callable

from madang.search.v1 import document_record_pb2
from madang.search.v1 import search_pb2 as pb
from madang_runtime.changelog.compacted import CompactedLog
from madang_runtime.errors import invalid
from madang_runtime.freshness import token
from madang_runtime.ids import check_distinct
from madang_runtime.scope import SCOPE, deadline_exceeded
from madang_runtime.stages import Stages
from madang_runtime.text.encoder import Encoder, Floats
from madang_search.analysis import Analyzer, normal
from madang_search.records import text_of

DOCUMENTS, DOCUMENTS_TOKEN = "documents", "sd1"
"""The compacted log of documents, and its part of a freshness token."""
INTENTS, INTENTS_TOKEN = "intents", "in1"
"""The compacted log of the intent catalogue, and its part of a freshness token."""
_AT_ONCE = 100


class SearchEditor:
    """The domain of the RPCs that write.

    Args:
        documents, intents: the logs.
        analyzer: finds terms.
        encoder: gives the one that serves now.
    """

    def __init__(
        self,
        documents: CompactedLog,
        intents: CompactedLog,
        analyzer: Analyzer,
        encoder: Callable[[], Encoder],
    ) -> None:
        self._documents, self._intents = documents, intents
        self._analyzer = analyzer
        self._encoder = encoder

    def upsert(
        self, request: pb.UpsertDocumentsRequest, stages: Stages
    ) -> pb.UpsertDocumentsResponse:
        """Answer UpsertDocuments.

        Raises:
            MadangError: FIELD_INVALID, NOT_READY, STORE_UNAVAILABLE, DEADLINE_EXCEEDED.
        """
        check_distinct([d.document_id for d in request.documents], "documents")
        documents = [_normal(d, f"documents[{at}]") for at, d in enumerate(request.documents)]
        encoder = self._encoder()
        vectors: list[Floats] = []
        titles: list[str] = []
        bodies: list[str] = []
        for start in range(0, len(documents), _AT_ONCE):
            part = documents[start : start + _AT_ONCE]
            if SCOPE.get().abandoned:
                raise deadline_exceeded("the deadline passed; nothing was written: send fewer")
            with stages.stage("encode"):
                vectors += [*encoder.encode([*map(text_of, part)], "document")]
            with stages.stage("analyse"):
                titles += self._analyzer.joined([document.title for document in part])
                bodies += self._analyzer.joined([document.body for document in part])
        records = {
            document.document_id: document_record_pb2.DocumentRecord(
                document=document,
                encoder_version=encoder.version,
                vector=vector.astype("<f2").tobytes(),
                analyzer=self._analyzer.version,
                title_terms=title,
                body_terms=body,
            ).SerializeToString()
            for document, vector, title, body in zip(
                documents, vectors, titles, bodies, strict=True
            )
        }
        with stages.stage("log"):
            position = self._documents.write(records)
        return pb.UpsertDocumentsResponse(freshness_token=token(DOCUMENTS_TOKEN, position))

    def delete(
        self, request: pb.DeleteDocumentsRequest, stages: Stages
    ) -> pb.DeleteDocumentsResponse:
        """Answer DeleteDocuments. Raises: MadangError FIELD_INVALID, STORE_UNAVAILABLE."""
        check_distinct(request.document_ids, "document_ids")
        with stages.stage("log"):
            position = self._documents.write(dict.fromkeys(request.document_ids))
        return pb.DeleteDocumentsResponse(freshness_token=token(DOCUMENTS_TOKEN, position))

    def upsert_intents(
        self, request: pb.UpsertIntentsRequest, stages: Stages
    ) -> pb.UpsertIntentsResponse:
        """Answer UpsertIntents. Raises: MadangError FIELD_INVALID, STORE_UNAVAILABLE."""
        check_distinct([entry.intent_id for entry in request.intents], "intents")
        written: dict[str, bytes | None] = {}
        for at, entry in enumerate(request.intents):
            phrases = [normal(phrase) for phrase in entry.phrases]
            if not all(phrases):
                raise invalid(f"intents[{at}].phrases", "has one without text")
            kept = pb.Intent()
            kept.CopyFrom(entry)
            kept.phrases[:] = dict.fromkeys(phrases)
            written[entry.intent_id] = kept.SerializeToString() if phrases else None
        with stages.stage("log"):
            position = self._intents.write(written)
        return pb.UpsertIntentsResponse(freshness_token=token(INTENTS_TOKEN, position))


def _normal(document: pb.Document, field: str) -> pb.Document:
    """The document as it is kept. Raises: MadangError FIELD_INVALID."""
    if document.delivery_radius_km and not document.HasField("place"):
        raise invalid(f"{field}.place", "is required with a delivery radius")
    kept = pb.Document()
    kept.CopyFrom(document)
    kept.title, kept.body = normal(document.title), normal(document.body)
    if not kept.title:
        raise invalid(f"{field}.title", "has no text")
    return kept
