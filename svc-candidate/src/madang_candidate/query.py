"""What the sources are asked, and what they answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from madang_candidate.index import ItemIndex
from madang_candidate.tower import TowerBundle
from madang_runtime.models.inputs import InputRows
from madang_runtime.segments import EVERYBODY

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Query:
    """A retrieval, ready for the sources.

    Attributes:
        bundle: the model version that serves this request throughout.
        index: its items as they are now.
        user: the user's feature row; without values if no source that is asked is personal.
        context: the request's context row.
        user_vector: shape [d]; zeros likewise.
        recent: what the user did last, newest first: the row of an item that they acted on, or the
            text that they searched for.
        allowed: rows that may be answered.
        latitude, longitude: degrees.
        hour: local hour of the day.
        limit: the most candidates a source should give.
        surface: where they will be shown, for its bandit; "" for none.
        segments: of the user, the most specific first.
    """

    bundle: TowerBundle
    index: ItemIndex
    user: InputRows
    context: InputRows
    user_vector: Floats
    recent: Sequence[int | str]
    allowed: Rows
    latitude: float
    longitude: float
    hour: int
    limit: int
    surface: str = ""
    segments: Sequence[str] = (EVERYBODY,)


@dataclass(frozen=True)
class Ranked:
    """A source's list: rows, best first, and scores in the source's own unit."""

    rows: Rows
    scores: Floats


class Source(Protocol):
    """Proposes candidates.

    Attributes:
        name: what reasons and degradations call it.
        personal: whether it reads the user's row or vector.
        weight: its weight in the fusion.
    """

    name: str
    personal: bool
    weight: float

    def propose(self, query: Query) -> Ranked:
        """The source's list, of allowed rows only."""
