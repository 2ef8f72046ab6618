"""From looked-up feature rows to a model's input matrices, without a Python object a cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2
from madang_runtime.columns import Array, block_columns, shape_mismatch
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.models.manifest import FeatureRef, Manifest, fingerprint

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
# A block's features, values, dims and statuses.
_Given = tuple[tuple[str, ...], Array, list[int], NDArray[np.uint8]]
_PRESENT = bytes([tensor_pb2.FEATURE_STATUS_PRESENT])


@dataclass(frozen=True)
class InputRows:
    """A view's rows as a model reads them.

    Attributes:
        ints: int64, shape [n, sum of the INT64 features' dims]; 0 where there is no value.
        floats: float32, shape [n, sum of the FLOAT32 features' dims]; NaN where there is none.
    """

    ints: Ints
    floats: Floats


class Column(NamedTuple):
    """Where a feature lies in a view's rows: in the ints or the floats, and which columns."""

    name: str
    kind: str
    at: slice


class ViewInputs:
    """The features that a model reads from one view, in its input order."""

    def __init__(self, view: str, features: list[FeatureRef]) -> None:
        self.view = view
        own = [f for f in features if f.view == view]
        self._floats = _Columns([f for f in own if f.dtype == "FLOAT32"], "f", np.nan)
        self._ints = _Columns([f for f in own if f.dtype == "INT64"], "i", 0)
        self.names = [f.name for f in (*self._floats.refs, *self._ints.refs)]
        self._blocks = len({f.dtype for f in own})

    def lookup(self, entity_ids: list[str]) -> feature_store_pb2.ViewLookup:
        """The look-up whose answer `pack` takes."""
        return feature_store_pb2.ViewLookup(
            view=self.view, features=self.names, entity_ids=entity_ids
        )

    def pack(self, rows: feature_store_pb2.ViewRows, n: int) -> InputRows:
        """Pack the answer to `lookup`: its blocks are already the matrices, in order.

        Raises:
            ValueError: a block has other columns than the look-up asked for.
        """
        ints = floats = None
        for block in rows.blocks:
            if block.values.dtype == tensor_pb2.D_TYPE_INT64:
                ints = np.frombuffer(block.values.data, "<i8").reshape(n, self._ints.width)
            else:
                floats = np.frombuffer(block.values.data, "<f4").reshape(n, self._floats.width)
                if block.statuses.count(_PRESENT) < len(block.statuses):
                    statuses = np.frombuffer(block.statuses, np.uint8).reshape(n, -1)
                    floats = self._floats.without_absent(floats, statuses)
        return InputRows(
            self._ints.absent(n) if ints is None else ints,
            self._floats.absent(n) if floats is None else floats,
        )

    def pack_named(self, blocks: list[tensor_pb2.FeatureBlock], n: int, field: str) -> InputRows:
        """Pack a caller's blocks, whose features are named `view.feature` in any order.

        Raises:
            MadangError: FEATURE_NOT_FOUND when one that the model reads is missing;
                SHAPE_MISMATCH when a dtype or dimension differs; or as `block_columns`.
        """
        ints = floats = None
        if len(blocks) == self._blocks:
            ints, floats = self._ints.find(blocks, n), self._floats.find(blocks, n)
        if ints is None or floats is None:
            given = [
                (tuple(block.features), *block_columns(block, n, f"{field}[{i}]"))
                for i, block in enumerate(blocks)
            ]
            ints, floats = self._ints.gather(given, n, field), self._floats.gather(given, n, field)
        return InputRows(ints, floats)

    def columns(self) -> list[Column]:
        """Where each feature lies; names are `view.feature`."""
        return [*self._ints.columns(), *self._floats.columns()]

    def without(self, rows: InputRows, column: Column) -> InputRows:
        """A copy of rows in which a feature has no value."""
        ints, floats = rows.ints.copy(), rows.floats.copy()
        if column.kind == "i":
            ints[:, column.at] = 0
        else:
            floats[:, column.at] = np.nan
        return InputRows(ints, floats)

    def unpack(self, ints: bytes, floats: bytes) -> InputRows:
        """Rows from the bytes of their columns. Raises: ValueError when the widths differ."""
        return InputRows(
            np.frombuffer(ints, "<i8").reshape(-1, self._ints.width),
            np.frombuffer(floats, "<f4").reshape(-1, self._floats.width),
        )

    def defaults(self, n: int) -> InputRows:
        """Rows without any value."""
        return InputRows(self._ints.absent(n), self._floats.absent(n))


class _Columns:
    """The features of one dtype, in input order.

    Args:
        refs: the features.
        kind: of their NumPy dtype.
        nothing: stands for no value.
    """

    def __init__(self, refs: list[FeatureRef], kind: str, nothing: float) -> None:
        self.refs = refs
        self.width = sum(f.dim for f in refs)
        self._kind = kind
        self._nothing = nothing
        self._dtype = np.dtype(np.float32 if kind == "f" else np.int64)
        self._names = [f"{f.view}.{f.name}" for f in refs]
        self._dims = [f.dim for f in refs]
        self._whole = tensor_pb2.FeatureBlock(features=self._names, dims=self._dims)
        self._whole.values.dtype = (
            tensor_pb2.D_TYPE_FLOAT32 if kind == "f" else tensor_pb2.D_TYPE_INT64
        )

    def columns(self) -> list[Column]:
        """Where each feature lies."""
        ends = np.cumsum([0, *self._dims]).tolist()
        return [
            Column(name, self._kind, slice(start, end))
            for name, (start, end) in zip(self._names, pairwise(ends), strict=True)
        ]

    def absent(self, n: int) -> Array:
        """n rows without any value."""
        return np.full((n, self.width), self._nothing, self._dtype)

    def without_absent(self, values: Array, statuses: NDArray[np.uint8]) -> Array:
        """`values`, but nothing where a status [n, features] is not PRESENT."""
        absent = statuses != tensor_pb2.FEATURE_STATUS_PRESENT
        if not absent.any():
            return values
        cells = np.repeat(absent, self._dims, axis=1)
        return np.where(cells, self._dtype.type(self._nothing), values)

    def find(self, blocks: Sequence[tensor_pb2.FeatureBlock], n: int) -> Array | None:
        """The matrix of a block that is as the model reads it; None if there is none such."""
        if not self.refs:
            return self.absent(n)
        whole = self._whole
        for block in blocks:
            values, statuses = block.values, block.statuses
            if (
                block.features == whole.features
                and block.dims == whole.dims
                and values.dtype == whole.values.dtype
                and values.shape == [n, self.width]
                and len(values.data) == n * self.width * self._dtype.itemsize
                and len(statuses) in (0, n * len(self._names))
            ):
                matrix = np.frombuffer(values.data, self._dtype).reshape(n, self.width)
                if not np.isfinite(matrix).all():
                    return None
                if statuses.count(_PRESENT) == len(statuses):
                    return matrix
                by_row = np.frombuffer(statuses, np.uint8).reshape(n, -1)
                return self.without_absent(matrix, by_row)
        return None

    def gather(self, given: Sequence[_Given], n: int, field: str) -> Array:
        """The columns of the blocks that hold this dtype's features. Raises: see `pack_named`."""
        own = [block for block in given if block[1].dtype.kind == self._kind]
        names = [name for block in own for name in block[0]]
        dims = [dim for block in own for dim in block[2]]
        if not self.refs:
            return self.absent(n)
        ends = np.cumsum([0, *dims])
        positions = [self._position(ref, names, given, field) for ref in self.refs]
        for ref, at in zip(self.refs, positions, strict=True):
            if dims[at] != ref.dim:
                raise self._mismatch(ref, f"{self._dtype}[{dims[at]}]", field)
        elements = np.concatenate([np.arange(ends[at], ends[at + 1]) for at in positions])
        values = np.concatenate([block[1] for block in own], axis=1)[:, elements]
        statuses = np.concatenate([block[3] for block in own], axis=1)[:, positions]
        return self.without_absent(values, statuses)

    def _position(
        self, ref: FeatureRef, names: list[str], given: Sequence[_Given], field: str
    ) -> int:
        name = f"{ref.view}.{ref.name}"
        if name in names:
            return names.index(name)
        for other, values, _, _ in given:
            if name in other:
                raise self._mismatch(ref, str(values.dtype), field)
        raise MadangError(
            Code.NOT_FOUND,
            reason.ERROR_REASON_FEATURE_NOT_FOUND,
            f"{field}: the model reads {name}, which is not given",
            feature=name,
            field=field,
        )

    @staticmethod
    def _mismatch(ref: FeatureRef, found: str, field: str) -> MadangError:
        name = f"{ref.view}.{ref.name}"
        return shape_mismatch(field, f"{name} is {found}, needs {ref.dtype}[{ref.dim}]")


def check_fingerprint(manifest: Manifest, views: list[feature_store_pb2.FeatureView]) -> None:
    """Refuse a model whose features the store defines in another way, or does not have.

    Raises:
        MadangError: FEATURE_FINGERPRINT_MISMATCH, naming the first feature that differs.
    """
    served = {(r.view, r.name): r for view in views for r in feature_refs(view)}
    found = [served.get((f.view, f.name)) for f in manifest.features]
    if fingerprint([f for f in found if f]) == manifest.feature_fingerprint:
        return
    trained, stored = next(
        ((t, s) for t, s in zip(manifest.features, found, strict=True) if t != s),
        (None, None),
    )
    raise MadangError(
        Code.FAILED_PRECONDITION,
        reason.ERROR_REASON_FEATURE_FINGERPRINT_MISMATCH,
        f"model {manifest.name!r} version {manifest.version!r} was trained on {trained}, "
        f"the store has {stored}",
        model=manifest.name,
        feature=f"{trained.view}.{trained.name}" if trained else "",
    )


def columns_of(features: list[FeatureRef], view: str, dtype: str) -> dict[str, slice]:
    """Where each feature of a view lies in the view's matrix of one dtype."""
    columns, at = {}, 0
    for f in features:
        if f.view == view and f.dtype == dtype:
            columns[f.name] = slice(at, at + f.dim)
            at += f.dim
    return columns


def feature_refs(view: feature_store_pb2.FeatureView) -> list[FeatureRef]:
    """References to all features of a view, in its order."""
    return [
        FeatureRef(
            view=view.name,
            name=f.name,
            dtype=tensor_pb2.DType.Name(f.dtype).removeprefix("D_TYPE_"),
            dim=f.dim or 1,
        )
        for f in view.features
    ]
