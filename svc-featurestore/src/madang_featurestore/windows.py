"""Sliding-window counts of actions.

An entity's counts are one packed value, so that reading 500 entities is one batched read. Each
distinct window length has a ring of 33 slots; a slot is a u32 bucket number (time // width, with
width = length / 32) followed by one u32 counter a feature of that length. A slot whose bucket is
older than the window counts for nothing, so that time passing needs no write.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2
from madang_featurestore.layout import RowLayout
from madang_runtime.columns import fill_block

SLOTS = 33
_U32 = 4


@dataclass(frozen=True)
class Increment:
    """One counter of one ring to raise by one.

    Attributes:
        offset: the ring's first byte in the value.
        slot_bytes: bytes of one slot.
        bucket: the bucket number that the event falls into.
        counters: the counters' positions within a slot, from 0.
    """

    offset: int
    slot_bytes: int
    bucket: int
    counters: tuple[int, ...]


@dataclass(frozen=True)
class _Ring:
    length_ms: int
    offset: int
    features: tuple[str, ...]
    types: "tuple[feature_store_pb2.ActionType.ValueType, ...]"

    @property
    def width_ms(self) -> int:
        return math.ceil(self.length_ms / (SLOTS - 1))

    @property
    def slot_bytes(self) -> int:
        return _U32 * (1 + len(self.features))


class WindowLayout:
    """The rings of one version of a windowed view."""

    def __init__(self, view: feature_store_pb2.FeatureView) -> None:
        self.entity = view.entity
        self.rings: list[_Ring] = []
        lengths = sorted({f.window.length.ToMilliseconds() for f in view.features})
        self.size = 0
        for length in lengths:
            own = [f for f in view.features if f.window.length.ToMilliseconds() == length]
            ring = _Ring(
                length, self.size, tuple(f.name for f in own), tuple(f.window.type for f in own)
            )
            self.rings.append(ring)
            self.size += SLOTS * ring.slot_bytes
        self.longest_ms = lengths[-1]

    def increments(
        self, action: "feature_store_pb2.ActionType.ValueType", time_ms: int, now_ms: int
    ) -> list[Increment]:
        """What an action raises; nothing when no window still covers its time."""
        found = []
        for ring in self.rings:
            counters = tuple(i for i, t in enumerate(ring.types) if t == action)
            if counters and time_ms > now_ms - ring.length_ms:
                # An event from a clock that is ahead counts as now.
                bucket = min(time_ms, now_ms) // ring.width_ms
                found.append(Increment(ring.offset, ring.slot_bytes, bucket, counters))
        return found

    def counts(
        self,
        layout: RowLayout,
        values: Sequence[bytes | None],
        names: tuple[str, ...],
        now_ms: int,
        answer: feature_store_pb2.ViewRows,
    ) -> None:
        """Decode stored counters into blocks of an answer; an entity without any has counted
        nothing, so 0 is PRESENT."""
        packed = b"".join([(v or b"").ljust(self.size, b"\0") for v in values])
        n = len(values)
        table = np.frombuffer(packed, np.uint8).reshape(n, self.size)
        totals: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
        for ring in self.rings:
            end = ring.offset + SLOTS * ring.slot_bytes
            slots = (
                np.ascontiguousarray(table[:, ring.offset : end])
                .view("<u4")
                .reshape(n, SLOTS, 1 + len(ring.features))
            )
            age = now_ms // ring.width_ms - slots[:, :, 0].astype(np.int64)
            live = (age < SLOTS - 1)[:, :, None]
            sums = (slots[:, :, 1:] * live).sum(axis=1, dtype=np.float32)
            totals |= {name: sums[:, i] for i, name in enumerate(ring.features)}
        for s in layout.select(names):
            matrix = np.stack([totals[name] for name in s.names], axis=1)
            present = bytes([tensor_pb2.FEATURE_STATUS_PRESENT]) * matrix.size
            fill_block(answer.blocks.add(), s.names, matrix, s.dims, present)
