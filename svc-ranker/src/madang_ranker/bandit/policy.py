"""How a surface explores."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

DAY_SECONDS = 86_400


class BanditPolicy(BaseModel):
    """Batched, pessimistic Thompson sampling over a sliding window, behind a filter.

    Attributes:
        reward: what an impression may earn.
        every: each so manieth position explores; 1 lets the bandit rank the whole surface.
        depth: positions from the first on in which any explores.
        window_seconds: how far back events count.
        bucket_seconds: by how much the window slides, a whole part of it.
        prior_successes, prior_failures: α and β of the Beta prior, (1, 99) in impressions:
            pessimistic, since rewards come later than the impressions that earned them. Where the
            surface earns more than that, β shrinks until the mean is the surface's, or arms that
            nobody saw would never be tried again.
        pooling: as how many rewards everybody's rate of an arm counts in a segment's prior; 0 lets
            each segment start from the prior above.
        rankings: draws of each arm a batch; a user keeps one for an hour.
        keep: arms of highest lower confidence bound that pass the filter.
        fresh: arms with few impressions that pass beside them, by chance.
        fresh_below: impressions below which an arm is fresh.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reward: Literal["CLICK", "CONVERSION"] = "CONVERSION"
    every: int = Field(5, ge=1)
    depth: int = Field(50, ge=1, le=500)
    window_seconds: int = Field(7 * DAY_SECONDS, ge=60)
    bucket_seconds: int = Field(DAY_SECONDS // 4, ge=1)
    prior_successes: float = Field(1.0, gt=0)
    prior_failures: float = Field(99.0, gt=0)
    pooling: float = Field(6.0, ge=0)
    rankings: int = Field(64, ge=1, le=1024)
    keep: int = Field(40, ge=0, le=500)
    fresh: int = Field(10, ge=0, le=500)
    fresh_below: int = Field(200, ge=1)

    @model_validator(mode="after")
    def _whole_buckets(self) -> Self:
        if self.window_seconds % self.bucket_seconds:
            raise ValueError("window_seconds must be a multiple of bucket_seconds")
        return self

    def buckets(self, now: float) -> range:
        """The numbers of the buckets in the window, the one that is counted in now last."""
        current = int(now // self.bucket_seconds)
        return range(current - self.window_seconds // self.bucket_seconds + 1, current + 1)
