"""From campaigns and what users did to the model and the audience of svc-targeting."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from madang_pipelines.tables import Tables
from madang_pipelines.targeting.features import audience, layout_of, of_own_group, recipients
from madang_pipelines.targeting.features import user_columns as columns_of_users
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_targeting.audience import AUDIENCE, USERS
from madang_targeting.calibration import campaign_spread
from madang_targeting.lookalike import ResponseModel, train_response
from madang_targeting.model import NAME, OUTCOMES, Simulator, pack
from madang_targeting.trees import TreeTraining

Progress = Callable[[str, float], None]
TRAINING = TreeTraining(rounds=200, leaves=4, learning_rate=0.05)
_PREFERENCES = TreeTraining(rounds=60, learning_rate=0.1)
_FOLDS = 5
_MOST = 50_000
"""Recipients of a campaign that are learned from."""


def train_targeting(
    tables: Tables,
    registry: ModelRegistry,
    training: TreeTraining = TRAINING,
    progress: Progress = lambda step, share: None,
) -> str | None:
    """Train on all campaigns, register the audience and the model, and make them champions.

    Returns:
        the model's version; None where no channel has enough responses to learn from.
    """
    progress("whom to tell", 0.0)
    layout, sends = layout_of(tables), tables.frames["sends"]
    campaigns = tables.frames["campaigns"]
    quick = replace(_PREFERENCES, rounds=min(_PREFERENCES.rounds, training.rounds))
    periods = sorted({tables.test_period, *campaigns["period"].to_list()})
    users = {p: columns_of_users(tables, layout, p, quick) for p in periods}
    progress("whom to tell", 0.4)
    told = recipients(users, layout, campaigns, sends, _MOST)
    simulators: dict[str, dict[str, Simulator]] = {}
    fair: dict[str, list[pl.DataFrame]] = {outcome: [] for outcome in OUTCOMES.values()}
    for i, channel in enumerate(layout.channels):
        own = told.filter(pl.col("channel") == channel)
        try:
            models = {o: _learn(own, of_own_group(own, layout), o, training) for o in fair}
        except ValueError:
            continue  # too few responses
        simulators[channel] = {o: Simulator(m.trees, m.calibration) for o, m in models.items()}
        for outcome, model in models.items():
            expected = pl.Series("expected", model.fair)
            fair[outcome].append(own.select("campaign_id", did=outcome).with_columns(expected))
        progress("whom to tell", 0.4 + 0.6 * (i + 1) / len(layout.channels))
    if not simulators:
        return None
    layout = layout.model_copy(update={"channels": list(simulators)})
    files, parameters = pack(
        layout,
        simulators,
        {outcome: _spread(pl.concat(frames)) for outcome, frames in fair.items()},
        campaigns.select("campaign_id", "group", "channel")
        .join(told, "campaign_id", how="semi")
        .to_arrow(),
        told.select(
            "campaign_id", *OUTCOMES.values(), pl.col(layout.columns()).cast(pl.Float32)
        ).to_arrow(),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / USERS
        now = users[tables.test_period]
        audience(now, layout_of(tables), campaigns, sends).write_parquet(path)
        version = registry.register(AUDIENCE, {USERS: path})
    registry.set_alias(AUDIENCE, CHAMPION, version)
    made = registry.register(NAME, files, parameters=parameters | {"audience": version})
    registry.set_alias(NAME, CHAMPION, made)
    progress("whom to tell", 1.0)
    return made


def _learn(
    sends: pl.DataFrame, inputs: np.ndarray, outcome: str, training: TreeTraining
) -> ResponseModel:
    """A model of a channel, judged on campaigns that it has not seen."""
    folds = _campaign_numbers(sends) % _FOLDS
    return train_response(inputs, sends[outcome].to_numpy(), training, folds=folds)


def _spread(sends: pl.DataFrame) -> float:
    return campaign_spread(
        sends["expected"].to_numpy(),
        sends["did"].cast(pl.Float64).to_numpy(),
        _campaign_numbers(sends),
    )


def _campaign_numbers(sends: pl.DataFrame) -> np.ndarray:
    return sends["campaign_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
