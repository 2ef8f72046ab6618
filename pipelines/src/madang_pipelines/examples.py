"""Training examples of both models, from tables.

Features are as of the beginning of the period that an example falls into.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_candidate.ad_train import AdExamples
from madang_candidate.train import TowerExamples
from madang_pipelines.features import FeatureBuilder, look_up
from madang_pipelines.tables import Tables
from madang_ranker.train import DcnExamples
from madang_runtime.models.context import context_rows
from madang_runtime.models.inputs import InputRows

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Snapshots:
    """Feature rows of all periods, stacked: period p's rows begin at p × n."""

    users: InputRows
    items: InputRows
    user_count: int
    item_count: int

    @classmethod
    def of(cls, builder: FeatureBuilder, periods: int) -> "Snapshots":
        """Build the rows as of the beginning of each period."""
        users = [builder.users(p) for p in range(periods)]
        items = [builder.items(p) for p in range(periods)]
        return cls(_stack(users), _stack(items), len(users[0].ints), len(items[0].ints))

    def catalogue(self, period: int) -> Ints:
        """The rows of all items as of the beginning of a period."""
        return period * self.item_count + np.arange(self.item_count)


def _stack(rows: list[InputRows]) -> InputRows:
    return InputRows(
        np.concatenate([r.ints for r in rows]), np.concatenate([r.floats for r in rows])
    )


def sessions_of(tables: Tables, periods: range) -> pl.DataFrame:
    """The sessions of some periods, with the row number `session` that examples point at."""
    wanted = tables.frames["sessions"].filter(pl.col("period").is_in(list(periods)))
    return wanted.with_row_index("session").with_columns(pl.col("session").cast(pl.Int64))


def session_context(sessions: pl.DataFrame, tables: Tables) -> InputRows:
    """The context rows of sessions."""
    return context_rows(
        sessions["time"].to_numpy(),
        sessions["latitude"].to_numpy(),
        sessions["longitude"].to_numpy(),
        tables.clock,
    )


def dcn_examples(
    tables: Tables, builder: FeatureBuilder, snapshots: Snapshots, periods: range
) -> DcnExamples:
    """The impressions of some periods."""
    sessions = sessions_of(tables, periods)
    keys = sessions.select("session_id", "session", "period")
    shown = tables.frames["impressions"].join(keys, "session_id", maintain_order="left")
    user = look_up(builder.user_rows, sessions["user_id"])
    item = look_up(builder.item_rows, shown["item_id"])
    return DcnExamples(
        users=snapshots.users,
        items=snapshots.items,
        context=session_context(sessions, tables),
        user_row=sessions["period"].to_numpy() * snapshots.user_count + user,
        session=shown["session"].to_numpy(),
        item_row=shown["period"].to_numpy() * snapshots.item_count + item,
        clicked=shown["clicked"].to_numpy(),
        ordered=shown["ordered"].to_numpy(),
        hidden=shown["hidden"].to_numpy(),
    )


def ad_examples(impressions: DcnExamples, snapshots: Snapshots, period: int) -> AdExamples:
    """The impressions of ads, and of shops: an ad is clicked for what it shows.

    Args:
        period: whose catalogue items are drawn from.
    """
    session = impressions.session
    context = impressions.context
    return AdExamples(
        users=impressions.users,
        items=impressions.items,
        user_row=impressions.user_row[session],
        item_row=impressions.item_row,
        context=InputRows(context.ints[session], context.floats[session]),
        clicked=impressions.clicked,
        catalogue=snapshots.catalogue(period),
    )


def tower_examples(impressions: DcnExamples, snapshots: Snapshots, period: int) -> TowerExamples:
    """The positives among impressions: orders, and clicks where there are too few orders.

    Args:
        period: whose catalogue uniform negatives are drawn from.
    """
    positive = np.flatnonzero(impressions.clicked)
    session = impressions.session[positive]
    return TowerExamples(
        users=impressions.users,
        items=impressions.items,
        user_row=impressions.user_row[session],
        item_row=impressions.item_row[positive],
        context=InputRows(impressions.context.ints[session], impressions.context.floats[session]),
        catalogue=snapshots.catalogue(period),
    )
