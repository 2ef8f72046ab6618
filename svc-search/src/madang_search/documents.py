"""Documents as rows: what each is, where it goes, when it is open, and its vector."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import place_pb2
from madang.search.v1 import search_pb2 as pb
from madang_search.lexical import LexicalView
from madang_search.nearest import best

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

ALWAYS = 2**24 - 1
EARTH_KM = 6371.0088
_ANYWHERE = -2.0  # no cosine is as small
# A row is used again once no request can be reading what it was.
_REST_SECONDS = 60.0


@dataclass(frozen=True)
class Wanted:
    """What a document must be, beside an answer.

    Attributes:
        categories: one of them; empty for any.
        place: it must be delivered there; None for anywhere.
        hour: local hour at which it must be open; None for any.
    """

    categories: Sequence[str] = ()
    place: place_pb2.Place | None = None
    hour: int | None = None


class Columns:
    """Arrays of some capacity. A row that a `Corpus` shows is never changed while it may be read.

    Args:
        capacity: rows that fit.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self.documents: list[pb.Document | None] = [None] * capacity
        self.categories: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.open_hours: NDArray[np.uint32] = np.zeros(capacity, np.uint32)
        self.points: NDArray[np.float64] = np.zeros((capacity, 3))
        self.nearest: NDArray[np.float64] = np.zeros(capacity)
        self.popularity: NDArray[np.float64] = np.zeros(capacity)

    def __len__(self) -> int:
        return len(self.documents)

    def grown(self) -> "Columns":
        """The same rows with room for as many more."""
        more = Columns(2 * len(self))
        for name, column in vars(self).items():
            getattr(more, name)[: len(self)] = column
        return more

    def put(self, row: int, document: pb.Document, category: int) -> None:
        """Set a row."""
        self.documents[row] = document
        self.categories[row] = category
        self.open_hours[row] = document.open_hours or ALWAYS
        self.points[row] = unit(document.place.latitude, document.place.longitude)
        radius = document.delivery_radius_km
        self.nearest[row] = np.cos(radius / EARTH_KM) if radius else _ANYWHERE
        self.popularity[row] = document.popularity


@dataclass(frozen=True)
class Corpus:
    """The documents as they were at a moment. Any thread may read it.

    Attributes:
        columns: the rows, and perhaps later ones.
        vectors: float32 [rows, d], also where no document is.
        alive: of each row of the moment, whether a document is there.
        codes: the code of each category.
        lexical: the rows' words.
        size: how many documents there are.
    """

    columns: Columns
    vectors: Floats
    alive: Mask
    codes: Mapping[str, int]
    lexical: LexicalView
    size: int

    def document(self, row: int) -> pb.Document:
        """What a row holds."""
        document = self.columns.documents[row]
        assert document is not None
        return document

    def allowed(self, wanted: Wanted) -> Mask:
        """Which rows hold a document that is as wanted."""
        columns, n = self.columns, len(self.alive)
        keep = self.alive
        if wanted.categories:
            codes = [self.codes.get(category, -1) for category in wanted.categories]
            keep = keep & np.isin(columns.categories[:n], codes)
        if wanted.hour is not None:
            keep = keep & ((columns.open_hours[:n] >> np.uint32(wanted.hour)) & np.uint32(1) > 0)
        if wanted.place is not None:
            here = unit(wanted.place.latitude, wanted.place.longitude)
            keep = keep & (columns.points[:n] @ here >= columns.nearest[:n])
        return keep

    def popular(self, allowed: Mask, k: int) -> Rows:
        """The k allowed rows of largest popularity, best first."""
        rows = np.flatnonzero(allowed)
        return rows[best(self.columns.popularity[rows], k)]


class RowKeeper:
    """Which row each document has. One thread writes."""

    def __init__(self) -> None:
        self.row_of: dict[str, int] = {}
        self.used = 0
        self._free: deque[tuple[float, int]] = deque()

    def take(self, document_id: str) -> tuple[int, int | None]:
        """A row for a document, and the one that it had."""
        before = self.release(document_id)
        if self._free and self._free[0][0] < time.monotonic() - _REST_SECONDS:
            row = self._free.popleft()[1]
        else:
            row, self.used = self.used, self.used + 1
        self.row_of[document_id] = row
        return row, before

    def release(self, document_id: str) -> int | None:
        """The row that a document had, if it had one; it rests before it is used again."""
        row = self.row_of.pop(document_id, None)
        if row is not None:
            self._free.append((time.monotonic(), row))
        return row


def unit(
    latitude: float | NDArray[np.float64], longitude: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Points of the globe as vectors of length 1: [3], or [3, n] of n."""
    phi, theta = np.radians(latitude), np.radians(longitude)
    return np.array([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)])
