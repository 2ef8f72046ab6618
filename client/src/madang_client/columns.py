"""Features as columns of NumPy, in and out."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2

_DTYPES = {tensor_pb2.D_TYPE_FLOAT32: "<f4", tensor_pb2.D_TYPE_INT64: "<i8"}


def columns(rows: feature_store_pb2.ViewRows) -> "dict[str, np.ma.MaskedArray[Any, Any]]":
    """The features of looked-up rows by name, masked where there is no value.

    Returns:
        arrays of shape [n], or [n, dim] for features of several elements; float32, int64 or str.
    """
    found: dict[str, np.ma.MaskedArray[Any, Any]] = {}
    for block in rows.blocks:
        values = _values(block.values)
        dims = list(block.dims) or [1] * len(block.features)
        statuses = np.frombuffer(block.statuses, np.uint8).reshape(len(values), len(dims))
        ends = np.cumsum(dims)
        for i, (name, dim, end) in enumerate(zip(block.features, dims, ends, strict=True)):
            own = values[:, end - dim : end]
            absent = statuses[:, [i]] != tensor_pb2.FEATURE_STATUS_PRESENT
            column = np.ma.MaskedArray(own, np.repeat(absent, dim, axis=1))
            found[name] = column[:, 0] if dim == 1 else column
    return found


def blocks(features: Mapping[str, ArrayLike]) -> list[tensor_pb2.FeatureBlock]:
    """Columns as the blocks of a `WriteFeaturesRequest`, NULL where they are masked.

    Args:
        features: by name, arrays of shape [n] or [n, dim], of floats (sent as float32), integers or
            booleans (int64), or str.

    Raises:
        ValueError: the columns are not equally long, or one is of another type.
    """
    made = []
    arrays: dict[str, Any] = {name: np.ma.asarray(values) for name, values in features.items()}
    if len({len(a) for a in arrays.values()}) > 1:
        raise ValueError(f"columns differ in length: { {k: len(a) for k, a in arrays.items()} }")
    for kinds in ("f", "iub", "U"):
        own = {
            n: a[:, None] if a.ndim == 1 else a for n, a in arrays.items() if a.dtype.kind in kinds
        }
        if own:
            made.append(_block(own))
    if odd := [n for n, a in arrays.items() if a.dtype.kind not in "fiubU"]:
        raise ValueError(f"{odd[0]} is {arrays[odd[0]].dtype}: give floats, integers or str")
    return made


def _block(own: "dict[str, np.ma.MaskedArray[Any, Any]]") -> tensor_pb2.FeatureBlock:
    absent = np.stack([np.ma.getmaskarray(a).any(axis=1) for a in own.values()], axis=1)
    statuses = np.where(
        absent, tensor_pb2.FEATURE_STATUS_NULL, tensor_pb2.FEATURE_STATUS_PRESENT
    ).astype(np.uint8)
    values = np.concatenate([np.ma.filled(a, a.dtype.type()) for a in own.values()], axis=1)
    return tensor_pb2.FeatureBlock(
        features=own,
        dims=[a.shape[1] for a in own.values()],
        values=_tensor(values),
        statuses=statuses.tobytes(),
    )


def _tensor(values: NDArray[Any]) -> tensor_pb2.Tensor:
    if values.dtype.kind != "U":
        dtype = tensor_pb2.D_TYPE_FLOAT32 if values.dtype.kind == "f" else tensor_pb2.D_TYPE_INT64
        data = values.astype(_DTYPES[dtype]).tobytes()
        return tensor_pb2.Tensor(dtype=dtype, shape=values.shape, data=data)
    cells = [text.encode() for text in values.ravel().tolist()]
    offsets = np.cumsum([0, *map(len, cells)]).astype("<u4")
    return tensor_pb2.Tensor(
        dtype=tensor_pb2.D_TYPE_STRING,
        shape=values.shape,
        data=b"".join(cells),
        offsets=offsets.tobytes(),
    )


def _values(tensor: tensor_pb2.Tensor) -> NDArray[Any]:
    if tensor.dtype != tensor_pb2.D_TYPE_STRING:
        return np.frombuffer(tensor.data, _DTYPES[tensor.dtype]).reshape(tuple(tensor.shape))
    at = np.frombuffer(tensor.offsets, "<u4").tolist()
    texts = [tensor.data[a:b].decode() for a, b in pairwise(at)]
    return np.array(texts, np.str_).reshape(tuple(tensor.shape))
