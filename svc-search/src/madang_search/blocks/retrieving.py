"""What may be shown for a query: found by words and meaning, and of the categories people took."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from madang.search.v1 import search_pb2 as pb
from madang_runtime.stages import Stages
from madang_search.answering import Answer
from madang_search.blocks.queries import KnownQuery

_FOUND, _OF_CATEGORIES = 200, 100
_RARE = 0.03
_GUESSED = (pb.FALLBACK_NEAREST, pb.FALLBACK_POPULAR)


@dataclass(frozen=True)
class Candidate:
    """A document that may be shown; scores are 0 where the query did not find it.

    Attributes:
        relevance: the score of both methods, in [0, 1].
        lexical: BM25.
        similarity: the cosine.
    """

    document: pb.Document
    relevance: float = 0.0
    lexical: float = 0.0
    similarity: float = 0.0


def retrieve(
    answer: Answer, known: KnownQuery | None, stages: Stages
) -> tuple[Sequence[Candidate], "pb.Fallback.ValueType"]:
    """At most 300 documents, each once, and what was done because nothing matched. What people took
    stands in for what would only be a guess."""
    taken = _of_categories(answer, known, stages) if known else []
    if taken and answer.fallback in _GUESSED:
        return taken, pb.FALLBACK_UNSPECIFIED
    found, order = answer.found, answer.ranked.order[:_FOUND]
    candidates = [
        Candidate(document, score, lexical, similarity)
        for document, score, lexical, similarity in zip(
            found.documents(order),
            answer.ranked.scores[: len(order)].tolist(),
            found.lexical[order].tolist(),
            found.similarities[order].tolist(),
            strict=True,
        )
        if document is not None
    ]
    ids = {one.document.document_id for one in candidates}
    candidates += [one for one in taken if one.document.document_id not in ids]
    return candidates, answer.fallback


def _of_categories(answer: Answer, known: KnownQuery, stages: Stages) -> list[Candidate]:
    """The most popular documents of the categories that people took."""
    categories = [category for category, share in known.categories.items() if share >= _RARE]
    with stages.stage("categories"):
        wanted = replace(answer.wanted, categories=categories)
        found = answer.bundle.documents.popular(wanted, _OF_CATEGORIES)
        documents = found.documents(np.arange(len(found.lexical)))
    return [Candidate(document) for document in documents if document is not None]
