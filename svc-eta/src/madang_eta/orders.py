"""Orders as columns, of which many rows share a shop, a place or a cell."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Coded:
    """n strings as the distinct ones and which of them each row has.

    Attributes:
        values: distinct; "" is not known.
        codes: into `values`, shape [n].
    """

    values: Sequence[str]
    codes: Ints

    @classmethod
    def of(cls, values: Sequence[str]) -> "Coded":
        """From one value a row."""
        distinct, codes = np.unique(np.array(values, object).astype(str), return_inverse=True)
        return cls(distinct.tolist(), codes)

    def at(self, codes: Ints) -> "Coded":
        """The value of row `codes[i]` in row i."""
        return Coded(self.values, self.codes[codes])

    @classmethod
    def same(cls, value: str, n: int) -> "Coded":
        """One value in all rows."""
        return cls([value], np.zeros(n, np.int64))

    def with_(self, other: "Coded") -> "Coded":
        """Both values joined by "+"; "" where either is not known."""
        span = max(len(other.values), 1)
        pairs, codes = np.unique(self.codes * span + other.codes, return_inverse=True)
        both = [(self.values[p // span], other.values[p % span]) for p in pairs.tolist()]
        return Coded([f"{a}+{b}" if a and b else "" for a, b in both], codes)


@dataclass(frozen=True)
class Points:
    """n places as the distinct ones and which of them each row has.

    Attributes:
        degrees: latitude and longitude, shape [m, 2].
        codes: into `degrees`, shape [n].
    """

    degrees: Floats
    codes: Ints

    @classmethod
    def of(cls, degrees: Floats) -> "Points":
        """From one place a row, shape [n, 2]."""
        distinct, codes = np.unique(degrees, axis=0, return_inverse=True)
        return cls(distinct, codes.reshape(-1))

    def rows(self) -> Floats:
        """Shape [n, 2]."""
        found: Floats = self.degrees[self.codes]
        return found

    def cells(self, resolution: int) -> Coded:
        """The H3 cells, as their hexadecimal names; "" where a place is not known (NaN)."""
        names = [
            f"{h3.latlng_to_cell(lat, lng, resolution):x}" if np.isfinite(lat) else ""
            for lat, lng in self.degrees.tolist()
        ]
        return Coded.of(names).at(self.codes)


@dataclass(frozen=True)
class Orders:
    """n orders.

    Attributes:
        time_ms: when each is placed, shape [n].
        origin, place: where they are picked up and where they go.
        distance_km: by road, NaN where it is not known, shape [n].
        ids: of "shop", "courier", "user" and "category"; what is missing is not known.
        numbers: what a model reads beside, by name, NaN where it is not known, shape [n] each.
    """

    time_ms: Ints
    origin: Points
    place: Points
    distance_km: Floats
    ids: dict[str, Coded] = field(default_factory=dict)
    numbers: dict[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time_ms)

    def kilometres(self) -> tuple[Floats, Floats]:
        """North and east from origin to place, on a plane at the origin; shape [n] each."""
        start, end = self.origin.rows(), self.place.rows()
        north = (end[:, 0] - start[:, 0]) * 111.2
        turn = (end[:, 1] - start[:, 1] + 180) % 360 - 180  # the shorter way round
        east = turn * 111.2 * np.cos(np.radians(start[:, 0]))
        return north, east

    def rows(self, part: slice) -> "Orders":
        """Some of the rows."""
        return Orders(
            self.time_ms[part],
            Points(self.origin.degrees, self.origin.codes[part]),
            Points(self.place.degrees, self.place.codes[part]),
            self.distance_km[part],
            {name: Coded(c.values, c.codes[part]) for name, c in self.ids.items()},
            {name: column[part] for name, column in self.numbers.items()},
        )
