"""How a view's rows lie in the store.

A row is one packed value: a header, one status byte a feature, then the float32, int64 and string
cells. Rows of many entities are thus one NumPy structured array, decoded without a loop. Format 1:

    u1 format | u1 0 | u2 view version | i8 event time | i8 expiry | u1 status × features
    | f4 × floats | i8 × ints | S × strings          (times in ms since the epoch, little-endian)
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2
from madang_runtime.errors import Code, MadangError, reason

ROW_FORMAT = 1
NEVER = np.iinfo(np.int64).max
DTYPE_ORDER = (tensor_pb2.D_TYPE_FLOAT32, tensor_pb2.D_TYPE_INT64, tensor_pb2.D_TYPE_STRING)
_DEFAULT_STRING_BYTES = 64


@dataclass(frozen=True)
class Column:
    """Where a feature lies: its dtype's block, first element, elements, and status byte."""

    name: str
    dtype: "tensor_pb2.DType.ValueType"
    dim: int
    start: int
    position: int
    max_bytes: int


@dataclass(frozen=True)
class Selection:
    """Features of one dtype that a look-up asks for, in its order."""

    dtype: "tensor_pb2.DType.ValueType"
    names: list[str]
    dims: list[int]
    elements: "NDArray[np.intp] | slice"
    positions: "NDArray[np.intp] | slice"


class RowLayout:
    """The layout of one version of a view."""

    def __init__(self, view: feature_store_pb2.FeatureView) -> None:
        self.view = view.name
        self.version = view.version
        self.header = ROW_FORMAT | view.version << 16
        ends = dict.fromkeys(DTYPE_ORDER, 0)
        columns: list[Column] = []
        for position, f in enumerate(view.features):
            dim = f.dim or 1
            size = f.max_bytes or _DEFAULT_STRING_BYTES
            columns.append(Column(f.name, f.dtype, dim, ends[f.dtype], position, size))
            ends[f.dtype] += dim
        self.columns = {c.name: c for c in columns}
        strings = [c.max_bytes for c in columns if c.dtype == tensor_pb2.D_TYPE_STRING]
        self.widths = ends
        self.dtype = np.dtype(
            [
                ("header", "<u4"),
                ("event_time", "<i8"),
                ("expires", "<i8"),
                ("statuses", "u1", (len(columns),)),
                (str(tensor_pb2.D_TYPE_FLOAT32), "<f4", (ends[tensor_pb2.D_TYPE_FLOAT32],)),
                (str(tensor_pb2.D_TYPE_INT64), "<i8", (ends[tensor_pb2.D_TYPE_INT64],)),
                (
                    str(tensor_pb2.D_TYPE_STRING),
                    f"S{max(strings, default=1)}",
                    (ends[tensor_pb2.D_TYPE_STRING],),
                ),
            ]
        )
        self._selections: dict[tuple[str, ...], list[Selection]] = {}

    @cached_property
    def missing(self) -> bytes:
        """The row that stands for an entity which has none."""
        return self.rows(1, tensor_pb2.FEATURE_STATUS_NOT_FOUND).tobytes()

    def rows(self, n: int, status: "tensor_pb2.FeatureStatus.ValueType") -> NDArray[np.void]:
        """Fresh rows of zeros that never expire, all cells with one status."""
        rows = np.zeros(n, self.dtype)
        rows["header"] = self.header
        rows["expires"] = NEVER
        rows["statuses"] = status
        return rows

    def select(self, names: tuple[str, ...]) -> list[Selection]:
        """Plan a look-up; no names means all features in storage order.

        Raises:
            MadangError: FEATURE_NOT_FOUND.
        """
        plan = self._selections.get(names)
        if plan is None:
            if len(self._selections) > 1000:  # callers that never repeat themselves
                self._selections.clear()
            plan = self._selections[names] = self._plan(names)
        return plan

    def _plan(self, names: tuple[str, ...]) -> list[Selection]:
        wanted = [self.column(name) for name in names] or list(self.columns.values())
        plan = []
        for dtype in DTYPE_ORDER:
            columns = [c for c in wanted if c.dtype == dtype]
            if columns:
                elements = np.concatenate([np.arange(c.start, c.start + c.dim) for c in columns])
                plan.append(
                    Selection(
                        dtype,
                        [c.name for c in columns],
                        [c.dim for c in columns],
                        _as_slice(elements),
                        _as_slice(np.array([c.position for c in columns])),
                    )
                )
        return plan

    def column(self, name: str) -> Column:
        """A feature's place. Raises: MadangError FEATURE_NOT_FOUND."""
        if name not in self.columns:
            raise MadangError(
                Code.NOT_FOUND,
                reason.ERROR_REASON_FEATURE_NOT_FOUND,
                f"view {self.view!r} has no feature {name!r}; it has {', '.join(self.columns)}",
                view=self.view,
                feature=name,
            )
        return self.columns[name]


def _as_slice(index: NDArray[np.intp]) -> "NDArray[np.intp] | slice":
    """A slice where the index is one: cutting is cheaper than gathering."""
    if len(index) and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index
