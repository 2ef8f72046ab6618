"""Packs and unpacks the rows of a view."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2
from madang_featurestore.layout import NEVER, ROW_FORMAT, RowLayout
from madang_runtime.columns import block_columns, fill_block, shape_mismatch
from madang_runtime.errors import Code, MadangError, invalid, reason

PRESENT = tensor_pb2.FEATURE_STATUS_PRESENT
NULL = tensor_pb2.FEATURE_STATUS_NULL
NOT_FOUND = tensor_pb2.FEATURE_STATUS_NOT_FOUND
EXPIRED = tensor_pb2.FEATURE_STATUS_EXPIRED


def pack_rows(
    layout: RowLayout,
    blocks: Sequence[tensor_pb2.FeatureBlock],
    n: int,
    event_time_ms: int,
    ttl_ms: int | None,
) -> list[bytes]:
    """Encode n rows from a writer's blocks; features that no block names become NULL.

    Raises:
        MadangError: FEATURE_NOT_FOUND, SHAPE_MISMATCH, NOT_FINITE, or FIELD_INVALID when a
            feature is named twice or a string is too long.
    """
    rows = layout.rows(n, NULL)
    rows["event_time"] = event_time_ms
    rows["expires"] = NEVER if ttl_ms is None else event_time_ms + ttl_ms
    written: set[str] = set()
    for b, feature_block in enumerate(blocks):
        field = f"blocks[{b}]"
        values, dims, statuses = block_columns(feature_block, n, field)
        if not np.isin(statuses, (PRESENT, NULL)).all():
            raise invalid(f"{field}.statuses", "a writer sets PRESENT or NULL")
        ends = np.cumsum(dims)
        for j, name in enumerate(feature_block.features):
            column = layout.column(name)
            if name in written:
                raise invalid(f"{field}.features", f"{name!r} is written twice")
            written.add(name)
            if column.dtype != feature_block.values.dtype or column.dim != dims[j]:
                want = tensor_pb2.DType.Name(column.dtype)
                raise shape_mismatch(field, f"feature {name!r} needs {want}[{column.dim}]")
            cells = values[:, ends[j] - dims[j] : ends[j]]
            if cells.dtype.kind == "S" and cells.dtype.itemsize > column.max_bytes:
                longest = int(np.char.str_len(cells.astype(np.bytes_)).max(initial=0))
                if longest > column.max_bytes:
                    raise invalid(field, f"{name!r} is longer than {column.max_bytes} bytes")
            present = statuses[:, j] == PRESENT
            target = rows[str(column.dtype)][:, column.start : column.start + column.dim]
            target[present] = cells[present]
            rows["statuses"][:, column.position] = statuses[:, j]
    return split(rows)


def split(rows: NDArray[np.void]) -> list[bytes]:
    """Cut a structured array into one value a row."""
    size, packed = rows.dtype.itemsize, rows.tobytes()
    return [packed[at : at + size] for at in range(0, len(packed), size)]


def unpack_rows(
    layouts: dict[int, RowLayout],
    layout: RowLayout,
    values: Sequence[bytes | None],
    names: tuple[str, ...],
    now_ms: int,
    answer: feature_store_pb2.ViewRows,
) -> None:
    """Decode stored rows into one block a dtype of an answer.

    Args:
        layouts: the view's layouts by version.
        layout: the version to answer with.
        values: one stored row an entity, None where there is none.
        names: the features to return, () for all.
        now_ms: decides what has expired.
        answer: gets the blocks.

    Raises:
        MadangError: FEATURE_NOT_FOUND, or STORED_DATA_INVALID when a row can't be decoded.
    """
    selections = layout.select(names)
    rows = _as_array(layouts, layout, values)
    expired = rows["expires"] <= now_ms
    any_expired = np.count_nonzero(expired) > 0
    for s in selections:
        cells, statuses = rows[str(s.dtype)][:, s.elements], rows["statuses"][:, s.positions]
        if any_expired:
            cells, statuses = cells.copy(), statuses.copy()
            cells[expired] = np.zeros((), cells.dtype)
            statuses[expired] = EXPIRED
        fill_block(answer.blocks.add(), s.names, cells, s.dims, statuses.tobytes())


def _as_array(
    layouts: dict[int, RowLayout], layout: RowLayout, found: Sequence[bytes | None]
) -> NDArray[np.void]:
    try:
        values: Sequence[bytes] = found  # type: ignore[assignment]
        packed = b"".join(values)
    except TypeError:  # some are None; to look for them first would cost each look-up more
        values = [layout.missing if value is None else value for value in found]
        packed = b"".join(values)
    if len(packed) == len(values) * layout.dtype.itemsize:
        rows = np.frombuffer(packed, layout.dtype)
        if np.count_nonzero(rows["header"] == layout.header) == len(rows):
            return rows
    upgraded = b"".join(_upgrade(layouts, layout, v) for v in values)
    return np.frombuffer(upgraded, layout.dtype)


def _upgrade(layouts: dict[int, RowLayout], layout: RowLayout, value: bytes) -> bytes:
    """Rewrite a row of another version; features that it lacks are NULL."""
    version = int.from_bytes(value[2:4], "little")
    if len(value) < 4 or value[0] != ROW_FORMAT or version not in layouts:
        raise _corrupt(layout, value)
    source = layouts[version]
    if len(value) != source.dtype.itemsize:
        raise _corrupt(layout, value)
    if version == layout.version:
        return value
    old = np.frombuffer(value, source.dtype)
    new = layout.rows(1, NULL)
    new["event_time"], new["expires"] = old["event_time"], old["expires"]
    for name, column in layout.columns.items():
        if name in source.columns:
            was = source.columns[name]
            new[str(column.dtype)][:, column.start : column.start + column.dim] = old[
                str(was.dtype)
            ][:, was.start : was.start + was.dim]
            new["statuses"][:, column.position] = old["statuses"][:, was.position]
    return new.tobytes()


def _corrupt(layout: RowLayout, value: bytes) -> MadangError:
    return MadangError(
        Code.DATA_LOSS,
        reason.ERROR_REASON_STORED_DATA_INVALID,
        f"a row of view {layout.view!r} has {len(value)} bytes that no version explains",
        view=layout.view,
    )
