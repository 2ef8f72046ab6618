"""The city's campaigns: who was told what, who was held out, and what they did, with the truth."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_pipelines.city.truth import Truth, sigmoid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CHANNELS = ("push", "message", "mail")
_RESPONSIVE = np.array([-2.2, -2.6, -3.1])  # log odds of opening what a channel brings


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


def run_campaigns(
    users: pl.DataFrame, truth: Truth, campaigns: int, reach: float, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame, CampaignTruth]:
    """Run campaigns among users drawn by chance, three in ten of them held out.

    Args:
        users: the city's.
        truth: its tastes.
        campaigns: how many; each is about one category, through one channel.
        reach: share of users that one is for.
        seed: of everything that is drawn.

    Returns:
        campaigns: campaign_id, category (code), channel; sends: campaign_id, user_id, told,
        clicked, ordered; and the truth of each send.
    """
    rng = np.random.default_rng([seed, 3])
    n, categories = len(users), int(truth.item_category.max()) + 1
    liking = truth.user_taste @ _mean_taste(truth, categories).T
    channel_pull = rng.normal(0, 0.7, (n, len(CHANNELS)))
    annoyed = rng.gamma(1.2, 0.4, n)  # by being told at all
    ids = users["user_id"].to_numpy()
    rows, truths = [], []
    about = rng.integers(0, categories, campaigns)
    through = rng.integers(0, len(CHANNELS), campaigns)
    for number, (category, channel) in enumerate(zip(about, through, strict=True)):
        to = np.flatnonzero(rng.random(n) < reach)
        told = rng.random(len(to)) < 0.7
        likes, pull = liking[to, category], channel_pull[to, channel]
        held = -2.6 + 1.1 * likes
        # Who likes it would have come anyway; who is annoyed stays away.
        effect = 1.0 + 0.6 * pull - 0.4 * np.maximum(likes, 0) - 0.9 * annoyed[to]
        found = CampaignTruth(
            sigmoid(_RESPONSIVE[channel] + 0.9 * likes + pull - 0.4 * annoyed[to]),
            sigmoid(held + effect),
            sigmoid(held),
        )
        clicked = told & (rng.random(len(to)) < found.click)
        ordered = rng.random(len(to)) < np.where(told, found.order_told, found.order_held)
        rows.append(
            pl.DataFrame(
                {
                    "campaign_id": [f"c{number:03d}"] * len(to),
                    "user_id": ids[to],
                    "told": told,
                    "clicked": clicked,
                    "ordered": ordered,
                }
            )
        )
        truths.append(found)
    made = pl.DataFrame(
        {
            "campaign_id": [f"c{number:03d}" for number in range(campaigns)],
            "category": about + 1,
            "channel": [CHANNELS[c] for c in through],
        }
    )
    joined = CampaignTruth(
        *(
            np.concatenate([getattr(t, name) for t in truths])
            for name in ("click", "order_told", "order_held")
        )
    )
    return made, pl.concat(rows), joined


def _mean_taste(truth: Truth, categories: int) -> Floats:
    """Of the items of each category, shape [categories, tastes]."""
    sums = np.zeros((categories, truth.item_taste.shape[1]))
    np.add.at(sums, truth.item_category, truth.item_taste)
    counts = np.bincount(truth.item_category, minlength=categories)
    return sums / np.maximum(counts, 1)[:, None]
