"""Segments as sets of users: roaring bitmaps over the users' numbers in an audience."""

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
        rows = np.asarray(self._bitmap.to_array(), np.uint32)
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def first(self, most: int) -> "Members":
        """Those of the lowest rows, at most so many."""
        return Members(self._bitmap[:most]) if len(self) > most else self

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


def hold_out(members: Members, share: float, salt: str) -> tuple[Members, Members]:
    """Members to tell, and those held out to see what telling does.

    Who is held out follows from the user's row and the salt alone, so that the same campaign holds
    out the same users, whatever its segment grows to.

    Args:
        members: of the segment.
        share: to hold out, in [0, 1).
        salt: such as the campaign's id; another salt holds out others.
    """
    seed = np.frombuffer(salt.encode() or b"\0", np.uint8).astype(np.uint64)
    start = np.uint64(0xCBF29CE484222325)
    with np.errstate(over="ignore"):
        for byte in seed:
            start = (start ^ byte) * np.uint64(0x100000001B3)
    held = [np.empty(0, np.uint32)]
    for rows in members.parts(1_000_000):
        draw = _mixed(rows.astype(np.uint64) ^ start)
        held.append(rows[draw < share])
    out = Members.of_rows(np.concatenate(held))
    return members.without([out]), out


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Even numbers in [0, 1) that follow from values (the finaliser of SplitMix64; Steele, Lea and
    Flood, 2014)."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        values ^= values >> np.uint64(31)
    return (values >> np.uint64(11)).astype(np.float64) / 2**53
