"""Segments as sets of users: roaring bitmaps over the users' numbers in an audience."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

Rows = NDArray[np.uint32]


class Members:
    """A set of users, by their row in the audience.

    Args:
        bitmap: of rows.
    """

    def __init__(self, bitmap: BitMap) -> None:
        self._bitmap = bitmap

    @classmethod
    def of_rows(cls, rows: NDArray[np.integer]) -> "Members":
        """From row numbers, in any order."""
        return cls(BitMap(np.ascontiguousarray(rows, np.uint32)))

    @classmethod
    def unpack(cls, packed: bytes) -> "Members":
        """From `pack`, or any portable serialisation of a 32-bit roaring bitmap.

        Raises:
            ValueError: it is none.
        """
        try:
            return cls(BitMap.deserialize(packed))
        except Exception as error:
            raise ValueError(f"no roaring bitmap: {error}") from error

    def pack(self) -> bytes:
        """The portable serialisation, which other languages' roaring libraries read."""
        self._bitmap.run_optimize()
        packed: bytes = self._bitmap.serialize()
        return packed

    def __len__(self) -> int:
        return len(self._bitmap)

    def __contains__(self, row: int) -> bool:
        return row in self._bitmap

    def parts(self, size: int) -> Iterator[Rows]:
        """The rows, rising, so many at a time."""
        rows = self.rows()
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def rows(self) -> Rows:
        """Their rows, rising."""
        return np.asarray(self._bitmap.to_array(), np.uint32)

    def without(self, others: Sequence["Members"]) -> "Members":
        """Those that are in none of the others."""
        return Members(self._bitmap.difference(*(o._bitmap for o in others)))

    @staticmethod
    def any_of(segments: Sequence["Members"]) -> "Members":
        """Those that are in at least one."""
        return Members(BitMap.union(*(s._bitmap for s in segments)) if segments else BitMap())

    @staticmethod
    def all_of(segments: Sequence["Members"]) -> "Members":
        """Those that are in each."""
        found = BitMap.intersection(*(s._bitmap for s in segments)) if segments else BitMap()
        return Members(found)


def drawn(user_ids: Sequence[str], share: float, salt: str) -> NDArray[np.bool_]:
    """Who of users is drawn, so many of them on average, shape [n].

    It follows from the user and the salt alone, so that a campaign always holds out the same users,
    whatever its segment grows to; another salt draws others.
    """
    if not share:
        return np.zeros(len(user_ids), np.bool_)
    key = hashlib.blake2b(salt.encode(), digest_size=16).digest()
    keyed = [hashlib.blake2b(user.encode(), digest_size=8, key=key).digest() for user in user_ids]
    found: NDArray[np.bool_] = np.frombuffer(b"".join(keyed), "<u8") < share * 2.0**64
    return found
