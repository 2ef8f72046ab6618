"""The rows of the logs of decisions and feedback.

Decisions have one row an item shown: request_id, time (UTC, ms), user_id, surface, latitude,
longitude, model, model_version, degraded (list), position (from 1), item_id, kind, score, click,
order, hide, bid, propensity, sources (list), source_ranks (list, 0 for none), source_scores (list);
what a bandit did: explored, bandit_batch (null where nothing is drawn), segment, ranking, rate;
what it chose from where it explored: pool_item_ids, pool_impressions, pool_rewards (lists); and the
model's inputs in its order (see the version's manifest): user_ints, user_floats, context_ints,
context_floats, item_ints, item_floats (lists, NaN or 0 for no value).

Feedback has one row an event: event_id, type, user_id, item_id, request_id, surface, time (UTC,
ms). A crash
between writing a part and finishing its entries writes them again: take unique event_ids.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang.ranker.v1.decision_pb2 import Decision
from madang.ranker.v1.ranker_pb2 import FeedbackEvent, FeedbackType
from madang_ranker.surfaces import DEFAULT


def feedback_frame(events: Sequence[FeedbackEvent]) -> pl.DataFrame:
    """One row an event."""
    names = {n: name.removeprefix("FEEDBACK_TYPE_") for name, n in FeedbackType.items()}
    times = pl.Series([e.event_time.ToMilliseconds() for e in events], dtype=pl.Int64)
    return pl.DataFrame(
        {
            "event_id": [e.event_id for e in events],
            # A type of a later version is kept by its number.
            "type": [names.get(e.type, str(e.type)) for e in events],
            "user_id": [e.user_id for e in events],
            "item_id": [e.item_id for e in events],
            "request_id": [e.request_id for e in events],
            "surface": [e.surface or DEFAULT for e in events],
            "time": times.cast(pl.Datetime("ms", "UTC")),
        }
    )


def decision_frame(decisions: Sequence[Decision]) -> pl.DataFrame:
    """One row an item shown. Pages with equally wide columns are put together at once."""
    alike: dict[tuple[int, ...], list[Decision]] = defaultdict(list)
    for d in decisions:
        n = len(d.item_ids)
        widths = (len(d.sources), len(d.item_ints) // n, len(d.item_floats) // n)
        alike[(*widths, len(d.user_ints), len(d.user_floats))].append(d)
    return pl.concat([_frame(group) for group in alike.values()])


def _frame(group: list[Decision]) -> pl.DataFrame:
    sizes = [len(d.item_ids) for d in group]
    page = np.repeat(np.arange(len(group)), sizes)
    rows = len(page)

    def of_pages(values: list[object], dtype: pl.DataType) -> pl.Series:
        return pl.Series(values, dtype=dtype)[page]

    def vectors(field: str, dtype: str, kind: pl.DataType, n: int) -> pl.Series:
        flat = np.frombuffer(b"".join([getattr(d, field) for d in group]), dtype)
        if not len(flat):
            return pl.Series([[]] * n, dtype=pl.List(kind))
        return pl.Series(flat.reshape(n, -1)).cast(pl.List(kind))

    def numbers(field: str, dtype: str) -> "NDArray[np.generic] | list[None]":
        flat = np.frombuffer(b"".join([getattr(d, field) for d in group]), dtype)
        return flat if len(flat) else [None] * rows

    text, pages = pl.String(), len(group)
    return pl.DataFrame(
        {
            "request_id": of_pages([d.request_id for d in group], text),
            "time": of_pages([d.request_time.ToMilliseconds() for d in group], pl.Int64()).cast(
                pl.Datetime("ms", "UTC")
            ),
            "user_id": of_pages([d.user_id for d in group], text),
            "surface": of_pages([d.surface for d in group], text),
            "latitude": of_pages([d.place.latitude for d in group], pl.Float64()),
            "longitude": of_pages([d.place.longitude for d in group], pl.Float64()),
            "model": of_pages([d.model.name for d in group], text),
            "model_version": of_pages([d.model.version for d in group], text),
            "degraded": of_pages(
                [[part.component for part in d.degraded] for d in group], pl.List(text)
            ),
            "position": pl.Series(
                np.concatenate([np.arange(len(d.item_ids)) + d.first_position for d in group]),
                dtype=pl.UInt32,
            ),
            "item_id": [item for d in group for item in d.item_ids],
            "kind": numbers("kinds", "u1"),
            "score": pl.Series(numbers("scores", "<f4"), dtype=pl.Float32),
            "click": pl.Series(numbers("clicks", "<f4"), dtype=pl.Float32),
            "order": pl.Series(numbers("orders", "<f4"), dtype=pl.Float32),
            "hide": pl.Series(numbers("hides", "<f4"), dtype=pl.Float32),
            "bid": pl.Series(numbers("bids", "<f4"), dtype=pl.Float32),
            "propensity": numbers("propensities", "<f4"),
            "sources": of_pages([list(d.sources) for d in group], pl.List(text)),
            "source_ranks": vectors("source_ranks", "<u2", pl.UInt16(), rows),
            "source_scores": vectors("source_scores", "<f4", pl.Float32(), rows),
            **_explored(group, of_pages),
            "user_ints": vectors("user_ints", "<i8", pl.Int64(), pages)[page],
            "user_floats": vectors("user_floats", "<f4", pl.Float32(), pages)[page],
            "context_ints": vectors("context_ints", "<i8", pl.Int64(), pages)[page],
            "context_floats": vectors("context_floats", "<f4", pl.Float32(), pages)[page],
            "item_ints": vectors("item_ints", "<i8", pl.Int64(), rows),
            "item_floats": vectors("item_floats", "<f4", pl.Float32(), rows),
        }
    )


def _explored(
    group: list[Decision], of_pages: Callable[[list[object], pl.DataType], pl.Series]
) -> dict[str, pl.Series]:
    """The columns of what bandits did."""
    found = [d.exploration for d in group]
    sizes = [len(d.item_ids) for d in group]

    def of_items(field: str, dtype: str) -> NDArray[np.generic]:
        width = np.dtype(dtype).itemsize
        packed = [getattr(e, field) or bytes(n * width) for e, n in zip(found, sizes, strict=True)]
        return np.frombuffer(b"".join(packed), dtype)

    explored = pl.Series(of_items("explored", "u1").astype(bool))

    def of_pools(values: list[object], kind: pl.DataType) -> pl.Series:
        pools = of_pages(values, pl.List(kind))
        return pl.select(pl.when(explored).then(pools)).to_series()

    def counts(field: str) -> list[object]:
        return [pl.Series(np.frombuffer(getattr(e, field), "<u4")) for e in found]

    text, number = pl.String(), pl.UInt32()
    return {
        "explored": explored,
        "bandit_batch": of_pages([e.batch_id or None for e in found], text),
        "segment": of_pages([e.segment or None for e in found], text),
        "ranking": of_pages([e.ranking for e in found], number),
        "rate": pl.Series(of_items("rates", "<f4"), dtype=pl.Float32),
        "pool_item_ids": of_pools([list(e.pool_item_ids) for e in found], text),
        "pool_impressions": of_pools(counts("pool_impressions"), number),
        "pool_rewards": of_pools(counts("pool_rewards"), number),
    }
