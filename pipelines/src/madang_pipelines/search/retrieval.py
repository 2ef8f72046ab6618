"""Queries with judged documents: found as svc-search finds them, learned from, and judged."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from madang.search.v1 import document_record_pb2
from madang.search.v1 import search_pb2 as pb
from madang_pipelines.search.evaluation import ndcg, recall
from madang_pipelines.search.training import DENSE_WEIGHT
from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.changelog.follower import Follower
from madang_runtime.metrics import Metrics
from madang_runtime.text.encoder import Encoder
from madang_search.analysis import Analyzer, normal
from madang_search.documents import Wanted
from madang_search.exact import ExactDocuments, ExactIndex
from madang_search.index import Found, Query, rank
from madang_search.lexical import BODY, GRAMS, TITLE
from madang_search.nearest import NearestSearcher
from madang_search.settings import SearchSettings
from madang_search.train import Objective

Floats = NDArray[np.float64]
BOTH, WORDS, MEANING = (
    pb.SEARCH_METHOD_UNSPECIFIED,
    pb.SEARCH_METHOD_LEXICAL,
    pb.SEARCH_METHOD_DENSE,
)
_WEIGHTS = np.arange(0.05, 1.0, 0.05).round(2)
_DEPTH = 1000


@dataclass(frozen=True)
class RetrievalSet:
    """Queries over one corpus.

    Attributes:
        titles, bodies: of n documents.
        queries: the m texts.
        relevant: of each query, the documents that answer it and how well (1 and up).
        split: of each query "train", "valid" or "test".
    """

    titles: list[str]
    bodies: list[str]
    queries: list[str]
    relevant: list[dict[int, int]]
    split: list[str]

    def of(self, split: str) -> list[int]:
        """The queries of a split."""
        return [at for at, name in enumerate(self.split) if name == split]

    def documents(self) -> list[pb.Document]:
        """The corpus; a document's id is its number."""
        return [
            pb.Document(document_id=str(at), title=normal(title) or "?", body=normal(body))
            for at, (title, body) in enumerate(zip(self.titles, self.bodies, strict=True))
        ]


@dataclass(frozen=True)
class Judged:
    """How well the queries of a set are answered.

    Attributes:
        weight: the share of vectors that is best on valid.
        chosen_by: its mean nDCG@10 there.
        scored: nDCG@10 and Recall@10 of each query of test, shape [2, queries], by "BM25",
            "vectors", both as by "default" and as "tuned".
    """

    weight: float
    chosen_by: float
    scored: dict[str, Floats]


class _NoStages:
    """Times nothing."""

    def stage(self, name: str) -> Any:
        """A step that nobody watches."""
        return nullcontext()


class Searcher:
    """Searches documents in memory, as the service does by default."""

    def __init__(self) -> None:
        self._analyzer = Analyzer()

    def index(self, documents: Sequence[pb.Document], encoder: Encoder) -> ExactIndex:
        """The index `exact` with documents in it."""
        settings = SearchSettings()
        weights = {
            TITLE: settings.title_weight,
            BODY: settings.body_weight,
            GRAMS: settings.grams_weight,
        }
        held, log = ExactDocuments(self._analyzer, weights), MemoryCompactedLog()
        log.write(
            {
                d.document_id: document_record_pb2.DocumentRecord(document=d).SerializeToString()
                for d in documents
            }
        )
        followed = Follower(log, "documents", held.apply, Metrics())
        followed.renew()
        held.attach(encoder)
        return ExactIndex(held, NearestSearcher(encoder, Metrics()), followed)

    def found(self, index: ExactIndex, query: str, method: Any = BOTH) -> Found:
        """What a query finds."""
        text = normal(query)
        asked = Query(text, [term.text for term in self._analyzer.terms(text)])
        return index.search(asked, Wanted(), method, _DEPTH, _NoStages())  # type: ignore[arg-type]

    def adapted(self, data: RetrievalSet, encoder: Encoder) -> list[Objective]:
        """What can be learned for a corpus without its test queries: the pairs of train, or where
        there are none, that a title belongs to its text; as third text the first wrong one of
        BM25. Nothing where there is neither."""
        train = data.of("train")
        texts = [f"{t}\n{b}" if b else t for t, b in zip(data.titles, data.bodies, strict=True)]
        if train:
            queries = [data.queries[q] for q in train]
            right = [next(iter(data.relevant[q])) for q in train]
            positives = [texts[at] for at in right]
        else:
            right = [at for at, body in enumerate(data.bodies) if body]
            queries, positives = (
                [data.titles[at] for at in right],
                [data.bodies[at] for at in right],
            )
        if len(texts) < 2 or not right:
            return []
        index, wrong = self.index(data.documents(), encoder), []
        for query, answer in zip(queries, right, strict=True):
            listed = positions(self.found(index, query, WORDS), WORDS, 0.0)
            other = next((at for at in listed if at != answer), (answer + 1) % len(texts))
            wrong.append(texts[other] if train else data.bodies[other] or texts[other])
        return [Objective([queries, positives, wrong], {"pairs": 1.0, "triplets": 0.5})]

    def judged(self, data: RetrievalSet, encoder: Encoder) -> Judged:
        """Ask the queries of valid, and of test."""
        index = self.index(data.documents(), encoder)
        chosen = data.of("valid") or data.of("test")
        asked = {q: self.found(index, data.queries[q]) for q in [*chosen, *data.of("test")]}

        def mean(weight: float) -> float:
            ranked = {q: positions(asked[q], BOTH, weight) for q in chosen}
            return float(np.mean([ndcg(r, data.relevant[q]) for q, r in ranked.items()]))

        means = {float(weight): mean(float(weight)) for weight in _WEIGHTS}
        best = max(means, key=lambda weight: means[weight])
        scored = {}
        for side, method, weight in (
            ("BM25", WORDS, 0.0),
            ("vectors", MEANING, 1.0),
            ("default", BOTH, DENSE_WEIGHT),
            ("tuned", BOTH, best),
        ):
            ranked = {q: positions(asked[q], method, weight) for q in data.of("test")}
            scored[side] = np.array(
                [[one(r, data.relevant[q]) for q, r in ranked.items()] for one in (ndcg, recall)]
            )
        return Judged(best, means[best], scored)


def positions(found: Found, method: Any, weight: float) -> list[int]:
    """The first ten found documents in order, by the numbers that are their ids."""
    order = rank(found, method, weight, -1.0).order
    return [int(document.document_id) for document in found.documents(order[:10]) if document]
