"""Kinds of service: each has its own model and settings, since each behaves differently."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from madang_runtime.errors import Code, MadangError, reason


class Kind(BaseModel):
    """One kind of service.

    Attributes:
        model: its name in the registry.
        window_minutes: length of the window that users are shown.
        hit_rate: of the sure window, when a request names none.
        horizon_minutes: that answers have a probability for each; what is later is "beyond".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    window_minutes: int = Field(10, ge=1, le=120)
    hit_rate: float = Field(0.8, gt=0, lt=1)
    horizon_minutes: int = Field(120, ge=10, le=1440)


def load_kinds(path: Path | None) -> Mapping[str, Kind]:
    """Read kinds from YAML; None takes the built-in ones. Raises: pydantic's error."""
    built_in = files("madang_eta") / "services.yaml"
    text = (path or built_in).read_text(encoding="utf-8")
    found = TypeAdapter(dict[str, Kind]).validate_python(yaml.safe_load(text))
    if not found:
        raise ValueError(f"{path}: names no kind of service")
    return found


def not_found(name: str, kinds: Mapping[str, object]) -> MadangError:
    """NOT_FOUND, ETA_SERVICE_NOT_FOUND."""
    return MadangError(
        Code.NOT_FOUND,
        reason.ERROR_REASON_ETA_SERVICE_NOT_FOUND,
        f"service: {name!r} is not configured; there are {', '.join(sorted(kinds))}",
        field="service",
    )
