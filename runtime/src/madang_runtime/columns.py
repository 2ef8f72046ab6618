"""Tensors of the protos as NumPy arrays, without a Python object a cell."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import tensor_pb2
from madang_runtime.errors import Code, MadangError, reason

Array = NDArray[Any]

DTYPES: "dict[tensor_pb2.DType.ValueType, np.dtype[Any]]" = {
    tensor_pb2.D_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.D_TYPE_INT64: np.dtype("<i8"),
}
# Strings are padded to the longest one in memory.
MAX_STRING_BYTES = 1024
_OFFSET = np.dtype("<u4")


def shape_mismatch(field: str, message: str) -> MadangError:
    """INVALID_ARGUMENT, SHAPE_MISMATCH."""
    return MadangError(
        Code.INVALID_ARGUMENT,
        reason.ERROR_REASON_SHAPE_MISMATCH,
        f"{field}: {message}",
        field=field,
    )


def not_finite(field: str, message: str) -> MadangError:
    """INVALID_ARGUMENT, NOT_FINITE."""
    return MadangError(
        Code.INVALID_ARGUMENT,
        reason.ERROR_REASON_NOT_FINITE,
        f"{field}: {message}",
        field=field,
    )


def to_tensor(array: Array) -> tensor_pb2.Tensor:
    """Pack a float32, int64 or bytes (`S`) array of any shape.

    Strings of an `S` array are UTF-8 padded with NULs; the padding is not sent.
    """
    tensor = tensor_pb2.Tensor()
    _fill(tensor, array)
    return tensor


def _fill(tensor: tensor_pb2.Tensor, array: Array) -> None:
    tensor.shape.extend(array.shape)
    if array.dtype.kind == "S":
        cells: list[bytes] = array.ravel().tolist()
        offsets = np.zeros(len(cells) + 1, _OFFSET)
        np.cumsum([len(c) for c in cells], out=offsets[1:])
        tensor.dtype = tensor_pb2.D_TYPE_STRING
        tensor.data, tensor.offsets = b"".join(cells), offsets.tobytes()
        return
    dtype = tensor_pb2.D_TYPE_INT64 if array.dtype.kind == "i" else tensor_pb2.D_TYPE_FLOAT32
    tensor.dtype = dtype
    tensor.data = array.astype(DTYPES[dtype], copy=False).tobytes()


def from_tensor(tensor: tensor_pb2.Tensor, field: str = "tensor") -> Array:
    """Unpack a tensor; numbers are a read-only view on its bytes, strings an `S` array.

    Raises:
        MadangError: SHAPE_MISMATCH when bytes, shape and dtype disagree; NOT_FINITE when a float
            is NaN or infinite; FIELD_INVALID when text is not UTF-8.
    """
    shape = tuple(tensor.shape)
    if any(n < 0 for n in shape):
        raise shape_mismatch(f"{field}.shape", f"is {list(shape)}, lengths must not be negative")
    cells = math.prod(shape)
    if tensor.dtype == tensor_pb2.D_TYPE_STRING:
        return _strings(tensor, cells, field).reshape(shape)
    dtype = DTYPES[tensor.dtype]
    if len(tensor.data) != cells * dtype.itemsize:
        raise shape_mismatch(
            f"{field}.data",
            f"has {len(tensor.data)} bytes, shape {list(shape)} of {dtype.name} needs "
            f"{cells * dtype.itemsize}",
        )
    array = np.frombuffer(tensor.data, dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise not_finite(field, f"the value at {at} is {array[tuple(at)]}, must be finite")
    return array


def _strings(tensor: tensor_pb2.Tensor, cells: int, field: str) -> Array:
    if len(tensor.offsets) != (cells + 1) * _OFFSET.itemsize:
        raise shape_mismatch(
            f"{field}.offsets", f"has {len(tensor.offsets)} bytes, needs {(cells + 1) * 4}"
        )
    offsets = np.frombuffer(tensor.offsets, _OFFSET).astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != len(tensor.data) or (np.diff(offsets) < 0).any():
        raise shape_mismatch(f"{field}.offsets", "must rise from 0 to the length of data")
    if cells and (longest := int(np.diff(offsets).max())) > MAX_STRING_BYTES:
        raise shape_mismatch(
            f"{field}.data",
            f"has a text of {longest} bytes, at most {MAX_STRING_BYTES} are allowed",
        )
    texts = [tensor.data[a:b] for a, b in pairwise(offsets)]
    for i, text in enumerate(texts):
        try:
            text.decode()
        except UnicodeDecodeError:
            raise shape_mismatch(f"{field}.data", f"cell {i} is not UTF-8") from None
    return np.array(texts, f"S{max(map(len, texts), default=1) or 1}")


def block(
    features: Sequence[str], values: Array, *, dims: Sequence[int] = (), statuses: bytes = b""
) -> tensor_pb2.FeatureBlock:
    """Build a FeatureBlock from a matrix of shape [n, sum(dims)]; `dims` defaults to 1 each."""
    made = tensor_pb2.FeatureBlock()
    fill_block(made, features, values, dims, statuses)
    return made


def fill_block(
    empty: tensor_pb2.FeatureBlock,
    features: Sequence[str],
    values: Array,
    dims: Sequence[int],
    statuses: bytes,
) -> None:
    """`block` where it belongs: a message that is put into another is copied."""
    empty.features.extend(features)
    empty.dims.extend(dims)
    empty.statuses = statuses
    _fill(empty.values, values)


def block_columns(
    feature_block: tensor_pb2.FeatureBlock, rows: int, field: str = "block"
) -> tuple[Array, list[int], NDArray[np.uint8]]:
    """Unpack a FeatureBlock of `rows` rows.

    Returns:
        values of shape [rows, sum(dims)], dims, and statuses (uint8) of shape [rows, features].

    Raises:
        MadangError: as `from_tensor`; SHAPE_MISMATCH when names, dims, statuses and values
            disagree.
    """
    names = feature_block.features
    dims = list(feature_block.dims) or [1] * len(names)
    if len(dims) != len(names):
        raise shape_mismatch(f"{field}.dims", f"has {len(dims)} entries for {len(names)} features")
    values = from_tensor(feature_block.values, f"{field}.values")
    if values.shape != (rows, sum(dims)):
        raise shape_mismatch(
            f"{field}.values", f"has shape {list(values.shape)}, needs {[rows, sum(dims)]}"
        )
    if not feature_block.statuses:
        present = np.full((rows, len(names)), tensor_pb2.FEATURE_STATUS_PRESENT, np.uint8)
        return values, dims, present
    if len(feature_block.statuses) != rows * len(names):
        raise shape_mismatch(
            f"{field}.statuses",
            f"has {len(feature_block.statuses)} bytes, needs {rows * len(names)}",
        )
    statuses = np.frombuffer(feature_block.statuses, np.uint8).reshape(rows, len(names))
    return values, dims, statuses
