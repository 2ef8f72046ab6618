"""What models read of a user, of a preference group, and of how messages were answered before."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_pipelines.tables import Tables
from madang_targeting.model import Layout
from madang_targeting.trees import TreeTraining, probabilities, train_trees

Floats = NDArray[np.floating]
_KNOWN = ["age_band", "gender", "home_district"]
_EVENTS = {"clicks": "click", "orders": "order"}
_PREFERENCES = {"opens": "click", "likes": "order"}
_ANSWERS = {"told": pl.col("told"), "answered": pl.col("clicked")}
_LEAST = 20


def layout_of(tables: Tables) -> Layout:
    """The columns of an audience made of these tables."""
    items = tables.frames["items"].filter(pl.col("category_name") != "")
    channels = sorted(tables.frames["campaigns"]["channel"].unique().to_list())
    answers = [f"{name}_{channel}" for channel in channels for name in _ANSWERS]
    return Layout(
        about=[*_KNOWN, *_EVENTS, *answers],
        by_group=[*_EVENTS, *_PREFERENCES],
        groups=sorted(items["category_name"].unique().to_list()),
        channels=channels,
    )


def user_columns(
    tables: Tables, layout: Layout, period: int, training: TreeTraining
) -> pl.DataFrame:
    """All of the layout but answers, as a period begins: `user_id` and a column each."""
    *before, now = (_deeds(tables, layout, p) for p in range(min(period, 1), period + 1))
    return now.with_columns(_preferences(tables, layout, before, now, training))


def _deeds(tables: Tables, layout: Layout, period: int) -> pl.DataFrame:
    """Who users are, and the logarithms of what they did before a period, in all and by group."""
    did = _actions(tables).filter(pl.col("period") < period)
    users = tables.frames["users"].select("user_id", *_KNOWN)
    for column, kind in _EVENTS.items():
        own = did.filter(pl.col("type") == kind)
        groups = pl.col("group").cast(pl.Enum(layout.groups))
        counts = own.with_columns(groups).pivot(
            "group", index="user_id", values="period", aggregate_function="len"
        )
        wide = counts.select(
            "user_id",
            *(
                (pl.col(g) if g in counts.columns else pl.lit(0)).alias(f"{column}.{g}")
                for g in layout.groups
            ),
        )
        users = users.join(wide, "user_id", how="left", maintain_order="left")
        names = [f"{column}.{g}" for g in layout.groups]
        users = users.with_columns(pl.col(names).fill_null(0)).with_columns(
            pl.sum_horizontal(names).log1p().alias(column), pl.col(names).log1p()
        )
    return users


def _actions(tables: Tables) -> pl.DataFrame:
    items = tables.frames["items"].select("item_id", group="category_name")
    items = items.filter(pl.col("group") != "")
    return tables.frames["actions"].join(items, "item_id")


def _preferences(
    tables: Tables,
    layout: Layout,
    before: Sequence[pl.DataFrame],
    now: pl.DataFrame,
    training: TreeTraining,
) -> list[pl.Series]:
    """P(a user opens, orders from a group in a period), by a model each that is learned from all
    periods before; `before` are the columns as of each of them, from period 1."""
    names = [c for c in now.columns if c != "user_id"]
    if not before:
        nothing = pl.Series([None] * len(now), dtype=pl.Float64)
        return [nothing.alias(f"{c}.{g}") for c in _PREFERENCES for g in layout.groups]
    then, inputs = (f.select(names).cast(pl.Float64).to_numpy() for f in (pl.concat(before), now))
    rows = pl.concat(
        frame.select("user_id", period=pl.lit(period, pl.Int64))
        for period, frame in enumerate(before, 1)
    )
    did = _actions(tables).select("user_id", "period", "type", "group").unique()
    found = []
    for column, kind in _PREFERENCES.items():
        for group in layout.groups:
            own = did.filter((pl.col("type") == kind) & (pl.col("group") == group))
            hit = rows.join(own, ["user_id", "period"], how="left", maintain_order="left")
            target = hit["type"].is_not_null().to_numpy()
            if target.sum() < _LEAST:
                probability = np.full(len(now), target.mean())
            else:
                trees = train_trees(then, target.astype(np.float64), training)
                probability = probabilities(trees, inputs)
            found.append(pl.Series(f"{column}.{group}", probability))
    return found


def recipients(
    users: Mapping[int, pl.DataFrame],
    layout: Layout,
    campaigns: pl.DataFrame,
    sends: pl.DataFrame,
    most: int | None = None,
) -> pl.DataFrame:
    """Sends with their campaign's group and channel, and all columns of the layout as they were
    before the send.

    Args:
        users: their columns as each period of a campaign begins.
        layout: of the columns.
        campaigns: in the order in which they were sent; those of groups that the layout lacks are
            left out.
        sends: of them.
        most: of a campaign, drawn by chance from those who were told; None: all, told or not.
    """
    known = campaigns.with_row_index("order").filter(pl.col("group").is_in(layout.groups))
    joined = sends.join(known, "campaign_id").sort("order", maintain_order=True)
    joined = joined.with_columns(
        ((event & own).cast(pl.Int64).cum_sum() - (event & own).cast(pl.Int64))
        .over("user_id")
        .alias(name)
        for name, event, own in _answers(layout)
    )
    if most is not None:
        draw = pl.int_range(pl.len()).shuffle(seed=0).over("campaign_id")
        joined = joined.filter("told").filter(draw < most)
    parts = [
        own.join(users[period], "user_id", maintain_order="left")
        for (period,), own in joined.partition_by("period", as_dict=True).items()
    ]
    return pl.concat(parts).sort("order", maintain_order=True) if parts else joined


def audience(
    users: pl.DataFrame, layout: Layout, campaigns: pl.DataFrame, sends: pl.DataFrame
) -> pl.DataFrame:
    """Users with all columns of the layout, as of now."""
    answers = (
        sends.join(campaigns, "campaign_id")
        .group_by("user_id")
        .agg((event & own).sum().alias(name) for name, event, own in _answers(layout))
    )
    names = [name for name, _, _ in _answers(layout)]
    joined = users.join(answers, "user_id", how="left", maintain_order="left")
    return joined.with_columns(pl.col(names).fill_null(0)).select(
        "user_id", pl.col(layout.columns()).cast(pl.Float32)
    )


def _answers(layout: Layout) -> list[tuple[str, pl.Expr, pl.Expr]]:
    """Columns of answers: name, what happened, and whether by that channel."""
    return [
        (f"{name}_{channel}", event, pl.col("channel") == channel)
        for channel in layout.channels
        for name, event in _ANSWERS.items()
    ]


def of_own_group(frame: pl.DataFrame, layout: Layout) -> Floats:
    """What the models of groups read of each recipient, by the group of its campaign, shape
    [n, columns]."""
    group = frame["group"].to_numpy()
    found = np.full((len(frame), len(layout.of_group(""))), np.nan)
    for name in layout.groups:
        own = group == name
        found[own] = frame.filter(own).select(layout.of_group(name)).cast(pl.Float64).to_numpy()
    return found


def send_inputs(frame: pl.DataFrame, layout: Layout) -> Floats:
    """The same with the channel's and the group's code, for models of all campaigns."""
    return np.column_stack(
        [
            of_own_group(frame, layout),
            _codes(frame["channel"], layout.channels),
            _codes(frame["group"], layout.groups),
        ]
    )


def _codes(names: pl.Series, known: Sequence[str]) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = names.cast(pl.Enum(list(known))).to_physical().to_numpy()
    return codes
