"""Settings of svc-eta."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from madang_runtime.changelog.settings import LogSettings
from madang_runtime.settings import ServiceSettings


class EtaModelSettings(ServiceSettings):
    """What the service and the refresher share."""

    services: Path | None = Field(
        None, description="YAML of the kinds of service; unset takes the built-in."
    )
    model_alias: str = Field("champion", description="Alias to follow.")
    onnx_threads: int = Field(1, ge=1, description="Threads of a stage's network.")


class EtaSettings(EtaModelSettings, LogSettings):
    """Read from `MADANG_ETA_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_ETA_")

    shadow_alias: str = Field(
        "shadow",
        description="Alias of versions that are compared with those that serve; empty: none are.",
    )
    shadow_share: float = Field(
        1.0, ge=0, le=1, description="Share of requests that a shadow is compared in."
    )
    feature_timeout_seconds: float = Field(
        0.25, gt=0, description="Longest wait for the feature store."
    )
    list_seconds: float = Field(
        900.0,
        ge=0,
        description="Refreshed estimates count for orders placed so far from now; at least how "
        "often they are refreshed.",
    )


class RefresherSettings(EtaModelSettings):
    """Read from `MADANG_REFRESHER_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_REFRESHER_")

    refresh_seconds: float = Field(
        300.0, gt=0, description="How often the lists are made anew, from begin to begin."
    )
    refresh_threads: int = Field(2, ge=1, le=64, description="Parts that are made at once.")
    feature_timeout_seconds: float = Field(
        5.0, gt=0, description="Longest wait for the feature store."
    )
