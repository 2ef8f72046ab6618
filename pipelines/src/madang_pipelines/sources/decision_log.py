"""What svc-ranker's bandits tried and what came of it, from the logs of decisions and feedback."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_pipelines.ope import Estimate, Evaluation, Floats, estimate, on_policy

_PRIOR_SUCCESSES, _PRIOR_IMPRESSIONS = 1.0, 100.0
_COLUMNS = ("request_id", "item_id", "position", "explored", "propensity", "surface")
_POOL = ("pool_item_ids", "pool_impressions", "pool_rewards")


@dataclass(frozen=True)
class Explorations:
    """n items that a bandit put on a first page and that were seen.

    Attributes:
        reward: whether it paid, [n].
        propensity: of the item at its position, [n].
        page: the number of the page that showed it, [n].
        slot: the number of the explored position on its page, from 0, [n].
        place: where the item stands in its pool by expected reward, best first, from 0, [n].
        expected: the expected reward of each item of its pool as known when it was shown, best
            first: n arrays.
    """

    reward: Floats
    propensity: Floats
    page: NDArray[np.int64]
    slot: NDArray[np.int64]
    place: NDArray[np.int64]
    expected: list[Floats]

    def __len__(self) -> int:
        return len(self.reward)

    def logged(self) -> Estimate:
        """What the bandit earned an impression."""
        return on_policy(self.reward, self.page)

    def uniform(self) -> Evaluation:
        """What chance among the same pools would have earned."""
        size = np.array([len(e) for e in self.expected])
        return self._of(1 / size, np.array([e.mean() for e in self.expected]))

    def greedy(self) -> Evaluation:
        """What the highest expected rewards of the same pools would have earned."""
        chosen = np.array([e[s] for e, s in zip(self.expected, self.slot, strict=True)])
        return self._of((self.place == self.slot).astype(np.float64), chosen)

    def _of(self, probability: Floats, of_policy: Floats) -> Evaluation:
        predicted = np.array([e[p] for e, p in zip(self.expected, self.place, strict=True)])
        weight = probability / self.propensity
        return estimate(self.reward, weight, predicted, of_policy, self.page)


def load_explorations(
    folder: Path, surface: str, reward: Literal["CLICK", "CONVERSION"]
) -> Explorations:
    """Read the logs below a folder: `decisions` and `feedback`, Parquet files by date.

    Only items count whose impression was fed back, on first pages: the pool of a later page is
    what earlier ones left.

    Raises:
        ValueError: there are no logs, or nothing was explored on the surface.
    """
    shown = read_log(folder / "decisions", (*_COLUMNS, *_POOL)).filter(
        pl.col("surface") == surface,
        pl.col("explored"),
        (pl.col("position").min() == 1).over("request_id"),
    )
    events = read_log(folder / "feedback", ("event_id", "request_id", "item_id", "type")).unique(
        "event_id"
    )
    of_item = events.group_by("request_id", "item_id").agg(
        seen=(pl.col("type") == "IMPRESSION").any(), paid=(pl.col("type") == reward).any()
    )
    rows = (
        shown.sort("request_id", "position")
        .with_columns(slot=pl.int_range(pl.len()).over("request_id"))
        .join(of_item.filter("seen"), ["request_id", "item_id"], maintain_order="left")
    )
    if not len(rows):
        raise ValueError(f"nothing that was explored on {surface!r} was fed back in {folder}")
    places, expected = [], []
    for item_id, *pool in rows.select("item_id", *_POOL).iter_rows():
        ids, rewards = _best_first(*pool)
        places.append(ids.index(item_id))
        expected.append(rewards)
    return Explorations(
        rows["paid"].cast(pl.Float64).to_numpy(),
        rows["propensity"].cast(pl.Float64).to_numpy(),
        rows["request_id"].rank("dense").to_numpy().astype(np.int64) - 1,
        rows["slot"].to_numpy(),
        np.array(places),
        expected,
    )


def _best_first(
    ids: list[str], impressions: list[int], rewards: list[int]
) -> tuple[list[str], Floats]:
    successes = np.array(rewards) + _PRIOR_SUCCESSES
    expected = successes / (np.array(impressions) + _PRIOR_IMPRESSIONS)
    order = np.argsort(-expected, kind="stable")
    return [ids[i] for i in order.tolist()], expected[order]


def read_log(folder: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """Columns of a log, Parquet files by date. Raises: ValueError there is none."""
    if not any(folder.glob("**/*.parquet")):
        raise ValueError(f"no log in {folder}")
    # Versions add columns: parts of one log need not have the same.
    parts = pl.scan_parquet(folder / "**/*.parquet", extra_columns="ignore")
    return parts.select(columns).collect()
