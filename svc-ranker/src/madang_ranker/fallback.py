"""What to rank when svc-candidate does not answer: popular items of the area."""

import io

import h3
import numpy as np
from numpy.typing import NDArray

from madang_runtime.errors import Code, MadangError, reason


class Fallback:
    """Lists by H3 cell, from the model's `fallback.npz`.

    Columns: `cells` (u8, sorted), `starts` (i8, one more than cells), `items` (S), `resolution`
    (i8 scalar). Cell 0, if there, is for everywhere else.
    """

    def __init__(self, content: bytes) -> None:
        with np.load(io.BytesIO(content), allow_pickle=False) as columns:
            self._cells = columns["cells"].astype(np.uint64)
            self._starts = columns["starts"].astype(np.int64)
            self._items: NDArray[np.bytes_] = columns["items"]
            self._resolution = int(columns["resolution"])

    def items(self, latitude: float, longitude: float) -> list[str]:
        """Item ids, most popular first. Raises: MadangError PLACE_NOT_SERVED."""
        cell = h3.str_to_int(h3.latlng_to_cell(latitude, longitude, self._resolution))
        for key in (np.uint64(cell), np.uint64(0)):
            at = int(np.searchsorted(self._cells, key))
            if at < len(self._cells) and self._cells[at] == key:
                found = self._items[self._starts[at] : self._starts[at + 1]].tolist()
                return [item.decode() for item in found]
        raise MadangError(
            Code.OUT_OF_RANGE,
            reason.ERROR_REASON_PLACE_NOT_SERVED,
            f"nothing is delivered to {latitude:.5f}, {longitude:.5f}",
            field="place",
        )


def pack_fallback(lists: dict[int, list[str]], resolution: int) -> bytes:
    """Serialise lists by cell."""
    cells = sorted(lists)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        cells=np.array(cells, np.uint64),
        starts=np.cumsum([0, *(len(lists[c]) for c in cells)]),
        items=np.array([item.encode() for c in cells for item in lists[c]], np.bytes_),
        resolution=np.array(resolution),
    )
    return buffer.getvalue()
