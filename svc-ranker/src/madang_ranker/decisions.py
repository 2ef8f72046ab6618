"""What was shown and why: kept for a while for Explain, and logged for training."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from madang.ranker.v1 import ranker_pb2 as pb
from madang.ranker.v1.decision_pb2 import Decision
from madang_ranker.listing import Listing
from madang_ranker.surfaces import DEFAULT, Surface
from madang_runtime.metrics import Metrics

log = logging.getLogger(__name__)

_GATHER, _GATHER_SECONDS = 200, 0.05


class DecisionStore(Protocol):
    """Keeps pages for a while. Raises MadangError STORE_UNAVAILABLE."""

    def keep(self, decisions: Sequence[Decision]) -> None:
        """Keep pages under their ids."""

    def find(self, request_id: str) -> Decision | None:
        """A page, None when it is not kept (any more)."""

    def close(self) -> None:
        """Close connections."""


class DecisionArchive(Protocol):
    """Logs pages for ever."""

    def write(self, decisions: Sequence[Decision]) -> None:
        """Write one part of the log, whole or not at all."""


class DecisionLog:
    """Takes pages off the request's path, from a thread.

    A page waits at most `flush_seconds` in memory before it is archived: a crash loses as much.
    When the store or the archive can't keep up, pages are dropped and counted, never waited for.

    Args:
        store: keeps pages for Explain.
        archive: logs them, or None.
        metrics: counts what was dropped.
        flush_seconds, flush_pages: a part of the archive is written after either.
        capacity: pages that may wait.
    """

    def __init__(
        self,
        store: DecisionStore,
        archive: DecisionArchive | None,
        metrics: Metrics,
        *,
        flush_seconds: float = 10.0,
        flush_pages: int = 5000,
        capacity: int = 20_000,
    ) -> None:
        self._store = store
        self._archive = archive
        self._metrics = metrics
        self._flush_seconds = flush_seconds
        self._flush_pages = flush_pages
        self._capacity = capacity
        self._queue: queue.SimpleQueue[Decision | None] = queue.SimpleQueue()
        self._part: list[Decision] = []
        self._flushed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)
        self._thread.start()

    def note(self, decision: Decision) -> None:
        """Take a page; never blocks."""
        if self._queue.qsize() >= self._capacity:
            self._metrics.decisions_dropped.labels("queue").inc()
            return
        self._queue.put(decision)

    def find(self, request_id: str) -> Decision | None:
        """A page that is kept. Raises: MadangError STORE_UNAVAILABLE."""
        return self._store.find(request_id)

    def close(self) -> None:
        """Write what waits."""
        self._queue.put(None)
        self._thread.join()
        self._store.close()

    def _run(self) -> None:
        more = True
        while more:
            taken, more = self._gather()
            if self._archive:
                self._part += taken
                age = time.monotonic() - self._flushed
                if len(self._part) >= self._flush_pages or age >= self._flush_seconds or not more:
                    self._try("archive", self._part, self._archive.write)
                    self._part, self._flushed = [], time.monotonic()
            self._try("store", taken, self._store.keep)

    def _gather(self) -> tuple[list[Decision], bool]:
        """What has come, and whether more will."""
        taken: list[Decision] = []
        until = time.monotonic() + self._flush_seconds / 2
        while len(taken) < _GATHER:
            try:
                decision = self._queue.get(timeout=max(until - time.monotonic(), 0.001))
            except queue.Empty:
                break
            if decision is None:
                return taken, False
            taken.append(decision)
            until = min(until, time.monotonic() + _GATHER_SECONDS)
        return taken, True

    def _try(
        self,
        what: str,
        decisions: list[Decision],
        act: Callable[[Sequence[Decision]], None],
    ) -> None:
        if not decisions:
            return
        try:
            act(decisions)
        except Exception as error:  # whatever a store or a file system raises
            self._metrics.decisions_dropped.labels(what).inc(len(decisions))
            log.warning("%d decisions are lost to the %s: %s", len(decisions), what, error)


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
