"""What was shown and why: kept for a while for Explain, and logged for training."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from madang.ranker.v1 import ranker_pb2 as pb
from madang.ranker.v1.decision_pb2 import Decision
from madang_ranker.listing import Listing
from madang_ranker.surfaces import DEFAULT, Surface
from madang_runtime.background import BackgroundWriter
from madang_runtime.metrics import Metrics

_KEEP, _KEEP_SECONDS = 200, 0.05
_PART = 5000


class DecisionStore(Protocol):
    """Keeps pages for a while. Raises MadangError STORE_UNAVAILABLE."""

    def keep(self, decisions: Sequence[Decision]) -> None:
        """Keep pages under their ids."""

    def find(self, request_id: str) -> Decision | None:
        """A page, None when it is not kept (any more)."""

    def close(self) -> None:
        """Close connections."""


class DecisionLog:
    """Takes pages off the request's path.

    Args:
        store: keeps pages for Explain.
        archive: logs them, a part at a time, or None.
        metrics: counts what was dropped.
        flush_seconds: how long a page waits at most for its part of the archive.
        capacity: pages that may wait.
    """

    def __init__(
        self,
        store: DecisionStore,
        archive: Callable[[Sequence[Decision]], None] | None,
        metrics: Metrics,
        *,
        flush_seconds: float = 10.0,
        capacity: int = 20_000,
    ) -> None:
        self._store = store
        self._writers = [
            BackgroundWriter(
                "store",
                store.keep,
                metrics,
                seconds=_KEEP_SECONDS,
                most=_KEEP,
                capacity=capacity,
            )
        ]
        if archive:
            self._writers.append(
                BackgroundWriter(
                    "archive",
                    archive,
                    metrics,
                    seconds=flush_seconds,
                    most=_PART,
                    capacity=capacity,
                )
            )

    def note(self, decision: Decision) -> None:
        """Take a page; never blocks."""
        for writer in self._writers:
            writer.put(decision)

    def find(self, request_id: str) -> Decision | None:
        """A page that is kept. Raises: MadangError STORE_UNAVAILABLE."""
        return self._store.find(request_id)

    def close(self) -> None:
        """Write what waits."""
        for writer in self._writers:
            writer.close()
        self._store.close()


def decision_of(
    request: pb.RecommendRequest,
    answer: pb.RecommendResponse,
    listing: Listing,
    page: slice,
    surface: Surface,
) -> Decision:
    """The page as it is kept: see the proto."""
    shown, proposed, tried = listing.order[page], listing.proposed, listing.tried
    decision = Decision(
        request_id=answer.request_id,
        user_id=request.user_id,
        place=request.place,
        surface=request.surface or DEFAULT,
        model=next(iter(answer.serving_info.models), None),
        degraded=answer.serving_info.degraded,
        first_position=page.start + 1,
        item_ids=[item.item_id for item in answer.items],
        kinds=bytes(item.kind for item in answer.items),
        scores=_packed([item.score for item in answer.items]),
        propensities=_packed(tried.list.propensities[page] if tried else np.ones(len(shown))),
        sources=proposed.reasons.sources,
        source_ranks=proposed.reasons.ranks[shown].tobytes(),
        source_scores=proposed.reasons.scores[shown].tobytes(),
        click_weight=surface.click_weight,
        order_weight=surface.order_weight,
        annoyance_weight=surface.annoyance_weight,
        revenue_weight=surface.revenue_weight,
        bids=_packed(np.zeros(len(shown)) if proposed.bids is None else proposed.bids[shown]),
        reactives=_packed(proposed.reactive[shown]),
        reactive_weight=surface.reactive_weight,
        exploration=tried.of_page(proposed, page) if tried else None,
    )
    if (inputs := listing.inputs) and (scores := listing.scores):
        decision.clicks = _packed(scores.click[shown])
        decision.orders = _packed(scores.order[shown])
        decision.hides = _packed(scores.hide[shown])
        decision.user_ints = inputs.user.ints.tobytes()
        decision.user_floats = inputs.user.floats.tobytes()
        decision.context_ints = inputs.context.ints.tobytes()
        decision.context_floats = inputs.context.floats.tobytes()
        decision.item_ints = inputs.items.ints[shown].tobytes()
        decision.item_floats = inputs.items.floats[shown].tobytes()
    return decision


def _packed(values: ArrayLike) -> bytes:
    return np.asarray(values, "<f4").tobytes()
