"""Why items are proposed: which sources gave them, at which rank."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang.candidate.v1 import candidate_pb2
from madang.ranker.v1 import ranker_pb2 as pb

FALLBACK = "popular_fallback"


@dataclass(frozen=True)
class Reasons:
    """Ranks (uint16, from 1, 0 for none) and scores (float32) of shape [items, sources]."""

    sources: list[str]
    ranks: NDArray[np.uint16]
    scores: NDArray[np.float32]

    @classmethod
    def of(cls, answer: candidate_pb2.RetrieveResponse) -> "Reasons":
        """From svc-candidate's columns."""
        columns = answer.source_ranks, answer.source_scores
        return cls.of_columns(list(answer.sources), *columns, len(answer.item_ids))

    @classmethod
    def of_columns(cls, sources: list[str], ranks: bytes, scores: bytes, n: int) -> "Reasons":
        """From packed ranks (uint16) and scores (float32) of n items."""
        shape = (n, len(sources))
        return cls(
            sources,
            np.frombuffer(ranks, "<u2").reshape(shape),
            np.frombuffer(scores, "<f4").reshape(shape),
        )

    @classmethod
    def fallback(cls, n: int) -> "Reasons":
        """Of n items that the ranker took from its own list."""
        ranks = np.arange(1, n + 1, dtype=np.uint16)[:, None]
        return cls([FALLBACK], ranks, np.zeros((n, 1), np.float32))

    def strength(self, source: str) -> NDArray[np.float32]:
        """A source's scores, from 1 for its largest down to 0 for its least and what it did not
        give."""
        strength = np.zeros(len(self.ranks), np.float32)
        if source in self.sources:
            j = self.sources.index(source)
            given = self.ranks[:, j] > 0
            scores = self.scores[given, j]
            if len(scores):
                span = scores.max() - scores.min()
                strength[given] = (scores - scores.min()) / span if span > 0 else 1
        return strength

    def given_by(self, source: str) -> NDArray[np.intp]:
        """The items that a source gave, by its rank."""
        if source not in self.sources:
            return np.empty(0, np.intp)
        ranks = self.ranks[:, self.sources.index(source)]
        given = np.flatnonzero(ranks)
        return given[np.argsort(ranks[given], kind="stable")]

    def at(self, i: int) -> list[pb.SourceRank]:
        """The reasons of one item, best rank first."""
        found = [
            pb.SourceRank(source=self.sources[j], rank=rank, score=float(self.scores[i, j]))
            for j, rank in enumerate(self.ranks[i].tolist())
            if rank
        ]
        return sorted(found, key=lambda r: r.rank)
