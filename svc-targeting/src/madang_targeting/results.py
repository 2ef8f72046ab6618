"""What became of campaigns: who was sent one, and who did what, to learn from."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from madang_runtime.errors import Code, MadangError, reason


class Event(StrEnum):
    """What is recorded of a user."""

    SENT = "sent"
    CLICK = "click"
    ORDER = "order"


class ResultStore(Protocol):
    """Users of each campaign and event, each once; forgotten some time after the last of them.

    `svc-targeting/tests/test_stores.py` is the suite of all. Every method raises MadangError
    STORE_UNAVAILABLE.
    """

    def append(
        self, campaign_id: str, event: Event, user_ids: Sequence[str], channel: str = ""
    ) -> None:
        """Record users, and by which channel they were sent it."""

    def read(self, campaign_id: str) -> dict[Event, set[str]]:
        """All users of a campaign, by event; none where nothing is known of it."""

    def channel(self, campaign_id: str) -> str:
        """The channel by which users were last sent it; "" when nobody was."""

    def known(self, campaign_ids: Sequence[str]) -> list[bool]:
        """Whether anything is known of each campaign."""

    def close(self) -> None:
        """Close connections."""


def campaign_not_found(campaign_id: str) -> MadangError:
    """NOT_FOUND, CAMPAIGN_NOT_FOUND."""
    return MadangError(
        Code.NOT_FOUND,
        reason.ERROR_REASON_CAMPAIGN_NOT_FOUND,
        f"nobody is known to have been sent campaign {campaign_id!r}",
        campaign=campaign_id,
    )
