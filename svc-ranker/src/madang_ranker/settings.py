"""Settings of svc-ranker."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from madang_runtime.changelog.base import ChangeLog
from madang_runtime.changelog.redis import RedisChangeLog
from madang_runtime.changelog.settings import LogSettings
from madang_runtime.urls import with_password


class FeedbackSettings(LogSettings):
    """Where feedback is kept until it is applied."""

    def open_log(self, name: str, abandoned_after: float = 5.0) -> ChangeLog:
        """A log of these settings."""
        return RedisChangeLog(
            self.log_store(),
            name,
            self.log_timeout_seconds,
            synced=self.log_synced,
            abandoned_after=abandoned_after,
        )


class RankerSettings(FeedbackSettings):
    """Read from `MADANG_RANKER_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_RANKER_")

    explain_seconds: float = Field(
        3600.0, gt=0, description="How long a shown page can be explained."
    )
    explain_url: str = Field(
        "",
        description="redis:// of the store that keeps shown pages, some 3 kB for 20 items; empty "
        "takes that of the logs.",
    )
    explain_password: SecretStr = Field(
        SecretStr(""), description="Password of that store, when it is not in the URL."
    )
    decisions_url: str = Field(
        "", description="fsspec URL of the folder that logs shown pages as Parquet; empty: none."
    )
    decisions_flush_seconds: float = Field(
        10.0, gt=0, description="How often the log is written; a crash loses as much of it."
    )
    model: str = Field("ranker", description="Name of the DCN in the registry.")
    model_alias: str = Field("champion", description="Alias to follow.")
    surfaces: Path | None = Field(None, description="YAML of surfaces; unset takes the built-in.")
    onnx_threads: int = Field(1, ge=1, description="Threads of the DCN.")
    batch_rows: int = Field(
        512,
        ge=1,
        description="Rows that the DCN scores at once at most; on a CPU more leave its cache.",
    )
    batch_delay_seconds: float = Field(
        0.0, ge=0, description="How long the first rows of a batch wait for more."
    )
    candidate_timeout_seconds: float = Field(
        0.4, gt=0, description="Longest wait for svc-candidate."
    )
    feature_timeout_seconds: float = Field(
        0.25, gt=0, description="Longest wait for the feature store."
    )
    arrivals: bool = Field(
        True, description="Whether svc-eta is asked, for the surfaces that show arrivals."
    )
    eta_timeout_seconds: float = Field(0.15, gt=0, description="Longest wait for svc-eta.")

    def explain_store(self) -> str:
        """The shown pages' store with its password."""
        if not self.explain_url:
            return self.log_store()
        return with_password(self.explain_url, self.explain_password)
