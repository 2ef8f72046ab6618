"""svc-targeting's model from someone's campaigns: who was told, and who responded."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from madang_pipelines.imports.importing import Imported
from madang_pipelines.imports.mapping import MappingError
from madang_pipelines.own.report import OURS, Report, Score, card
from madang_pipelines.own.spread import auc_spread
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_targeting.audience import AUDIENCE, USERS
from madang_targeting.calibration import campaign_spread
from madang_targeting.lookalike import ResponseModel, train_response
from madang_targeting.model import NAME, OUTCOMES, Layout, Simulator, pack
from madang_targeting.trees import DEFAULT, TreeTraining, folds_of
from madang_targeting.uplift import qini, train_uplift

Progress = Callable[[str, float], None]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_FOLDS = 5
_LEAST = 20
_MOST = 50_000
_GROUPS = 50
"""Values of a category that have a code of their own."""
_HELD = 0.3
_DRAWN = 50


@dataclass(frozen=True)
class SendPlan:
    """How to train: the trees, and whether simple models are trained beside."""

    trees: TreeTraining = DEFAULT
    simple: bool = True


@dataclass(frozen=True)
class _Sends:
    """Sends with what is read of each.

    Attributes:
        frame: campaign_id, user_id, group, channel, told, clicked, ordered, part; and the columns
            of `about`, categories as codes.
        about: what is read of a user.
        codes: of categories, their values from code 1 on.
    """

    frame: pl.DataFrame
    about: list[str]
    codes: dict[str, list[str]]

    @property
    def categories(self) -> list[int]:
        """The columns whose numbers are codes."""
        return [at for at, name in enumerate(self.about) if name in self.codes]

    def inputs(self, rows: pl.DataFrame) -> Floats:
        """What models read of rows, shape [n, about]."""
        found: Floats = rows.select(pl.col(self.about).cast(pl.Float64)).to_numpy()
        return found


def train_sends(
    name: str,
    table: Imported,
    registry: ModelRegistry,
    plan: SendPlan = SendPlan(),
    progress: Progress = lambda step, share: None,
) -> Report:
    """Train on campaigns, register the audience and the model, and make them champions.

    Raises:
        MappingError: nothing is known of users, or no channel has enough responses.
    """
    sends = _canonical(table)
    told = sends.frame.filter("told")
    progress("whom to tell", 0.0)
    judged, scores = _judge(told, sends, plan, lambda s: progress("whom to tell", 0.5 * s))
    notes = _uplift(sends, plan, scores)
    simulators: dict[str, dict[str, Simulator]] = {}
    fair: dict[str, list[pl.DataFrame]] = {outcome: [] for outcome in OUTCOMES.values()}
    channels = told["channel"].unique().sort().to_list()
    for at, channel in enumerate(channels):
        own = told.filter(pl.col("channel") == channel)
        models = {}
        for outcome in OUTCOMES.values():
            try:
                models[outcome] = _learn(own, sends, outcome, plan.trees)
            except ValueError:
                break
        else:
            simulators[channel] = {o: Simulator(m.trees, m.calibration) for o, m in models.items()}
            for outcome, model in models.items():
                expected = pl.Series("expected", model.fair)
                fair[outcome].append(own.select("campaign_id", did=outcome).with_columns(expected))
        progress("whom to tell", 0.5 + 0.5 * (at + 1) / len(channels))
    if not simulators:
        raise MappingError(f"sends: no channel has {_LEAST} who responded and {_LEAST} who did not")
    layout = Layout(
        about=sends.about,
        by_group=[],
        groups=told["group"].unique().sort().to_list(),
        channels=list(simulators),
    )
    report = Report(
        "svc-targeting",
        name,
        {AUDIENCE: "", NAME: ""},
        judged,
        scores,
        {"channels": ", ".join(simulators), "preference groups": ", ".join(layout.groups[:20])},
        [
            *notes,
            *(f"{c} is read as codes: {', '.join(v[:12])} …" for c, v in sends.codes.items()),
        ],
        table.quality,
    )
    some = told.filter(pl.int_range(pl.len()).shuffle(seed=0).over("campaign_id") < _MOST)
    files, parameters = pack(
        layout,
        simulators,
        {outcome: _spread(pl.concat(frames)) for outcome, frames in fair.items()},
        some.select("campaign_id", "group", "channel").unique("campaign_id").to_arrow(),
        some.select(
            "campaign_id", *OUTCOMES.values(), pl.col(sends.about).cast(pl.Float32)
        ).to_arrow(),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / USERS
        users = sends.frame.unique("user_id", keep="last", maintain_order=True)
        users.select("user_id", pl.col(sends.about).cast(pl.Float32)).write_parquet(path)
        audience = registry.register(AUDIENCE, {USERS: path})
    registry.set_alias(AUDIENCE, CHAMPION, audience)
    files["card.md"] = card(report, datetime.now(UTC).date(), sends.about).encode()
    metrics = {name: score.value for name, score in scores[OURS].items()}
    version = registry.register(
        NAME, files, parameters=parameters | {"audience": audience}, metrics=metrics
    )
    registry.set_alias(NAME, CHAMPION, version)
    return replace(report, versions={AUDIENCE: audience, NAME: version})


def _canonical(table: Imported) -> _Sends:
    """Sends with all columns; what is not mapped is one campaign, one group, one channel, all of
    them told. Where only one outcome is mapped, it is both."""
    if not table.numbers and not table.categories:
        raise MappingError("sends: numbers and categories say what is known of users; map some")
    n = pl.int_range(pl.len()).cast(pl.String)
    wanted = {
        "campaign": pl.lit("campaign"),
        "user": pl.concat_str(pl.lit("row"), n),
        "group": pl.lit("all"),
        "channel": pl.lit("direct"),
        "told": pl.lit(value=True),
    }
    frame = table.frame.with_columns(
        [
            (pl.col(c).fill_null(value) if c in table.frame.columns else value.alias(c))
            for c, value in wanted.items()
        ]
    ).rename({"campaign": "campaign_id", "user": "user_id"})
    if "ordered" not in frame.columns:
        frame = frame.with_columns(ordered="clicked")
    frame = frame.with_columns(pl.col("ordered", "clicked").fill_null(value=False))
    codes = {}
    for column in table.categories:
        counts = (
            frame[column]
            .drop_nulls()
            .value_counts(sort=True)
            .sort("count", column, descending=[True, False])
        )
        codes[column] = counts[column].head(_GROUPS).to_list()
    coded = [
        pl.col(column).replace_strict(
            values, range(1, len(values) + 1), default=0, return_dtype=pl.Int64
        )
        for column, values in codes.items()
    ]
    return _Sends(frame.with_columns(coded), [*table.numbers, *table.categories], codes)


def _learn(
    rows: pl.DataFrame, sends: _Sends, outcome: str, training: TreeTraining
) -> ResponseModel:
    """A model of responses; judged on campaigns that it has not seen, where there are several."""
    folds = rows["campaign_id"].rank("dense").cast(pl.Int64).to_numpy() % _FOLDS
    did = rows[outcome].to_numpy()
    return train_response(sends.inputs(rows), did, training, sends.categories, folds)


def _spread(sends: pl.DataFrame) -> float:
    """Between campaigns."""
    numbers = sends["campaign_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
    did = sends["did"].cast(pl.Float64).to_numpy()
    return campaign_spread(sends["expected"].to_numpy(), did, numbers)


def _judge(
    told: pl.DataFrame, sends: _Sends, plan: SendPlan, progress: Callable[[float], None]
) -> tuple[str, dict[str, dict[str, Score]]]:
    """How well who responds is told apart: on the given test part, or each row by models that have
    not seen it."""
    outcome = told["clicked"].to_numpy()
    if min(outcome.sum(), (~outcome).sum()) < _LEAST:
        raise MappingError(
            f"sends: {int(outcome.sum())} of {len(outcome)} who were told responded; at least "
            f"{_LEAST} must have, and as many must not"
        )
    inputs, held = sends.inputs(told), (told["part"] == "test").to_numpy()
    sides: dict[str, Floats] = {}
    if held.any() and 0 < outcome[held].sum() < held.sum():
        said = f"The {int(held.sum()):,} sends of the given test part."
        folds = np.where(held, 0, 1)
        model = train_response(inputs[~held], outcome[~held], plan.trees, sends.categories)
        sides[OURS] = model(inputs[held])
    else:
        said = f"All {len(told):,} sends, each by models of the other four fifths."
        folds, held = folds_of(len(told), _FOLDS, 0), np.ones(len(told), bool)
        sides[OURS] = train_response(inputs, outcome, plan.trees, sends.categories, folds).fair
    progress(0.8)
    if plan.simple:
        sides = {"logistic regression": _logistic(inputs, outcome, folds, held, sends)} | sides
    progress(1.0)
    return said, {side: _scores(p, outcome[held]) for side, p in sides.items()}


def _logistic(
    inputs: Floats, outcome: Bools, folds: NDArray[np.integer], held: Bools, sends: _Sends
) -> Floats:
    """On numbers as they are, and a column for each value of categories."""
    columns = []
    for at in range(inputs.shape[1]):
        column = inputs[:, at]
        if at in sends.categories:
            columns.append((column[:, None] == np.unique(column)).astype(float))
        else:
            usual = np.nanmedian(column) if np.isfinite(column).any() else 0.0
            columns.append(np.where(np.isnan(column), usual, column)[:, None])
    x = np.concatenate(columns, axis=1)
    found = np.zeros(len(x))
    for fold in np.unique(folds[held]):
        own = folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        found[own] = model.fit(x[~own], outcome[~own]).predict_proba(x[own])[:, 1]
    return found[held]


def _scores(probability: Floats, outcome: Bools) -> dict[str, Score]:
    """AUC, the rate among the best tenth beside the mean, and the expected calibration error over
    twenty equal groups."""
    ranks, hits = rankdata(probability), int(outcome.sum())
    auc = (ranks[outcome].sum() - hits * (hits + 1) / 2) / (hits * (len(outcome) - hits))
    order = np.argsort(-probability, kind="stable")
    lift = outcome[order[: max(len(order) // 10, 1)]].mean() / outcome.mean()
    groups = [g for g in np.array_split(order, 20) if len(g)]
    error = np.mean([abs(probability[g].mean() - outcome[g].mean()) for g in groups])
    return {
        "AUC": Score(float(auc), auc_spread(float(auc), outcome)),
        "lift of the best tenth": Score(float(lift)),
        "calibration error": Score(float(error), better=-1),
    }


def _uplift(sends: _Sends, plan: SendPlan, scores: dict[str, dict[str, Score]]) -> Sequence[str]:
    """Where some were held out: what telling the right ones gains, on rows held out by chance."""
    frame = sends.frame
    told, did = frame["told"].to_numpy(), frame["ordered"].to_numpy()
    if not 0 < told.sum() < len(told):
        return ["Nobody was held out, so that who responds may be who would have done it anyway."]
    test = np.random.default_rng(0).random(len(frame)) < _HELD
    few = min((did & side & part).sum() for side in (told, ~told) for part in (test, ~test))
    if few < _LEAST:
        return ["Too few who were held out, or told, did it for its uplift to be judged."]
    inputs = sends.inputs(frame)
    training = replace(plan.trees, least_in_leaf=300)
    model = train_uplift(inputs[~test], told[~test], did[~test], training)
    likely = train_response(inputs[~test & told], did[~test & told], plan.trees, sends.categories)
    sides = {"whom it moves (uplift)": model(inputs[test]), "who responds": likely(inputs[test])}
    for side, score in sides.items():
        scores.setdefault(side, {})["Qini"] = _qini(score, told[test], did[test])
    gained = did[told].mean() - did[~told].mean()
    return [
        f"Telling gains {100 * gained:.2f} of 100. Qini (× 1,000, chance is 0): of "
        f"{int(test.sum()):,} sends that were not learned from, told or held out."
    ]


def _qini(score: Floats, told: Bools, did: Bools) -> Score:
    """Times 1,000, with its interval by bootstrap."""
    rng, n = np.random.default_rng(0), len(score)
    drawn = (rng.integers(0, n, n) for _ in range(_DRAWN))
    spread = np.std([qini(score[rows], told[rows], did[rows]) for rows in drawn])
    return Score(1000 * qini(score, told, did), 1000 * 1.96 * float(spread))
