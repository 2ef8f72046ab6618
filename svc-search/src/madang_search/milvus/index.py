"""The index `milvus`: documents in a server of their own, however many."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from madang.search.v1 import search_pb2 as pb
from madang_runtime.stages import Stages
from madang_search.documents import EARTH_KM, Wanted, unit
from madang_search.index import Followed, Found, Positions, Query, Reader
from madang_search.lexical import BODY, GRAMS, TITLE
from madang_search.milvus.collection import Hits, MilvusCollection, is_in, lexical_texts
from madang_search.milvus.places import cells_of
from madang_search.nearest import NearestSearcher
from madang_search.records import Terms

Floats = NDArray[np.float32]


class MilvusIndex:
    """Searches a collection.

    Args:
        collection: with the vectors of the encoder.
        weights: of the lexical fields.
        nearest: encodes queries.
        log: tells how far the collection has the documents' log.
    """

    name = "milvus"

    def __init__(
        self,
        collection: MilvusCollection,
        weights: Mapping[str, float],
        nearest: NearestSearcher,
        log: Followed,
    ) -> None:
        self._collection, self._weights = collection, weights
        self._nearest, self.log = nearest, log

    @property
    def size(self) -> int:
        """How many documents there are."""
        return self._collection.count()

    def search(
        self,
        query: Query,
        wanted: Wanted,
        method: "pb.SearchMethod.ValueType",
        depth: int,
        stages: Stages,
    ) -> Found:
        """See `DocumentIndex`."""
        asked = condition(wanted)
        lexical: dict[str, float] = {}
        cosines: dict[str, float] = {}
        if method != pb.SEARCH_METHOD_DENSE:
            terms = " ".join(dict.fromkeys(query.terms))
            texts = lexical_texts(Terms(terms, terms), query.text)
            with stages.stage("lexical"):
                hits = self._collection.by_words(texts, self._weights, asked, depth)
                lexical = _scores(hits, wanted)
        if method != pb.SEARCH_METHOD_LEXICAL:
            with stages.stage("dense"):
                vector = self._nearest.vector(query.text)
                cosines = _scores(self._collection.nearest(vector, asked, depth), wanted)
                if others := sorted(lexical.keys() - cosines.keys()):
                    cosines |= _scores(self._collection.cosines(vector, others), Wanted())
        ids = sorted(lexical.keys() | cosines.keys())
        return Found(
            self._reader(ids),
            np.array([lexical.get(one, 0.0) for one in ids], np.float32),
            np.array([cosines.get(one, 0.0) for one in ids], np.float32),
        )

    def popular(self, wanted: Wanted, k: int) -> Found:
        """See `DocumentIndex`."""
        ids = [*_scores(self._collection.popular(condition(wanted), k), wanted)]
        nothing = np.zeros(len(ids), np.float32)
        return Found(self._reader(ids), nothing, nothing)

    def knows(self, query: Query) -> bool:
        """See `DocumentIndex`."""
        terms = [*dict.fromkeys(query.terms)]
        titles, bodies = (self._collection.has(field, terms) for field in (TITLE, BODY))
        if terms and all(np.logical_or(titles, bodies)):
            return True
        pairs = lexical_texts(Terms("", ""), query.text)[GRAMS].split()
        return bool(pairs) and all(self._collection.has(GRAMS, pairs))

    def _reader(self, ids: Sequence[str]) -> Reader:
        def read(at: Positions) -> Sequence[pb.Document | None]:
            return self._collection.read([ids[one] for one in at.tolist()])

        return read


def condition(wanted: Wanted) -> str:
    """What is wanted as a filter of Milvus. Of places it lets through some that are too far."""
    parts = []
    if wanted.categories:
        parts.append(is_in("category", wanted.categories))
    if wanted.hour is not None:
        parts.append(f"array_contains(hours, {wanted.hour})")
    if wanted.place is not None:
        parts.append(f"array_contains_any(cells, {cells_of(wanted.place)})")
    return " and ".join(parts)


def _scores(hits: Hits, wanted: Wanted) -> dict[str, float]:
    """The score of each document that is delivered where it is wanted, best first."""
    near = np.full(len(hits.ids), True)
    if wanted.place is not None and hits.ids:
        latitudes, longitudes, radii = hits.discs.T
        points = unit(latitudes, longitudes)
        cosines = points.T @ unit(wanted.place.latitude, wanted.place.longitude)
        near = (radii == 0) | (cosines >= np.cos(radii / EARTH_KM))
    scores = zip(hits.ids, hits.scores.tolist(), near.tolist(), strict=True)
    return {one: score for one, score, here in scores if here}
