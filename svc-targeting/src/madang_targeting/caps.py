"""Frequency caps: how many messages a user takes, by channel and time."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

Bools = NDArray[np.bool_]
_LONGEST_SECONDS = 90 * 86_400


class Cap(BaseModel):
    """At most so many messages within a sliding window.

    Attributes:
        channel: it is for; "" counts all channels together.
        most: messages; 0 closes the channel.
        seconds: length of the window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: str = ""
    most: int = Field(ge=0, le=1000)
    seconds: int = Field(gt=0, le=_LONGEST_SECONDS)


class Caps(BaseModel):
    """All caps; a message must be within each that counts its channel.

    Attributes:
        channels: that there are.
        caps: of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: list[str] = Field(min_length=1, max_length=255)
    caps: list[Cap] = []

    @field_validator("caps")
    @classmethod
    def _known(cls, caps: list[Cap], info: object) -> list[Cap]:
        channels = getattr(info, "data", {}).get("channels", [])
        for cap in caps:
            if cap.channel and cap.channel not in channels:
                raise ValueError(f"a cap is for {cap.channel!r}, which is no channel")
        return caps

    def on(self, channel: str) -> list[Cap]:
        """The caps that a message by a channel must be within."""
        return [cap for cap in self.caps if cap.channel in ("", channel)]

    def keep_seconds(self) -> int:
        """How long a message counts for anything."""
        return max((cap.seconds for cap in self.caps), default=1)


def load_caps(path: Path | None) -> Caps:
    """Read caps from YAML; None takes the built-in ones. Raises: pydantic's error."""
    text = (path or files("madang_targeting") / "caps.yaml").read_text(encoding="utf-8")
    return Caps.model_validate(yaml.safe_load(text))


class Sends(NamedTuple):
    """Messages of one campaign to n users at one time.

    Attributes:
        campaign_id: of them; a user is counted once a campaign, however often that is recorded.
        channel: that they go through.
        time: seconds since the epoch.
        user_ids: distinct.
    """

    campaign_id: str
    channel: str
    time: int
    user_ids: Sequence[str]


class CapStore(Protocol):
    """Remembers what users were sent. `svc-targeting/tests/test_caps.py` is the suite of all.

    Every method raises MadangError STORE_UNAVAILABLE.
    """

    def allowed(self, caps: Caps, sends: Sends) -> Bools:
        """Whom it may be sent to, shape [n]. Nothing is recorded."""

    def record(self, caps: Caps, sends: Sends) -> Bools:
        """Record those whom it may be sent to, and return them, shape [n].

        Checked and recorded in one step a user: however many senders there are at once, nobody gets
        more than their caps allow.
        """
