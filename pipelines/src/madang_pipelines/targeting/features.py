"""What models read of a user and a campaign."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_pipelines.city.campaigns import CHANNELS
from madang_pipelines.tables import Tables

Floats = NDArray[np.floating]
_ABOUT = ("age_band", "gender", "home_district")


def send_inputs(tables: Tables, campaigns: pl.DataFrame, sends: pl.DataFrame) -> Floats:
    """Inputs of each send: who the user is, what they did before the held-out period in all and
    with the campaign's category, and how they answered campaigns before this one by channel.

    Returns:
        shape [n, columns].
    """
    did = _deeds(tables)
    joined = (
        sends.with_row_index("row")
        .join(campaigns, "campaign_id", maintain_order="left")
        .join(tables.frames["users"].select("user_id", *_ABOUT), "user_id", maintain_order="left")
        .join(did.group_by("user_id").agg(pl.col("clicks", "orders").sum()), "user_id", how="left")
        .join(
            did.rename({"clicks": "category_clicks", "orders": "category_orders"}),
            ["user_id", "category"],
            how="left",
        )
        .sort("row")
        .with_columns(pl.col("channel").replace_strict(CHANNELS, range(len(CHANNELS))))
        .with_columns(*_answers())
    )
    counts = ("clicks", "orders", "category_clicks", "category_orders")
    return (
        joined.select(
            *_ABOUT,
            "category",
            "channel",
            *(pl.col(name).fill_null(0).log1p() for name in counts),
            (pl.col("category_orders").fill_null(0) + 0.5)
            .truediv(pl.col("orders").fill_null(0) + 8)
            .alias("category_share"),
            "^told_.*$",
            "^answered_.*$",
        )
        .cast(pl.Float64)
        .to_numpy()
    )


def _deeds(tables: Tables) -> pl.DataFrame:
    """Clicks and orders of each user and category before the held-out period."""
    return (
        tables.frames["actions"]
        .filter(pl.col("period") < tables.test_period)
        .join(tables.frames["items"].select("item_id", "category"), "item_id")
        .group_by("user_id", "category")
        .agg(
            (pl.col("type") == "click").sum().alias("clicks"),
            (pl.col("type") == "order").sum().alias("orders"),
        )
    )


def _answers() -> list[pl.Expr]:
    """How often the user was told before, and opened it, by channel; campaigns come in order."""
    found = []
    for code, name in enumerate(CHANNELS):
        own = pl.col("channel") == code
        for column, what in ((own & pl.col("told"), "told"), (own & pl.col("clicked"), "answered")):
            before = column.cast(pl.Int64)
            found.append((before.cum_sum() - before).over("user_id").alias(f"{what}_{name}"))
    return found
