"""Feature views written as YAML.

    name: item_activity
    entity: item
    ttl: 604800s
    features:
      - {name: clicks_1h, dtype: FLOAT32, window: {type: CLICK, length: 3600s}}

Names are those of the proto; enum values may omit their prefix.
"""

from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format

from madang.feature.v1 import feature_store_pb2
from madang_runtime.errors import Code, MadangError, reason


def load_view(path: Path) -> feature_store_pb2.FeatureView:
    """Read one view. Raises: MadangError FEATURE_VIEW_INVALID, naming the file."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for feature in document.get("features", ()):
            _prefix(feature, "dtype", "D_TYPE_")
            _prefix(feature.get("window", {}), "type", "ACTION_TYPE_")
        return json_format.ParseDict(document, feature_store_pb2.FeatureView())
    except (yaml.YAMLError, json_format.ParseError, AttributeError, TypeError) as error:
        raise MadangError(
            Code.INVALID_ARGUMENT,
            reason.ERROR_REASON_FEATURE_VIEW_INVALID,
            f"{path}: {error}",
            file=str(path),
        ) from error


def _prefix(entry: dict[str, Any], key: str, prefix: str) -> None:
    if key in entry and not str(entry[key]).startswith(prefix):
        entry[key] = prefix + str(entry[key])
