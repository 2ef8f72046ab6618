"""From looked-up feature rows to a model's input matrices, without a Python object a cell."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2
from madang_runtime.columns import block_columns, shape_mismatch
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.models.manifest import FeatureRef, Manifest, fingerprint

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class InputRows:
    """A view's rows as a model reads them.

    Attributes:
        ints: int64, shape [n, sum of the INT64 features' dims]; 0 where there is no value.
        floats: float32, shape [n, sum of the FLOAT32 features' dims]; NaN where there is none.
    """

    ints: Ints
    floats: Floats


class ViewInputs:
    """The features that a model reads from one view, in its input order."""

    def __init__(self, view: str, features: list[FeatureRef]) -> None:
        self.view = view
        own = [f for f in features if f.view == view]
        self._floats = [f for f in own if f.dtype == "FLOAT32"]
        self._ints = [f for f in own if f.dtype == "INT64"]
        self.names = [f.name for f in (*self._floats, *self._ints)]

    def lookup(self, entity_ids: list[str]) -> feature_store_pb2.ViewLookup:
        """The look-up whose answer `pack` takes."""
        return feature_store_pb2.ViewLookup(
            view=self.view, features=self.names, entity_ids=entity_ids
        )

    def pack(self, rows: feature_store_pb2.ViewRows, n: int) -> InputRows:
        """Pack the answer to `lookup`: its blocks are already the matrices, in order."""
        packed = self.defaults(n)
        for block in rows.blocks:
            values, dims, statuses = block_columns(block, n)
            absent = statuses != tensor_pb2.FEATURE_STATUS_PRESENT
            if values.dtype.kind == "i":
                packed = InputRows(values.astype(np.int64, copy=False), packed.floats)
            elif absent.any():
                floats = np.where(np.repeat(absent, dims, axis=1), np.float32(np.nan), values)
                packed = InputRows(packed.ints, floats)
            else:
                packed = InputRows(packed.ints, values.astype(np.float32, copy=False))
        return packed

    def pack_named(self, blocks: list[tensor_pb2.FeatureBlock], n: int, field: str) -> InputRows:
        """Pack a caller's blocks, whose features are named `view.feature` in any order.

        Raises:
            MadangError: FEATURE_NOT_FOUND when one that the model reads is missing;
                SHAPE_MISMATCH when a dimension differs; or as `block_columns`.
        """
        columns: dict[str, tuple[NDArray[np.generic], NDArray[np.bool_]]] = {}
        for i, block in enumerate(blocks):
            values, dims, statuses = block_columns(block, n, f"{field}[{i}]")
            ends = np.cumsum(dims)
            for j, name in enumerate(block.features):
                here = values[:, ends[j] - dims[j] : ends[j]]
                columns[name] = here, statuses[:, j] != tensor_pb2.FEATURE_STATUS_PRESENT
        packed = self.defaults(n)
        for group, out in ((self._ints, packed.ints), (self._floats, packed.floats)):
            at = 0
            for ref in group:
                values, absent = self._column(columns, ref, field)
                out[:, at : at + ref.dim] = values
                if absent.any():
                    out[absent, at : at + ref.dim] = np.nan if ref.dtype == "FLOAT32" else 0
                at += ref.dim
        return packed

    @staticmethod
    def _column(
        columns: dict[str, tuple[NDArray[np.generic], NDArray[np.bool_]]],
        ref: FeatureRef,
        field: str,
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        name = f"{ref.view}.{ref.name}"
        if name not in columns:
            raise MadangError(
                Code.NOT_FOUND,
                reason.ERROR_REASON_FEATURE_NOT_FOUND,
                f"{field}: the model reads {name}, which is not given",
                feature=name,
                field=field,
            )
        values, absent = columns[name]
        wanted_kind = "f" if ref.dtype == "FLOAT32" else "i"
        if values.shape[1] != ref.dim or values.dtype.kind != wanted_kind:
            raise shape_mismatch(
                field, f"{name} is {values.dtype}[{values.shape[1]}], needs {ref.dtype}[{ref.dim}]"
            )
        return values, absent

    def defaults(self, n: int) -> InputRows:
        """Rows without any value."""
        return InputRows(
            np.zeros((n, sum(f.dim for f in self._ints)), np.int64),
            np.full((n, sum(f.dim for f in self._floats)), np.nan, np.float32),
        )


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
