"""The items in memory: vectors, where they deliver, when they are open."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import h3
import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import place_pb2
from madang_candidate.ann import AnnIndex
from madang_candidate.cells import CellItems
from madang_candidate.chance import seeds
from madang_runtime.errors import Code, MadangError, reason

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


_NO_ROWS, _NO_VECTORS = np.empty(0, np.int64), np.empty((0, 1), np.float32)


@dataclass(frozen=True)
class LiveItem:
    """An item that was put in since the model was trained.

    Attributes:
        item_id, kind: of it.
        open_hours: bit h for local hour h.
        vector: float32 [d], of length 1.
        ad_vector: that of an ad among ads; None of others, or where there are no ad networks.
        cells: H3 cells to which it delivers, uint64; None for everywhere.
    """

    item_id: str
    kind: int
    open_hours: int
    vector: Floats
    cells: NDArray[np.uint64] | None
    ad_vector: Floats | None = None


class AdVectors:
    """Vectors of those rows of an index that are ads.

    Args:
        rows: of the ads, ascending.
        vectors: float32 [len(rows), d], of length 1.
        items: how many rows the index has.
    """

    def __init__(self, rows: Rows, vectors: Floats, items: int) -> None:
        self._vectors = vectors
        self._at = np.full(items, -1, np.int32)
        self._at[rows] = np.arange(len(rows))

    def search(self, vector: Floats, ads: Rows, k: int) -> tuple[Rows, Floats]:
        """The k of some ads of largest dot product with a vector, best first: exact, since
        thousands are scored in less time than an approximate index takes to filter them."""
        scores = self._vectors[self._at[ads]] @ vector
        best = top(scores, k)
        return ads[best], scores[best]


class TrainedItems:
    """The n items of a trained version, as columns.

    Args:
        columns: `ids` (S), `codes` (i8, the `item_code` feature), `kinds` (u1), `vectors` (f4
            [n, d], length 1), `open_hours` (u4, bit h for local hour h), and the deliverable cells
            as `cells` (u8, sorted), `cell_starts` (i8, one more than cells) and `cell_items` (i8).
            An item without cells goes everywhere. `ad_rows` (i8) and `ad_vectors` (f4 [a, d'],
            length 1), if there: the ads among the items.
        resolution: the H3 resolution of the cells.
        ann: the approximate index over all vectors.
    """

    def __init__(
        self, columns: Mapping[str, NDArray[np.generic]], resolution: int, ann: AnnIndex
    ) -> None:
        self.ids: list[str] = [i.decode() for i in columns["ids"].tolist()]
        self.row_of = {item_id: row for row, item_id in enumerate(self.ids)}
        self.kinds: NDArray[np.uint8] = columns["kinds"].astype(np.uint8)
        self.open_hours: NDArray[np.uint32] = columns["open_hours"].astype(np.uint32)
        self.vectors: Floats = columns["vectors"].astype(np.float32)
        self.cells = CellItems.of_columns(columns)
        self.resolution = resolution
        self.ann = ann
        self.seeds = seeds(self.ids)
        self.ad_rows: Rows = columns.get("ad_rows", _NO_ROWS).astype(np.int64)
        self.ad_vectors: Floats = columns.get("ad_vectors", _NO_VECTORS).astype(np.float32)
        codes = columns["codes"].astype(np.int64)
        self.row_of_code = np.full(int(codes.max(initial=0)) + 1, -1)
        self.row_of_code[codes] = np.arange(len(codes))

    def __len__(self) -> int:
        return len(self.ids)


class ItemIndex:
    """The trained items, and what was put in and deleted since. Immutable.

    Row r of the trained items stays row r. A live item has a row of its own after them; if it was
    trained too, that row is dead, and `current` leads from it to the live one.

    Args:
        trained: the items of a version.
        exact_below: up to so many allowed items are searched exactly.
        live: items put in since.
        deleted: ids of items deleted since.

    Attributes:
        unknown: rows of live items that the version was not trained on.
        seeds: a number for each item, for `chances`.
        ads: the vectors of ads.
    """

    def __init__(
        self,
        trained: TrainedItems,
        exact_below: int,
        live: Sequence[LiveItem] = (),
        deleted: Sequence[str] = (),
    ) -> None:
        self.trained, self.exact_below = trained, exact_below
        self.live = len(live)
        known = (item.item_id in trained.row_of for item in live)
        self.unknown: Rows = len(trained) + np.flatnonzero(~np.fromiter(known, bool, len(live)))
        self.ids = [*trained.ids, *(item.item_id for item in live)] if live else trained.ids
        self._live_rows = {item.item_id: len(trained) + i for i, item in enumerate(live)}
        self.kinds = np.append(trained.kinds, np.array([i.kind for i in live], np.uint8))
        hours = np.array([i.open_hours for i in live], np.uint32)
        self.open_hours = np.append(trained.open_hours, hours)
        self._live_vectors = np.array([i.vector for i in live], np.float32)
        self.seeds = np.append(trained.seeds, seeds([i.item_id for i in live]))
        ads = {len(trained) + i: a.ad_vector for i, a in enumerate(live) if a.ad_vector is not None}
        self.ads = AdVectors(
            np.append(trained.ad_rows, np.array([*ads], np.int64)),
            np.concatenate([trained.ad_vectors, *(vector[None] for vector in ads.values())]),
            len(self.ids),
        )
        self._live_cells = CellItems.of_items([i.cells for i in live], len(trained))
        self._alive = np.ones(len(self.ids), bool)
        self._current: Rows = np.arange(len(self.ids))
        for item_id in (*self._live_rows, *deleted):
            if (row := trained.row_of.get(item_id)) is not None:
                self._alive[row] = False
                self._current[row] = self._live_rows.get(item_id, -1)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self.trained.vectors.shape[1])

    @property
    def cells(self) -> int:
        """Number of cells to which trained items are delivered."""
        return len(self.trained.cells)

    def row(self, item_id: str) -> int | None:
        """The row of an item, None if there is none."""
        row = self._live_rows.get(item_id, self.trained.row_of.get(item_id))
        return row if row is not None and self._alive[row] else None

    def rows(self, item_ids: Sequence[str]) -> Rows:
        """The rows of those items that exist."""
        known = [row for i in item_ids if (row := self.row(i)) is not None]
        return np.array(known, np.int64)

    def rows_of_codes(self, codes: Rows) -> Rows:
        """The rows of items by their `item_code`; -1 for unknown ones and for 0."""
        row_of_code = self.trained.row_of_code
        known = (codes > 0) & (codes < len(row_of_code))
        rows = np.where(known, row_of_code[np.where(known, codes, 0)], -1)
        return self.current(rows)

    def current(self, rows: Rows) -> Rows:
        """Rows of the trained version to those of the items as they are now; -1 for deleted."""
        found: Rows = np.where(rows >= 0, self._current[rows], -1)
        return found

    def vectors(self, rows: Rows) -> Floats:
        """The vectors of items, shape [len(rows), d]."""
        if not self.live:
            return self.trained.vectors[rows]
        vectors: Floats = np.empty((len(rows), self.dimension), np.float32)
        trained = rows < len(self.trained)
        vectors[trained] = self.trained.vectors[rows[trained]]
        vectors[~trained] = self._live_vectors[rows[~trained] - len(self.trained)]
        return vectors

    def deliverable(self, latitude: float, longitude: float) -> Rows | None:
        """The rows of what is delivered to a place, ascending; None for everything.

        Raises:
            MadangError: PLACE_NOT_SERVED.
        """
        cells = self.trained.cells
        if cells.everywhere and self._live_cells.everywhere:
            return None
        cell = h3.str_to_int(h3.latlng_to_cell(latitude, longitude, self.trained.resolution))
        first = len(self.trained)
        trained = cells.items(cell, np.arange(first))
        rows = np.append(trained, self._live_cells.items(cell, np.arange(first, len(self))))
        if not len(rows):
            raise MadangError(
                Code.OUT_OF_RANGE,
                reason.ERROR_REASON_PLACE_NOT_SERVED,
                f"nothing is delivered to {latitude:.5f}, {longitude:.5f}",
                field="place",
            )
        return rows

    def existing(self, rows: Rows | None) -> Rows:
        """Those of some rows, or of all, whose items exist."""
        return np.flatnonzero(self._alive) if rows is None else rows[self._alive[rows]]

    def allowed(
        self,
        deliverable: Rows | None,
        hour: int,
        kinds: "Sequence[place_pb2.ItemKind.ValueType]" = (),
        excluded: Sequence[str] = (),
    ) -> Rows:
        """Of what is deliverable: existing, open at the hour, of the kinds, and not excluded."""
        rows = self.existing(deliverable)
        keep = (self.open_hours[rows] >> np.uint32(hour)) & np.uint32(1) > 0
        if kinds:
            keep &= np.isin(self.kinds[rows], kinds)
        if excluded:
            keep &= ~np.isin(rows, self.rows(excluded))
        return rows[keep]

    def search(self, vector: Floats, allowed: Rows, k: int) -> tuple[Rows, Floats]:
        """The k allowed items of largest dot product with a vector, best first."""
        if len(allowed) <= self.exact_below:
            rows, scores = allowed, self.vectors(allowed) @ vector
        else:
            trained, live = np.split(allowed, [np.searchsorted(allowed, len(self.trained))])
            only = trained if len(trained) < len(self.trained) else None
            rows, scores = self.trained.ann.search(vector, only, k)
            rows = np.append(rows, live)
            scores = np.append(scores, self.vectors(live) @ vector)
        best = top(scores, k)
        return rows[best], scores[best]


def top(scores: Floats, k: int) -> Rows:
    """Positions of the k largest scores, best first."""
    if k < len(scores):
        part = np.argpartition(-scores, k)[:k]
        return part[np.argsort(-scores[part], kind="stable")]
    return np.argsort(-scores, kind="stable")


def pack_columns(columns: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Serialise columns as .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_columns(content: bytes) -> dict[str, NDArray[np.generic]]:
    """Read columns; no pickled object is accepted."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)
