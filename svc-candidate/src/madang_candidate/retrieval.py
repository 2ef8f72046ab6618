"""Runs the sources in parallel and fuses their lists."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextvars import copy_context
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang_candidate.fusion import fuse
from madang_candidate.query import Floats, Query, Ranked, Rows, Source
from madang_runtime.errors import MadangError, invalid
from madang_runtime.scope import SCOPE, deadline_exceeded


@dataclass(frozen=True)
class Candidates:
    """n fused candidates of m sources, best first.

    Attributes:
        rows: the index's rows, shape [n].
        scores: fused scores, shape [n].
        sources: the names of the sources that answered.
        ranks: uint16 [n, m], from 1; 0 where a source did not give the candidate.
        source_scores: float32 [n, m].
        late: sources that are missing, and why.
    """

    rows: Rows
    scores: Floats
    sources: list[str]
    ranks: NDArray[np.uint16]
    source_scores: Floats
    late: dict[str, MadangError]


class Retrieval:
    """Asks sources and fuses what comes in time.

    Args:
        sources: those to ask.
        rrf_k: the constant of the fusion.
        timeout: seconds that a source may take.
        threads: sources that run at once, over all requests.
    """

    def __init__(
        self, sources: Sequence[Source], rrf_k: float, timeout: float, threads: int = 8
    ) -> None:
        self.sources = list(sources)
        self._rrf_k = rrf_k
        self._timeout = timeout
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="source")

    def asked(self, names: Sequence[str]) -> list[Source]:
        """The sources of some names, all for none. Raises: MadangError FIELD_INVALID."""
        if unknown := set(names) - {s.name for s in self.sources}:
            known = ", ".join(s.name for s in self.sources)
            raise invalid("sources", f"has no {unknown.pop()!r}; there are {known}")
        return [s for s in self.sources if not names or s.name in names]

    def retrieve(self, query: Query, names: Sequence[str] = ()) -> Candidates:
        """Retrieve from all sources or those named; one that is late is left out and named in
        `late`.

        Raises:
            MadangError: FIELD_INVALID; DEADLINE_EXCEEDED when all are late; or whatever a source
                raised.
        """
        running = {s.name: self._start(s, query) for s in self.asked(names)}
        until = time.monotonic() + min(self._timeout, SCOPE.get().remaining)
        lists: dict[str, Ranked] = {}
        late: dict[str, MadangError] = {}
        for name, future in running.items():
            try:
                lists[name] = future.result(max(until - time.monotonic(), 0))
            except FutureTimeout:
                future.cancel()
                late[name] = deadline_exceeded(f"source {name!r} took over {self._timeout} s")
        if not lists:
            raise deadline_exceeded(f"no source answered within {self._timeout} s")
        return self._fused(lists, query.limit, late)

    def _start(self, source: Source, query: Query) -> "Future[Ranked]":
        return self._pool.submit(copy_context().run, source.propose, query)

    def _fused(
        self, lists: dict[str, Ranked], limit: int, late: dict[str, MadangError]
    ) -> Candidates:
        weights = [s.weight for s in self.sources if s.name in lists]
        rows, scores = fuse([r.rows for r in lists.values()], weights, self._rrf_k)
        rows, scores = rows[:limit], scores[:limit]
        ranks = np.zeros((len(rows), len(lists)), np.uint16)
        source_scores = np.zeros((len(rows), len(lists)), np.float32)
        order = np.argsort(rows)
        for j, ranked in enumerate(lists.values()):
            at = np.minimum(np.searchsorted(rows[order], ranked.rows), max(len(rows) - 1, 0))
            kept = np.flatnonzero(rows[order][at] == ranked.rows) if len(rows) else at
            ranks[order[at[kept]], j] = kept + 1
            source_scores[order[at[kept]], j] = ranked.scores[kept]
        return Candidates(rows, scores, list(lists), ranks, source_scores, late)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
