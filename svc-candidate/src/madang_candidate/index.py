"""The items in memory: vectors, where they deliver, when they are open."""

import io
from collections.abc import Mapping, Sequence

import h3
import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import place_pb2
from madang_candidate.ann import AnnIndex
from madang_runtime.errors import Code, MadangError, reason

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


class ItemIndex:
    """n items as columns.

    Args:
        columns: `ids` (S), `codes` (i8, the `item_code` feature), `kinds` (u1), `vectors`
            (f4 [n, d], length 1), `open_hours` (u4, bit h for local hour h), and the deliverable
            cells as `cells` (u8, sorted), `cell_starts` (i8, one more than cells) and
            `cell_items` (i8). No cells: everything goes everywhere.
        resolution: the H3 resolution of the cells.
        ann: the approximate index over all vectors.
        exact_below: up to so many allowed items are searched exactly.
    """

    def __init__(
        self,
        columns: Mapping[str, NDArray[np.generic]],
        resolution: int,
        ann: AnnIndex,
        exact_below: int,
    ) -> None:
        self.ids: list[str] = [i.decode() for i in columns["ids"].tolist()]
        self.kinds: NDArray[np.uint8] = columns["kinds"].astype(np.uint8)
        self.vectors: Floats = columns["vectors"].astype(np.float32)
        self.open_hours = columns["open_hours"].astype(np.uint32)
        self.resolution = resolution
        self._row_of = {item_id: row for row, item_id in enumerate(self.ids)}
        self._cells = columns["cells"].astype(np.uint64)
        self._cell_starts = columns["cell_starts"].astype(np.int64)
        self._cell_items = columns["cell_items"].astype(np.int64)
        codes = columns["codes"].astype(np.int64)
        self._row_of_code = np.full(int(codes.max(initial=0)) + 1, -1)
        self._row_of_code[codes] = np.arange(len(codes))
        self._ann = ann
        self._exact_below = exact_below

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def cells(self) -> int:
        """Number of cells to which anything is delivered."""
        return len(self._cells)

    def row(self, item_id: str) -> int | None:
        """The row of an item, None if it is unknown."""
        return self._row_of.get(item_id)

    def rows(self, item_ids: Sequence[str]) -> Rows:
        """The rows of those items that are known."""
        known = [row for i in item_ids if (row := self._row_of.get(i)) is not None]
        return np.array(known, np.int64)

    def rows_of_codes(self, codes: Rows) -> Rows:
        """The rows of items by their `item_code`; -1 for unknown ones and for 0."""
        known = (codes > 0) & (codes < len(self._row_of_code))
        rows: Rows = np.where(known, self._row_of_code[np.where(known, codes, 0)], -1)
        return rows

    def deliverable(self, latitude: float, longitude: float) -> Rows | None:
        """The rows of what is delivered to a place, ascending; None for everything.

        Raises:
            MadangError: PLACE_NOT_SERVED.
        """
        if not len(self._cells):
            return None
        cell = np.uint64(h3.str_to_int(h3.latlng_to_cell(latitude, longitude, self.resolution)))
        at = int(np.searchsorted(self._cells, cell))
        if at == len(self._cells) or self._cells[at] != cell:
            raise MadangError(
                Code.OUT_OF_RANGE,
                reason.ERROR_REASON_PLACE_NOT_SERVED,
                f"nothing is delivered to {latitude:.5f}, {longitude:.5f}",
                field="place",
            )
        return self._cell_items[self._cell_starts[at] : self._cell_starts[at + 1]]

    def allowed(
        self,
        deliverable: Rows | None,
        hour: int,
        kinds: "Sequence[place_pb2.ItemKind.ValueType]" = (),
        excluded: Sequence[str] = (),
    ) -> Rows:
        """Of what is deliverable: open at the hour, of the kinds, and not excluded."""
        rows = np.arange(len(self), dtype=np.int64) if deliverable is None else deliverable
        keep = (self.open_hours[rows] >> np.uint32(hour)) & np.uint32(1) > 0
        if kinds:
            keep &= np.isin(self.kinds[rows], kinds)
        if excluded:
            keep &= ~np.isin(rows, self.rows(excluded))
        return rows[keep]

    def search(self, vector: Floats, allowed: Rows, k: int) -> tuple[Rows, Floats]:
        """The k allowed items of largest dot product with a vector, best first."""
        if len(allowed) > self._exact_below:
            return self._ann.search(vector, allowed if len(allowed) < len(self) else None, k)
        scores = self.vectors[allowed] @ vector
        best = top(scores, k)
        return allowed[best], scores[best]


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


def delivery_cells(
    places: NDArray[np.float64], radius_km: NDArray[np.float64], resolution: int
) -> dict[str, NDArray[np.generic]]:
    """The cells that items deliver to, as `ItemIndex` reads them.

    Args:
        places: degrees, shape [n, 2].
        radius_km: shape [n]; all 0 for everywhere.
    """
    pairs: list[tuple[int, int]] = []
    edge = h3.average_hexagon_edge_length(resolution, "km")
    for row, ((lat, lng), radius) in enumerate(zip(places.tolist(), radius_km, strict=True)):
        if radius > 0:
            centre = h3.latlng_to_cell(lat, lng, resolution)
            around = h3.grid_disk(centre, int(np.ceil(radius / (edge * 3**0.5))))
            pairs += [
                (h3.str_to_int(cell), row)
                for cell in around
                if h3.great_circle_distance((lat, lng), h3.cell_to_latlng(cell)) <= radius
            ]
    table = np.array(sorted(pairs), np.uint64).reshape(-1, 2)
    cells, starts = np.unique(table[:, 0], return_index=True)
    return {
        "cells": cells,
        "cell_starts": np.append(starts, len(table)).astype(np.int64),
        "cell_items": table[:, 1].astype(np.int64),
    }
