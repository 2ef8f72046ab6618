"""svc-ranker's model from someone's clicks: any categories and numbers."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import lightgbm
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from madang_pipelines.imports.importing import Imported
from madang_pipelines.imports.mapping import MappingError
from madang_pipelines.own.fields import Fields, Rows, as_json
from madang_pipelines.own.report import OURS, Report, Score, card
from madang_pipelines.own.splitting import three_ways
from madang_pipelines.own.spread import auc_spread
from madang_pipelines.training import RANKER
from madang_ranker.fallback import pack_fallback
from madang_ranker.fields.model import FieldsConfig
from madang_ranker.fields.train import (
    FieldRows,
    FieldsTraining,
    export,
    judge,
    train,
)
from madang_ranker.scoring import ScoreRequest, batch_tensors
from madang_runtime.models.batches import batch_size
from madang_runtime.models.context import Clock, context_rows
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.onnx_backend import OnnxBackend
from madang_runtime.models.registry import CHAMPION, ModelRegistry

Progress = Callable[[str, float], None]
Floats = NDArray[np.float64]
USER_FIELDS, ITEM_FIELDS = "request_fields", "item_fields"
_LEAST_ROWS, _LEAST_OF_EACH = 500, 20
_FALLBACK_RESOLUTION = 6
_AT_ONCE = 8192
_STEPS_AN_EPOCH = 50
_BATCHES = {"least": 128, "most": 4096}


@dataclass(frozen=True)
class ClickPlan:
    """How to choose, and how long.

    Attributes:
        shrinks: weight decays of the embeddings that are tried.
        least: how often a value must be there to have a code, that are tried.
        epochs: at most, of a try and of the model.
        members: networks of the model.
        seconds: of tries; those that would take longer are left out.
        simple: whether simple models are trained beside it.
    """

    shrinks: tuple[float, ...] = (1e-2, 1e-1, 1e-3)
    least: tuple[int, ...] = (1, 3)
    epochs: int = 30
    members: int = 3
    seconds: float = 1200.0
    simple: bool = True


@dataclass(frozen=True)
class _Try:
    """A choice, and how good it is on the rows that choose."""

    shrink: float
    least: int
    auc: float


def train_clicks(
    name: str,
    table: Imported,
    registry: ModelRegistry,
    plan: ClickPlan = ClickPlan(),
    progress: Progress = lambda step, share: None,
) -> tuple[Report, list[Fields]]:
    """Train on clicks and make the model champion.

    Returns:
        what it is worth, and the fields of user and item, whose views the store must have.

    Raises:
        MappingError: there are too few rows, or fields of only one side.
    """
    sides = [c for c in (*table.categories, *table.numbers) if c in table.user]
    items = [c for c in (*table.categories, *table.numbers) if c not in table.user]
    if not sides or not items:
        raise MappingError(
            "clicks: user must name the columns that tell of the user and the moment, and leave "
            "those that tell of the item"
        )
    learn, choose, judged, said = three_ways(table.frame)
    clicked = table.frame["label"].to_numpy()
    for rows, what in ((learn, "to learn from"), (choose, "to choose by"), (judged, "to judge by")):
        of_each = min(clicked[rows].sum(), (~clicked[rows]).sum())
        if len(rows) < _LEAST_ROWS // 10 or of_each < _LEAST_OF_EACH // 4:
            raise MappingError(
                f"clicks: only {len(rows)} rows {what}, {of_each} of the rarer label"
            )

    def fields(least: int) -> list[Fields]:
        frame = table.frame[learn]
        return [
            Fields.learn(USER_FIELDS, "request", frame, sides, least),
            Fields.learn(ITEM_FIELDS, "item", frame, items, least),
        ]

    def read(own: list[Fields], rows: Rows) -> FieldRows:
        frame = table.frame[rows]
        return FieldRows(own[0].rows(frame), own[1].rows(frame), clicked[rows])

    tries, training = _choose(fields, read, learn, choose, plan, progress)
    best = max(tries, key=lambda one: one.auc)
    own = fields(best.least)
    config = replace(_config(own), members=plan.members)
    trained = train(
        read(own, learn),
        read(own, choose),
        config,
        replace(training, shrink=best.shrink),
        lambda share: progress("ranker", share),
    )
    held = read(own, judged)
    scores = {"constant": _scores(np.full(len(judged), clicked[learn].mean()), held.clicked)}
    if plan.simple:
        for side, predicted in _simple(own, read, learn, choose, judged, progress):
            scores[side] = _scores(predicted, held.clicked)
    model = export(trained.members, held, _context(2))
    scores[OURS] = _scores(_served(model, held), held.clicked)
    auc = scores[OURS]["AUC"].value
    report = Report(
        "svc-ranker",
        name,
        {RANKER: ""},
        said,
        scores,
        {
            "weight decay of the embeddings": f"{best.shrink:g}",
            "rows that a value must be in to have a code": str(best.least),
            "tried, by AUC": "; ".join(f"{t.shrink:g} with {t.least}: {t.auc:.4f}" for t in tries),
            "rows of a step": f"{training.batch:,}",
            "networks": str(plan.members),
        },
        (
            "P(click) is of rows like those learned from. If these are a sample, such as with "
            "drawn negatives, it is too high or too low everywhere; the order stays.",
            f"Codes of values stand in `vocabulary.json`; features of the views {USER_FIELDS} and "
            f"{ITEM_FIELDS} are named there.",
        ),
        table.quality,
    )
    features = own[0].features() + own[1].features()
    version = registry.register(
        RANKER,
        {
            "model.onnx": model,
            "fallback.npz": pack_fallback({0: []}, _FALLBACK_RESOLUTION),
            "vocabulary.json": as_json(own),
            "card.md": card(
                report,
                datetime.now(UTC).date(),
                [f"{f.view}.{f.name} ({f.dtype})" for f in features],
            ).encode(),
        },
        features=features,
        parameters={
            "user_view": USER_FIELDS,
            "item_view": ITEM_FIELDS,
            "utc_offset_hours": 0,
            "data": name,
            "config": config.as_dict(),
        },
        metrics={"auc": auc, "log_loss": scores[OURS]["log loss"].value},
    )
    registry.set_alias(RANKER, CHAMPION, version)
    return replace(report, versions={RANKER: version}), own


def _context(n: int) -> InputRows:
    """What rankers are told of n requests, which this one does not read."""
    return context_rows(np.zeros(n, np.int64), np.zeros(n), np.zeros(n), Clock(0))


def _served(model: bytes, rows: FieldRows) -> Floats:
    """P(click) as svc-ranker computes it, shape [n]."""
    backend, found = OnnxBackend(model, threads=2), []
    for part in np.array_split(np.arange(len(rows.clicked)), len(rows.clicked) // _AT_ONCE + 1):
        own, context = rows.take(part), _context(len(part))
        columns = batch_tensors([ScoreRequest(own.user, context, own.item)], [1])
        columns["segment"] = np.arange(len(part))
        found.append(backend.run(columns)["click"])
    return np.concatenate(found).astype(np.float64)


def _choose(
    fields: Callable[[int], list[Fields]],
    read: Callable[[list[Fields], Rows], FieldRows],
    learn: Rows,
    choose: Rows,
    plan: ClickPlan,
    progress: Progress,
) -> tuple[list[_Try], FieldsTraining]:
    """Tries one choice after the other, as long as there is time: first how often a value must be
    there, then how much embeddings are shrunk."""
    training = FieldsTraining(
        epochs=plan.epochs, batch=batch_size(len(learn), _STEPS_AN_EPOCH, **_BATCHES)
    )
    started, tries = time.monotonic(), list[_Try]()
    wanted = [(plan.shrinks[0], least) for least in plan.least]

    def attempt(shrink: float, least: int) -> None:
        own = fields(least)
        how = replace(training, shrink=shrink)
        total = len(plan.least) + len(plan.shrinks) - 1
        done = len(tries)
        found = train(
            read(own, learn),
            read(own, choose),
            _config(own),
            how,
            lambda share: progress("choosing", (done + share) / total),
        )
        tries.append(_Try(shrink, least, max(auc for auc, _ in found.history)))

    def time_left() -> bool:
        spent = time.monotonic() - started
        return not tries or spent * (len(tries) + 1) / len(tries) < plan.seconds

    for shrink, least in wanted:
        if time_left():
            attempt(shrink, least)
    best = max(tries, key=lambda one: one.auc).least
    for shrink in plan.shrinks[1:]:
        if time_left():
            attempt(shrink, best)
    progress("choosing", 1.0)
    return tries, training


def _config(own: list[Fields]) -> FieldsConfig:
    user, item = own
    return FieldsConfig(user.sizes(), item.sizes(), len(user.numbers), len(item.numbers))


def _scores(predicted: Floats, clicked: NDArray[np.bool_]) -> dict[str, Score]:
    auc, loss = judge(predicted, clicked)
    return {"AUC": Score(auc, auc_spread(auc, clicked)), "log loss": Score(loss, better=-1)}


def _simple(
    own: list[Fields],
    read: Callable[[list[Fields], Rows], FieldRows],
    learn: Rows,
    choose: Rows,
    judged: Rows,
    progress: Progress,
) -> Iterable[tuple[str, Floats]]:
    """P(click) of the rows that judge, by simple models."""
    parts = [read(own, rows) for rows in (learn, choose, judged)]
    progress("simple models", 0.0)
    yield "logistic regression", _logistic(own, parts)
    progress("simple models", 0.5)
    yield "LightGBM", _trees(own, parts)
    progress("simple models", 1.0)


def _logistic(own: list[Fields], parts: list[FieldRows]) -> Floats:
    """On all values as columns of their own, its penalty chosen."""
    spread = _numbers(parts[0])
    mean, scale = np.nanmean(spread, axis=0), np.maximum(np.nanstd(spread, axis=0), 1e-6)

    def columns(rows: FieldRows) -> sparse.csr_matrix:
        found = [
            sparse.csr_matrix(
                (np.ones(len(rows.clicked)), (np.arange(len(rows.clicked)), ints)),
                (len(rows.clicked), size),
            )
            for side, fields in zip((rows.user, rows.item), own, strict=True)
            for ints, size in zip(side.ints.T, fields.sizes(), strict=True)
        ]
        numbers = np.nan_to_num((_numbers(rows) - mean) / scale)
        return sparse.hstack([*found, sparse.csr_matrix(numbers)], format="csr")

    learn, choose, judged = map(columns, parts)
    best, kept = -np.inf, None
    for c in (0.03, 0.3, 3.0):
        model = LogisticRegression(C=c, solver="liblinear").fit(learn, parts[0].clicked)
        auc, _ = judge(model.predict_proba(choose)[:, 1], parts[1].clicked)
        if auc > best:
            best, kept = auc, model
    assert kept is not None
    found: Floats = kept.predict_proba(judged)[:, 1]
    return found


def _trees(own: list[Fields], parts: list[FieldRows]) -> Floats:
    """Gradient-boosted trees on codes as categories, ended by the rows that choose."""
    categories = sum(len(side.codes) for side in own)
    matrices = [
        np.concatenate([p.user.ints, p.item.ints, p.user.floats, p.item.floats], axis=1)
        for p in parts
    ]
    data = lightgbm.Dataset(
        matrices[0],
        parts[0].clicked,
        categorical_feature=list(range(categories)),
        free_raw_data=False,
    )
    settings = {
        "objective": "binary",
        "metric": "auc",
        "learning_rate": 0.05,
        "num_leaves": 63,
        "min_data_in_leaf": 30,
        "num_threads": 2,
        "seed": 0,
        "verbose": -1,
    }
    trees = lightgbm.train(
        settings,
        data,
        600,
        [data.create_valid(matrices[1], parts[1].clicked)],
        callbacks=[lightgbm.early_stopping(40, verbose=False)],
    )
    return np.asarray(trees.predict(matrices[2]))


def _numbers(rows: FieldRows) -> NDArray[np.float32]:
    return np.concatenate([rows.user.floats, rows.item.floats], axis=1)
