"""What users chose, one after the other, as canonical tables: check-ins, orders, views.

A visit counts as an order. What was shown is not in such data: its impressions are the visits
alone, and `negatives` sets beside them what could have been shown.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_pipelines.tables import Rejected, Tables
from madang_runtime.models.context import Clock

# Share of a user's history at which a period begins; what is held out is the last period.
_PERIOD_STARTS = np.array([0.0, 0.6, 0.75, 0.88])
_TEST_PERIOD = len(_PERIOD_STARTS)
_MAX_SESSIONS = 200_000


def tables_of_visits(
    name: str,
    train: pl.DataFrame,
    test: pl.DataFrame,
    items: pl.DataFrame,
    quality: Sequence[Rejected],
    clock: Clock | None = None,
    *,
    ordered: bool = True,
    seed: int = 7,
) -> Tables:
    """Tables of visits.

    Args:
        name: of the data.
        train, test: one row a visit, in each user's order: user_id, item (its row in `items`) and
            time in milliseconds. Users of test that train lacks are left out.
        items: as the canonical table has them.
        quality: what was set aside.
        clock: of local time; the sun's without it.
        ordered: whether it is known when visits were.
        seed: of the sessions that are drawn where there are many.
    """
    train = train.with_columns(period=_periods(train))
    test = test.with_columns(period=pl.lit(_TEST_PERIOD, pl.Int64())).filter(
        pl.col("user_id").is_in(train["user_id"].unique().to_list())
    )
    places = items.select("latitude", "longitude").to_numpy()
    sessions, impressions = _sessions(train, places, seed)
    held_out = _held_out(train, test, places, len(sessions))
    item_ids = items["item_id"]
    home = places[train.group_by("user_id", maintain_order=True).first()["item"].to_numpy()]
    users = train.select(pl.col("user_id").unique(maintain_order=True)).with_columns(
        age_band=0, gender=0, home_district=0, latitude=home[:, 0], longitude=home[:, 1]
    )
    actions = pl.concat([train, test]).with_columns(
        item_id=item_ids.gather(pl.concat([train, test])["item"]), type=pl.lit("order")
    )
    frames = {
        "users": users,
        "items": items,
        "sessions": pl.concat([sessions, held_out]),
        "impressions": impressions.with_columns(item_id=item_ids.gather(impressions["item"])),
        "actions": actions,
    }
    return Tables(
        name,
        frames,
        clock or Clock(None),
        _TEST_PERIOD + 1,
        real_impressions=False,
        ordered=ordered,
        quality=[*quality],
    )


def _periods(train: pl.DataFrame) -> pl.Series:
    share = train.select(
        pl.int_range(pl.len()).over("user_id") / pl.len().over("user_id")
    ).to_series()
    return pl.Series(np.searchsorted(_PERIOD_STARTS, share.to_numpy(), side="right") - 1)


def _sessions(
    train: pl.DataFrame, places: NDArray[np.float64], seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A session for each visit that features exist for, at the place of the one before."""
    rng = np.random.default_rng(seed)
    visits = train.with_row_index("row").sort("user_id", "row", maintain_order=True)
    item, period = visits["item"].to_numpy(), visits["period"].to_numpy()
    user, time = visits["user_id"].to_numpy(), visits["time"].to_numpy()
    _, first = np.unique(user, return_index=True)
    begins = np.repeat(first, np.diff([*first, len(user)]))
    usable = np.flatnonzero((period > 0) & (np.arange(len(user)) > begins))
    chosen = np.sort(rng.permutation(usable)[:_MAX_SESSIONS])
    came_from = places[item[chosen - 1]]
    sessions = pl.DataFrame(
        {
            "session_id": np.arange(len(chosen)),
            "user_id": visits["user_id"].gather(chosen),
            "time": time[chosen],
            "latitude": came_from[:, 0],
            "longitude": came_from[:, 1],
            "period": period[chosen],
        }
    )
    impressions = pl.DataFrame(
        {
            "session_id": np.arange(len(chosen)),
            "item": item[chosen],
            "position": np.zeros(len(chosen), np.int64),
            "clicked": np.ones(len(chosen), bool),
            "ordered": np.ones(len(chosen), bool),
            "hidden": np.zeros(len(chosen), bool),
        }
    )
    return sessions, impressions


def _held_out(
    train: pl.DataFrame, test: pl.DataFrame, places: NDArray[np.float64], first_id: int
) -> pl.DataFrame:
    """One session a user: where the history ends, at the time of the next visit."""
    last = train.group_by("user_id", maintain_order=True).last().select("user_id", "item")
    first = test.group_by("user_id", maintain_order=True).first().select("user_id", "time")
    both = first.join(last, "user_id", maintain_order="left")
    at = places[both["item"].to_numpy()]
    return pl.DataFrame(
        {
            "session_id": first_id + np.arange(len(both)),
            "user_id": both["user_id"],
            "time": both["time"],
            "latitude": at[:, 0],
            "longitude": at[:, 1],
            "period": np.full(len(both), _TEST_PERIOD),
        }
    )
