"""The manifest of a model version, and the features that the model reads."""

import hashlib
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class FeatureRef(BaseModel):
    """A feature that a model reads, as it was defined when the model was trained.

    Attributes:
        view: the feature view.
        name: the feature's name.
        dtype: "FLOAT32" or "INT64".
        dim: elements a row.
    """

    model_config = ConfigDict(frozen=True)

    view: str
    name: str
    dtype: str
    dim: int = 1


def fingerprint(features: list[FeatureRef]) -> str:
    """SHA-256 (hex) over the features in order: equal means that a model may read them."""
    text = "\n".join(f"{f.view}.{f.name}:{f.dtype}[{f.dim}]" for f in features)
    return hashlib.sha256(text.encode()).hexdigest()


class FileEntry(BaseModel):
    """One file of a model version."""

    sha256: str
    size: int


class Manifest(BaseModel):
    """`manifest.json`, written after all other files of a version.

    Attributes:
        name: the model's name.
        version: the version's name; later versions sort later.
        created_at: when it was registered, UTC.
        files: every other file with its checksum.
        features: what the model reads, in input order.
        feature_fingerprint: `fingerprint(features)`.
        parameters: what serving must know, such as sizes.
        metrics: how good it was in evaluation.
    """

    name: str
    version: str
    created_at: datetime
    files: dict[str, FileEntry]
    features: list[FeatureRef] = []
    feature_fingerprint: str = ""
    parameters: dict[str, Any] = {}
    metrics: dict[str, float] = {}
