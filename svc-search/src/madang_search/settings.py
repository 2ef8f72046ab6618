"""Settings of svc-search."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from madang_runtime.changelog.settings import LogSettings

ENCODER = "search-encoder"


class SearchSettings(LogSettings):
    """Read from `MADANG_SEARCH_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_SEARCH_")

    model: str = Field(ENCODER, description="Name of the encoder in the registry.")
    model_alias: str = Field("champion", description="Alias to follow.")
    precision: Literal["int8", "fp32"] = Field(
        "int8", description="Which model of the encoder runs, where the version has both."
    )
    onnx_threads: int = Field(1, ge=1, description="Threads of the encoder's network.")
    dense_weight: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of the cosine in a score of both; the rest is BM25's.",
    )
    near_similarity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Cosine from which a document counts though no word of it matches; 0 takes "
        "what the encoder's version says.",
    )
    nearest_similarity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Cosine from which a document is shown when nothing counts; 0 takes what the "
        "encoder's version says.",
    )
    intent_threshold: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Cosine from which an intent without a threshold of its own matches; 0 takes "
        "what the encoder's version says.",
    )
    title_weight: float = Field(1.5, ge=0, description="Weight of BM25 over the title.")
    body_weight: float = Field(1.0, ge=0, description="Weight of BM25 over the body.")
    grams_weight: float = Field(
        0.3, ge=0, description="Weight of BM25 over pairs of syllables of title and body."
    )
    utc_offset_hours: float | None = Field(
        None,
        description="Local time of opening hours; unset takes the sun's at the place.",
    )
