"""The city's campaigns: who was told what, who was held out, and what they did, with the truth."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_pipelines.city.names import CATEGORIES
from madang_pipelines.city.truth import Truth, sigmoid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CHANNELS = ("push", "message", "mail")
GROUPS = tuple(category.korean for category in CATEGORIES)
"""What campaigns are about, by number."""
_RESPONSIVE = np.array([-2.2, -2.6, -3.1])  # log odds of opening what a channel brings
_TOLD = 0.7


@dataclass(frozen=True)
class CampaignTruth:
    """What is true of n sends.

    Attributes:
        click: P(open | told). order_told, order_held: P(order | told) and P(order | held out).
    """

    click: Floats
    order_told: Floats
    order_held: Floats

    @property
    def uplift(self) -> Floats:
        """What telling adds to P(order); negative for whom it keeps away."""
        return self.order_told - self.order_held


class CampaignWorld:
    """How the city's users take messages.

    Args:
        users: the city's.
        truth: its tastes.
        seed: of everything that is drawn.
    """

    def __init__(self, users: pl.DataFrame, truth: Truth, seed: int) -> None:
        self.seed = seed
        self._rng = np.random.default_rng([seed, 3])
        n = len(users)
        self._ids = users["user_id"].to_numpy()
        self._liking = truth.user_taste @ _mean_taste(truth, len(GROUPS)).T
        self._channel_pull = self._rng.normal(0, 0.7, (n, len(CHANNELS)))
        self._annoyed = self._rng.gamma(1.2, 0.4, n)  # by being told at all

    def rows(self, user_ids: list[str]) -> Ints:
        """The rows of users in the city's table."""
        return np.searchsorted(self._ids, user_ids)

    def truth(self, users: Ints, group: int, channel: int) -> CampaignTruth:
        """What is true of users who are told of a group, by their rows in the city's table."""
        likes, pull = self._liking[users, group], self._channel_pull[users, channel]
        annoyed = self._annoyed[users]
        held = -2.6 + 1.1 * likes
        # Who likes it would have come anyway; who is annoyed stays away.
        effect = 1.0 + 0.6 * pull - 0.4 * np.maximum(likes, 0) - 0.9 * annoyed
        return CampaignTruth(
            sigmoid(_RESPONSIVE[channel] + 0.9 * likes + pull - 0.4 * annoyed),
            sigmoid(held + effect),
            sigmoid(held),
        )

    def send(
        self, users: Ints, told: NDArray[np.bool_], group: int, channel: int
    ) -> tuple[pl.DataFrame, CampaignTruth]:
        """Tell some of users, and see what all do: user_id, told, clicked, ordered; and the truth
        of each."""
        found, n = self.truth(users, group, channel), len(users)
        frame = pl.DataFrame(
            {
                "user_id": self._ids[users],
                "told": told,
                "clicked": told & (self._rng.random(n) < found.click),
                "ordered": self._rng.random(n) < np.where(told, found.order_told, found.order_held),
            }
        )
        return frame, found

    def run(
        self, campaigns: int, reach: float, period: int
    ) -> tuple[pl.DataFrame, pl.DataFrame, CampaignTruth]:
        """Run campaigns among users drawn by chance, three in ten of them held out.

        Args:
            campaigns: how many; each is about one group, through one channel.
            reach: share of users that one is for.
            period: in which they are sent.

        Returns:
            the tables `campaigns` and `sends`, and the truth of each send.
        """
        about = self._rng.integers(0, len(GROUPS), campaigns)
        through = self._rng.integers(0, len(CHANNELS), campaigns)
        names = [f"c{number:03d}" for number in range(campaigns)]
        sends, truths = [], []
        for name, group, channel in zip(names, about.tolist(), through.tolist(), strict=True):
            to = np.flatnonzero(self._rng.random(len(self._ids)) < reach)
            frame, found = self.send(to, self._rng.random(len(to)) < _TOLD, group, channel)
            sends.append(frame.select(pl.lit(name).alias("campaign_id"), pl.all()))
            truths.append(found)
        made = pl.DataFrame(
            {
                "campaign_id": names,
                "group": [GROUPS[g] for g in about],
                "channel": [CHANNELS[c] for c in through],
                "period": [period] * campaigns,
            }
        )
        joined = (
            np.concatenate([getattr(t, name) for t in truths])
            for name in ("click", "order_told", "order_held")
        )
        return made, pl.concat(sends), CampaignTruth(*joined)


def _mean_taste(truth: Truth, groups: int) -> Floats:
    """Of the items of each group, shape [groups, tastes]."""
    sums = np.zeros((groups, truth.item_taste.shape[1]))
    np.add.at(sums, truth.item_category, truth.item_taste)
    counts = np.bincount(truth.item_category, minlength=groups)
    return sums / np.maximum(counts, 1)[:, None]
