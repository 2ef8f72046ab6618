"""Which items are delivered to which H3 cells."""

from collections.abc import Mapping, Sequence

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Cells = NDArray[np.uint64]


class CellItems:
    """Rows of items by cell.

    Args:
        cells: uint64, sorted.
        starts: where each cell's rows begin in `rows`; one more than cells.
        rows: of items, ascending within a cell.
        everywhere: whether all items go everywhere; else `anywhere` are those that do.
    """

    def __init__(
        self, cells: Cells, starts: Rows, rows: Rows, everywhere: bool, anywhere: Rows
    ) -> None:
        self._cells, self._starts, self._rows = cells, starts, rows
        self.everywhere = everywhere
        self._anywhere = anywhere

    @classmethod
    def of_columns(cls, columns: Mapping[str, NDArray[np.generic]]) -> "CellItems":
        """From what `delivery_cells` made; an item without cells goes everywhere."""
        cells = columns["cells"].astype(np.uint64)
        starts, rows = (columns[c].astype(np.int64) for c in ("cell_starts", "cell_items"))
        anywhere = np.setdiff1d(np.arange(len(columns["ids"])), rows)
        return cls(cells, starts, rows, not len(cells), anywhere)

    @classmethod
    def of_items(cls, cells: Sequence[Cells | None], first: int) -> "CellItems":
        """Of items at rows from `first` on; None for one that goes everywhere."""
        rows = [np.full(len(c), first + i) for i, c in enumerate(cells) if c is not None]
        table = _table(np.concatenate([c for c in cells if c is not None] or [_NONE]), rows)
        anywhere = [first + i for i, c in enumerate(cells) if c is None]
        return cls(*table, len(anywhere) == len(cells), np.array(anywhere, np.int64))

    def __len__(self) -> int:
        return len(self._cells)

    def items(self, cell: int, everything: Rows) -> Rows:
        """The rows delivered to a cell, ascending; `everything` are the rows of all items."""
        if self.everywhere:
            return everything
        at = int(np.searchsorted(self._cells, np.uint64(cell)))
        if at == len(self._cells) or self._cells[at] != np.uint64(cell):
            return self._anywhere
        found = self._rows[self._starts[at] : self._starts[at + 1]]
        return np.sort(np.concatenate([found, self._anywhere])) if len(self._anywhere) else found


_NONE = np.empty(0, np.uint64)


def cells_around(latitude: float, longitude: float, radius_km: float, resolution: int) -> Cells:
    """The cells whose centres are within a radius, uint64, sorted; at least the place's own."""
    edge = h3.average_hexagon_edge_length(resolution, "km")
    centre = h3.latlng_to_cell(latitude, longitude, resolution)
    around = h3.grid_disk(centre, int(np.ceil(radius_km / (edge * 3**0.5))))
    here = (latitude, longitude)
    within = [
        cell
        for cell in around
        if cell == centre or h3.great_circle_distance(here, h3.cell_to_latlng(cell)) <= radius_km
    ]
    return np.array(sorted(within), np.uint64)


def delivery_cells(
    places: NDArray[np.float64], radius_km: NDArray[np.float64], resolution: int
) -> dict[str, NDArray[np.generic]]:
    """The cells that items deliver to, as `CellItems.of_columns` reads them.

    Args:
        places: degrees, shape [n, 2].
        radius_km: shape [n]; all 0 for everywhere.
    """
    cells, rows = [_NONE], []
    for row, ((lat, lng), radius) in enumerate(zip(places.tolist(), radius_km, strict=True)):
        if radius > 0:
            cells.append(cells_around(lat, lng, radius, resolution))
            rows.append(np.full(len(cells[-1]), row))
    names = ("cells", "cell_starts", "cell_items")
    return dict(zip(names, _table(np.concatenate(cells), rows), strict=True))


def _table(cells: Cells, rows: Sequence[Rows]) -> tuple[Cells, Rows, Rows]:
    """Distinct cells, where each begins, and its rows."""
    of = np.concatenate(rows) if rows else np.empty(0, np.int64)
    order = np.argsort(cells, kind="stable")  # rows come ascending
    distinct, starts = np.unique(cells[order], return_index=True)
    return distinct, np.append(starts, len(order)).astype(np.int64), of[order]
