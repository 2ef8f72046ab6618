"""The shops that a model version knows: where they are, and to which cells they deliver."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from madang_eta.orders import Coded, Floats, Ints, Points

Cells = NDArray[np.uint64]


@dataclass(frozen=True)
class Shops:
    """Shops as columns. An ad of a shop is another id of it.

    Attributes:
        ids: as requests name them.
        shop_ids: the shop that each is.
        degrees: latitude and longitude, shape [n, 2].
        categories: "" where it has none.
        pair_rows, pair_cells: every shop and H3 cell that it delivers to, for lists; shape [pairs].
    """

    ids: Sequence[str]
    shop_ids: Sequence[str]
    degrees: Floats
    categories: Sequence[str]
    pair_rows: Ints
    pair_cells: Cells

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", {name: row for row, name in enumerate(self.ids)})

    def rows(self, ids: Sequence[str]) -> Ints:
        """The row of each id, -1 where it is not known."""
        found: dict[str, int] = self.__dict__["_rows"]
        return np.array([found.get(name, -1) for name in ids], np.int64)

    def columns(self, rows: Ints) -> tuple[Points, dict[str, Coded]]:
        """Where orders from rows are picked up, and their "shop" and "category"."""
        distinct, codes = np.unique(rows, return_inverse=True)
        columns = {"shop": self.shop_ids, "category": self.categories}
        names = {
            name: Coded.of([column[r] for r in distinct.tolist()]).at(codes)
            for name, column in columns.items()
        }
        return Points(self.degrees[distinct], codes), names

    def pack(self) -> bytes:
        """As `unpack` reads it."""
        columns: dict[str, NDArray[Any]] = {
            "degrees": self.degrees,
            "pair_rows": self.pair_rows,
            "pair_cells": self.pair_cells,
        }
        for name in ("ids", "shop_ids", "categories"):
            texts = [text.encode() for text in getattr(self, name)]
            columns[name] = np.array(texts, f"S{max(map(len, texts), default=0) or 1}")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **columns)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> "Shops":
        """From a model's file. Raises: KeyError, ValueError when it is none."""
        columns = np.load(io.BytesIO(packed), allow_pickle=False)
        ids, shops, categories = (
            [text.decode() for text in columns[name].tolist()]
            for name in ("ids", "shop_ids", "categories")
        )
        numbers = (columns[name] for name in ("pair_rows", "pair_cells"))
        return cls(ids, shops, columns["degrees"], categories, *numbers)
