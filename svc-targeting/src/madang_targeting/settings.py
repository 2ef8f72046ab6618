"""Settings of svc-targeting."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from madang_runtime.changelog.settings import LogSettings


class TargetingSettings(LogSettings):
    """Read from `MADANG_TARGETING_*`. Segments, caps and results are in the logs' store."""

    model_config = SettingsConfigDict(env_prefix="MADANG_TARGETING_")

    caps: Path | None = Field(
        None, description="YAML of channels and their caps; unset takes the built-in."
    )
    model_alias: str = Field("champion", description="Alias to follow.")
    audience_folder: Path = Field(
        Path("/tmp/madang-audience"),
        description="Where versions of the audience are copied to, when the registry is no folder.",
    )
    work: bool = Field(
        True, description="Whether this replica makes segments, or leaves that to others."
    )
    work_threads: int = Field(1, ge=1, le=64, description="Threads that make a segment.")
    lease_seconds: float = Field(
        15.0, ge=3, description="After so long without a sign of its maker a segment begins anew."
    )
    results_days: int = Field(
        180, ge=1, le=3650, description="A campaign is forgotten so long after its last result."
    )
