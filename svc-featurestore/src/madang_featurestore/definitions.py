"""What makes a feature view valid, compatible, and equal."""

import hashlib

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2
from madang_featurestore.layout import RowLayout
from madang_runtime.errors import Code, MadangError, reason

_MINUTE_MS, _DAY_MS = 60_000, 86_400_000
MAX_ROW_BYTES = 64 * 1024
LONGEST_WINDOW_MS = 28 * _DAY_MS
LONGEST_TTL_MS = 3650 * _DAY_MS
WINDOWED_ENTITIES = ("item", "user")


def is_windowed(view: feature_store_pb2.FeatureView) -> bool:
    """Whether the view counts actions instead of keeping written values."""
    return view.features[0].HasField("window")


def fingerprint(view: feature_store_pb2.FeatureView) -> str:
    """SHA-256 (hex) of what readers depend on; descriptions and ttl are left out."""
    lines = [f"{view.name}/{view.entity}"]
    for f in view.features:
        window = f"{f.window.type}/{f.window.length.ToMilliseconds()}" if f.window.type else ""
        lines.append(f"{f.name}:{f.dtype}[{f.dim or 1}]{f.max_bytes}{window}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def validate(view: feature_store_pb2.FeatureView) -> None:
    """Check what the proto's limits can't say. Raises: MadangError FEATURE_VIEW_INVALID."""
    names = [f.name for f in view.features]
    if repeated := {n for n in names if names.count(n) > 1}:
        raise _invalid("features", f"{', '.join(sorted(repeated))} is named twice")
    if view.HasField("ttl") and not 0 < view.ttl.ToMilliseconds() <= LONGEST_TTL_MS:
        raise _invalid("ttl", "must be positive and at most 10 years")
    windowed = [f.HasField("window") for f in view.features]
    if any(windowed) and not all(windowed):
        raise _invalid("features", "a view has only written or only windowed features")
    if all(windowed) and view.entity not in WINDOWED_ENTITIES:
        raise _invalid("entity", f"a windowed view counts for one of {WINDOWED_ENTITIES}")
    for i, f in enumerate(view.features):
        _validate_feature(f, f"features[{i}]")
    if (size := RowLayout(view).dtype.itemsize) > MAX_ROW_BYTES:
        raise _invalid("features", f"take {size:,} bytes a row, at most {MAX_ROW_BYTES:,}")


def _validate_feature(f: feature_store_pb2.Feature, field: str) -> None:
    if f.dtype == tensor_pb2.D_TYPE_STRING and f.dim > 1:
        raise _invalid(f"{field}.dim", "strings are scalars")
    if f.max_bytes and f.dtype != tensor_pb2.D_TYPE_STRING:
        raise _invalid(f"{field}.max_bytes", "is for strings")
    if not f.HasField("window"):
        return
    if f.dtype != tensor_pb2.D_TYPE_FLOAT32 or f.dim > 1:
        raise _invalid(field, "a windowed feature is a scalar FLOAT32")
    if not _MINUTE_MS <= f.window.length.ToMilliseconds() <= LONGEST_WINDOW_MS:
        raise _invalid(f"{field}.window.length", "must be within 1 minute and 28 days")


def check_compatible(
    old: feature_store_pb2.FeatureView, new: feature_store_pb2.FeatureView
) -> None:
    """Allow only appended features. Raises: MadangError FEATURE_VIEW_INCOMPATIBLE."""
    if old.entity != new.entity:
        raise _incompatible(old, f"entity is {old.entity!r}, not {new.entity!r}")
    if len(new.features) < len(old.features):
        gone = old.features[len(new.features)].name
        raise _incompatible(old, f"feature {gone!r} would be removed")
    if is_windowed(old) != is_windowed(new):
        raise _incompatible(old, "written and windowed features don't mix")
    for was, wanted in zip(old.features, new.features, strict=False):
        same = (
            was.name == wanted.name
            and was.dtype == wanted.dtype
            and (was.dim or 1) == (wanted.dim or 1)
            and was.max_bytes == wanted.max_bytes
            and was.window == wanted.window
        )
        if not same:
            raise _incompatible(old, f"feature {was.name!r} would change to {wanted.name!r}")


def _invalid(field: str, message: str) -> MadangError:
    return MadangError(
        Code.INVALID_ARGUMENT,
        reason.ERROR_REASON_FEATURE_VIEW_INVALID,
        f"view.{field}: {message}",
        field=f"view.{field}",
    )


def _incompatible(view: feature_store_pb2.FeatureView, message: str) -> MadangError:
    return MadangError(
        Code.FAILED_PRECONDITION,
        reason.ERROR_REASON_FEATURE_VIEW_INCOMPATIBLE,
        f"view {view.name!r}: {message}; append features or take another name",
        view=view.name,
    )
