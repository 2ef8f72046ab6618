"""What was searched for and what answered, one row a page of answers: search_id, time (UTC, ms),
user_id, query as it was typed, latitude and longitude (null for none), categories, open_only,
method (BOTH, LEXICAL, DENSE), first_position (from 1), document_ids, fallback (NONE, CORRECTED,
NEAREST, POPULAR), corrected_query, milliseconds, degraded, model, model_version.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from madang.feature.v1 import feature_store_pb2
from madang.search.v1 import search_pb2 as pb

_METHODS = {n: name.removeprefix("SEARCH_METHOD_") for name, n in pb.SearchMethod.items()}
_METHODS[pb.SEARCH_METHOD_UNSPECIFIED] = "BOTH"
_FALLBACKS = {n: name.removeprefix("FALLBACK_") for name, n in pb.Fallback.items()}
_FALLBACKS[pb.FALLBACK_UNSPECIFIED] = "NONE"


@dataclass(frozen=True)
class Searched:
    """A page of answers.

    Attributes:
        request, answer: of Search.
        time_ms: when it was asked.
        first_position: of the page, from 1.
        seconds: that the answer took.
    """

    request: pb.SearchRequest
    answer: pb.SearchResponse
    time_ms: int
    first_position: int
    seconds: float

    def action(self) -> feature_store_pb2.Action | None:
        """As what a known user did; None for nobody's, and for a page that is not the first."""
        if not self.request.user_id or self.first_position > 1:
            return None
        action = feature_store_pb2.Action(
            event_id=self.answer.search_id,
            user_id=self.request.user_id,
            type=feature_store_pb2.ACTION_TYPE_SEARCH,
            query=self.request.query,
        )
        action.event_time.FromMilliseconds(self.time_ms)
        return action


def search_frame(searched: Sequence[Searched]) -> pl.DataFrame:
    """The rows."""
    requests = [one.request for one in searched]
    answers = [one.answer for one in searched]
    places = [r.place if r.HasField("place") else None for r in requests]
    infos = [answer.serving_info for answer in answers]
    models = [next(iter(info.models), None) for info in infos]
    text, texts = pl.String(), pl.List(pl.String())
    return pl.DataFrame(
        {
            "search_id": [answer.search_id for answer in answers],
            "time": pl.Series([one.time_ms for one in searched], dtype=pl.Int64).cast(
                pl.Datetime("ms", "UTC")
            ),
            "user_id": [r.user_id for r in requests],
            "query": [r.query for r in requests],
            "latitude": pl.Series([p.latitude if p else None for p in places], dtype=pl.Float64),
            "longitude": pl.Series([p.longitude if p else None for p in places], dtype=pl.Float64),
            "categories": pl.Series([[*r.categories] for r in requests], dtype=texts),
            "open_only": [r.open_only for r in requests],
            "method": [_METHODS[r.method] for r in requests],
            "first_position": pl.Series([one.first_position for one in searched], dtype=pl.UInt32),
            "document_ids": pl.Series(
                [[hit.document_id for hit in answer.hits] for answer in answers], dtype=texts
            ),
            "fallback": [_FALLBACKS[answer.fallback] for answer in answers],
            "corrected_query": [answer.corrected_query for answer in answers],
            "milliseconds": pl.Series([one.seconds * 1000 for one in searched], dtype=pl.Float32),
            "degraded": pl.Series(
                [[part.component for part in info.degraded] for info in infos], dtype=texts
            ),
            "model": pl.Series([m.name if m else None for m in models], dtype=text),
            "model_version": pl.Series([m.version if m else None for m in models], dtype=text),
        }
    )
