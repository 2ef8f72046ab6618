"""Settings of svc-candidate."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from madang_runtime.changelog.settings import LogSettings


class CandidateSettings(LogSettings):
    """Read from `MADANG_CANDIDATE_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_CANDIDATE_")

    model: str = Field("two-tower", description="Name of the two-tower model in the registry.")
    content_model: str = Field(
        "shop-content",
        description="Name of the content towers in the registry, by which searches suggest items; "
        "there may be none.",
    )
    model_alias: str = Field("champion", description="Alias to follow.")
    onnx_threads: int = Field(1, ge=1, description="Threads of the user tower.")
    feature_timeout_seconds: float = Field(
        0.15, gt=0, description="Longest wait for the feature store."
    )
    item_timeout_seconds: float = Field(
        2.0, gt=0, description="Longest wait for the feature store when items change."
    )
    source_timeout_seconds: float = Field(
        0.2, gt=0, description="Longest wait for one source; a later one is left out."
    )
    exact_below: int = Field(
        20_000,
        ge=0,
        description="Up to so many deliverable items are searched exactly, more by the ANN index.",
    )
    rrf_k: float = Field(60.0, gt=0, description="The constant of reciprocal rank fusion.")
    weight_two_tower: float = Field(1.0, ge=0, description="Weight of the two-tower source.")
    weight_reactive: float = Field(1.0, ge=0, description="Weight of the last actions' source.")
    weight_again: float = Field(1.0, ge=0, description="Weight of what the user ordered before.")
    weight_popular: float = Field(0.5, ge=0, description="Weight of the popular source.")
    weight_cohort: float = Field(0.5, ge=0, description="Weight of what the cohort likes.")
    weight_explore: float = Field(0.5, ge=0, description="Weight of what the bandit should try.")
    weight_ads: float = Field(1.0, ge=0, description="Weight of ads near user and context.")
    pacing_stale_seconds: float = Field(
        300.0,
        gt=0,
        description="Age of the last pacing from which ads with a budget are not shown any more.",
    )
    segments: list[str] = Field(
        [],
        description="INT64 features view.feature of one view that say in which segments a user "
        "is, the most specific first; none: everybody is alike. As the consumer has it.",
    )
