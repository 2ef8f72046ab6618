"""What every index of documents can do. `tests/test_index.py` is the suite of them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from madang.search.v1 import search_pb2 as pb
from madang_runtime.stages import Stages
from madang_search.documents import Wanted
from madang_search.nearest import best

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Query:
    """A query, read.

    Attributes:
        text: as it was typed, in normal form.
        terms: of it.
    """

    text: str
    terms: Sequence[str]


Reader = Callable[[Positions], Sequence[pb.Document | None]]
"""Gives the documents at positions, int64 [m]; None for one that is gone by now."""


class Found(NamedTuple):
    """n documents that a query found.

    Attributes:
        documents: reads those of the n that are to be shown.
        lexical: their BM25, float32 [n]; 0 where no word is, or none was looked for.
        similarities: cosines, float32 [n]; 0 when meaning was not looked for.
    """

    documents: Reader
    lexical: Floats
    similarities: Floats


class Followed(Protocol):
    """How far an index follows the log of documents."""

    @property
    def position(self) -> int:
        """Up to where it has all changes."""

    @property
    def age(self) -> float:
        """Seconds since it last had all changes."""

    def reach(self, position: int) -> None:
        """Have all changes up to a position. Raises: MadangError NOT_FRESH_YET,
        DEADLINE_EXCEEDED."""


class DocumentIndex(Protocol):
    """Where documents are searched. Every method may raise MadangError STORE_UNAVAILABLE.

    Attributes:
        name: of the kind of index.
        log: how far it follows the log.
    """

    name: str
    log: Followed

    def search(
        self,
        query: Query,
        wanted: Wanted,
        method: "pb.SearchMethod.ValueType",
        depth: int,
        stages: Stages,
    ) -> Found:
        """The `depth` documents of largest BM25 and the `depth` nearest ones, as wanted, in no
        order."""

    def popular(self, wanted: Wanted, k: int) -> Found:
        """The most popular documents that are as wanted, best first."""

    def knows(self, query: Query) -> bool:
        """Whether documents have each term of a query, or each pair of its syllables."""

    @property
    def size(self) -> int:
        """How many documents there are."""


class Ranked(NamedTuple):
    """Documents in order: positions in what was found, and their scores."""

    order: Positions
    scores: Floats


def rank(found: Found, method: "pb.SearchMethod.ValueType", weight: float, near: float) -> Ranked:
    """Order what was found, without what is only vaguely near.

    Both methods are fused by a convex combination of their scores, each over the most that it can
    be here: a cosine over 1, BM25 over the query's best (Bruch et al. 2023, arXiv:2210.11934).

    Args:
        weight: of the cosine, in [0, 1]; the rest is BM25's.
        near: cosine from which a document counts though no word of it matches.
    """
    answers = (found.lexical > 0) | (found.similarities >= near)
    if method == pb.SEARCH_METHOD_LEXICAL:
        scores, answers = found.lexical, found.lexical > 0
    elif method == pb.SEARCH_METHOD_DENSE:
        scores, answers = found.similarities, found.similarities >= near
    else:
        top = max(float(found.lexical.max(initial=0.0)), 1e-9)
        cosines = np.clip(found.similarities, 0, 1)
        scores = weight * cosines + (1 - weight) * found.lexical / np.float32(top)
    rows = np.flatnonzero(answers)
    order = rows[best(scores[rows], len(rows))]
    return Ranked(order, scores[order].astype(np.float32))
