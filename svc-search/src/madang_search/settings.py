"""Settings of svc-search and of what feeds Milvus."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from madang_runtime.changelog.settings import LogSettings
from madang_runtime.text import ENCODER

KEYWORDS, QUERIES = "search-keywords", "search-queries"


class EncoderSettings(LogSettings):
    """What the service and the feeder share."""

    model: str = Field(ENCODER, description="Name of the encoder in the registry.")
    precision: Literal["int8", "fp32"] = Field(
        "int8", description="Which model of the encoder runs, where the version has both."
    )
    onnx_threads: int = Field(1, ge=1, description="Threads of the encoder's network.")
    milvus_url: str = Field(
        "http://127.0.0.1:19530", description="http:// or https:// of Milvus, where it is used."
    )
    milvus_token: SecretStr = Field(
        SecretStr(""), description='"user:password" or an API key of Milvus; empty for none.'
    )
    milvus_timeout_seconds: float = Field(5.0, gt=0, description="Longest wait for Milvus.")


class FeederSettings(EncoderSettings):
    """Read from `MADANG_FEEDER_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_FEEDER_")

    aliases: list[str] = Field(
        ["champion"],
        min_length=1,
        description="A collection is fed for each version that one of these points at.",
    )
    keep_seconds: float = Field(
        600.0, ge=0, description="A collection is dropped so long after no alias points at it."
    )


class SearchSettings(EncoderSettings):
    """Read from `MADANG_SEARCH_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_SEARCH_")

    model_alias: str = Field("champion", description="Alias to follow.")
    index: Literal["exact", "milvus"] = Field(
        "exact",
        description="Where documents are searched: in the memory of each replica, or in Milvus, "
        "which the feeder keeps at the state of their log.",
    )
    milvus_consistency: Literal["Strong", "Bounded", "Eventually"] = Field(
        "Bounded",
        description="Consistency level of searches. The feeder waits until what it wrote is seen, "
        "so that Bounded is enough unless collections have several replicas in Milvus.",
    )
    dense_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the cosine in a score of both, the rest is BM25's; 0 takes what the "
        "encoder's version says.",
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
    keywords_model: str = Field(
        KEYWORDS, description="Name of the keywords in the registry; there may be none."
    )
    queries_model: str = Field(
        QUERIES, description="Name of what became of queries in the registry; there may be none."
    )
    ranker_timeout_seconds: float = Field(0.25, gt=0, description="Longest wait for svc-ranker.")
    feature_timeout_seconds: float = Field(
        0.15, gt=0, description="Longest wait for the feature store."
    )
    searches_url: str = Field(
        "", description="fsspec URL of a folder to log searches to, as Parquet; empty logs nothing."
    )
    searches_flush_seconds: float = Field(
        10.0, gt=0, description="How long a search waits at most for its part of that log."
    )
    utc_offset_hours: float | None = Field(
        None,
        description="Local time of opening hours; unset takes the sun's at the place.",
    )
