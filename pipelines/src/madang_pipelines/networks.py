"""What retrieves and what ranks: trained, or in closed form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl
from torch import nn

from madang_candidate import spectral
from madang_candidate.model import TowerConfig
from madang_candidate.train import TowerExamples, Towers, TowerTraining
from madang_candidate.train import train as train_towers
from madang_pipelines.features import ITEM_VIEW, USER_VIEW, FeatureBuilder, look_up, model_features
from madang_pipelines.negatives import add_negatives
from madang_pipelines.tables import Tables
from madang_ranker.model import DcnConfig
from madang_ranker.train import DcnExamples, DcnTraining
from madang_ranker.train import train as train_dcn
from madang_ranker.vectors import VectorRanker
from madang_runtime.models.inputs import columns_of

VIEWS = (USER_VIEW, ITEM_VIEW)
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Networks:
    """A pair of towers and a ranker.

    Attributes:
        chosen: what they are, in words.
        sizes: of what was trained, by network.
    """

    towers: Towers
    ranker: nn.Module
    chosen: dict[str, str]
    sizes: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How big networks are, and how long they train."""

    tower_config: TowerConfig
    dcn_config: DcnConfig
    towers: TowerTraining
    dcn: DcnTraining


def trained(
    plan: Plan,
    positives: TowerExamples,
    impressions: DcnExamples,
    real_impressions: bool,
    progress: Progress,
) -> Networks:
    """Towers and a DCN. Where impressions are not real they lack what was not chosen, which is then
    drawn by the towers."""
    features = model_features()
    towers = train_towers(
        positives,
        plan.tower_config,
        features,
        VIEWS,
        plan.towers,
        lambda share: progress("two towers", share),
    )
    if not real_impressions:
        impressions = add_negatives(
            impressions, positives, towers, features, progress=lambda s: progress("negatives", s)
        )
    dcn = train_dcn(
        impressions,
        plan.dcn_config,
        features,
        VIEWS,
        plan.dcn,
        lambda share: progress("ranker", share),
    )
    chosen = {
        "retrieval": f"two towers, {plan.tower_config.dimension} dimensions, "
        + plan.towers.in_words(len(positives.user_row)),
        "ranking": "DCN, " + plan.dcn.in_words(len(impressions.session)),
    }
    sizes = {"towers": plan.tower_config.as_dict(), "dcn": plan.dcn_config.as_dict()}
    return Networks(towers, dcn, chosen, sizes)


def in_closed_form(tables: Tables, builder: FeatureBuilder, progress: Progress) -> Networks:
    """Vectors that use all that is known of who chose what, and rank too: for choices without
    times."""
    choices, features = choices_of(tables, builder), model_features()
    how = spectral.choose(choices, progress=lambda share: progress("vectors", 0.8 * share))
    towers = spectral.towers(
        *spectral.vectors(choices, how),
        columns_of(features, USER_VIEW, "INT64")["user_code"].start,
        columns_of(features, ITEM_VIEW, "INT64")["item_code"].start,
    )
    progress("vectors", 1.0)
    ranker = VectorRanker(towers.user, towers.item, how.slope, how.intercept)
    chosen = {"retrieval": f"vectors in closed form, {how}", "ranking": "the same vectors"}
    return Networks(towers, ranker, chosen, {})


def choices_of(
    tables: Tables, builder: FeatureBuilder, *, held_out: bool = False
) -> spectral.Choices:
    """Who chose what before the held-out period, or in it."""
    period = pl.col("period")
    kept = period == tables.test_period if held_out else period < tables.test_period
    actions = tables.frames["actions"].filter(kept)
    return spectral.Choices.of(
        look_up(builder.user_rows, actions["user_id"]),
        look_up(builder.item_rows, actions["item_id"]),
        len(tables.frames["users"]),
        len(tables.frames["items"]),
    )
