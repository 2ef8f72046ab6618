"""svc-eta's model from someone's orders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import h3
import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_candidate.cells import delivery_cells
from madang_eta.kinds import load_kinds
from madang_eta.layout import distances
from madang_eta.lists import CELL_RESOLUTION
from madang_eta.patterns import VIEW
from madang_eta.shops import Shops
from madang_eta.train import StageTraining
from madang_pipelines.eta.evaluation import arrival_pmf, constant, distance_line, tree_mean
from madang_pipelines.eta.frames import orders_of
from madang_pipelines.eta.scores import EtaScores, score
from madang_pipelines.eta.training import (
    EtaPlan,
    Examples,
    fit,
    local_days,
    make_examples,
    register,
)
from madang_pipelines.features import load_views
from madang_pipelines.imports.importing import Imported
from madang_pipelines.imports.mapping import MappingError
from madang_pipelines.own.report import OURS, Report, Score, card
from madang_runtime.models.context import Clock
from madang_runtime.models.registry import CHAMPION, ModelRegistry

Progress = Callable[[str, float], None]
Rows = NDArray[np.int64]
_STAGES = ("dispatch", "pickup", "delivery")
_IDS = ("order", "user", "shop", "courier")
_LEAST_ROWS = 500
_MOST_MINUTES = 240
_FARTHEST_KM = 500.0
_FOLDS = 5
_TEST = 0.2
_YEAR_MS = 366 * 86_400_000
_GROUPS = 12
_SHOP_RESOLUTION = 9
_PATTERNS = {
    "shop_id": ("shop", "shop+slot"),
    "courier_id": ("courier",),
    "user_id": ("user",),
    "category": ("category",),
    "origin_latitude": ("origin6", "origin7", "origin8"),
    "latitude": ("place6", "place7", "place8"),
    "time": ("hour",),
}


@dataclass(frozen=True)
class OrderPlan:
    """How to choose, and how long.

    Attributes:
        tries: ways to train that are compared.
        members: networks of the model.
        simple: whether simple models are trained beside it.
    """

    tries: tuple[StageTraining, ...] = (
        StageTraining(epochs=20, weight_decay=0.3, dropout=0.5, members=1),
        StageTraining(epochs=20, weight_decay=0.01, dropout=0.2, members=1),
    )
    members: int = 8
    simple: bool = True


@dataclass(frozen=True)
class _Data:
    """Orders of one kind of service, and what of them is read.

    Attributes:
        frame: as the canonical table has them.
        plan: stages, patterns and numbers.
        learn: which rows to learn from.
        folds: of each, where it is not known when they were; else None.
        said: what is held out, in a sentence.
    """

    frame: pl.DataFrame
    plan: EtaPlan
    learn: NDArray[np.bool_]
    folds: Rows | None
    said: str


def train_orders(
    name: str,
    table: Imported,
    utc_offset_hours: float | None,
    registry: ModelRegistry,
    plan: OrderPlan = OrderPlan(),
    progress: Progress = lambda step, share: None,
) -> tuple[list[Report], Mapping[str, pl.DataFrame]]:
    """Train on orders, a model for each kind of service, and make them champions.

    Returns:
        what each is worth, and rows of views to publish.

    Raises:
        MappingError: there are too few orders, no minutes, or a kind of service that svc-eta does
            not know.
    """
    frame = _canonical(table)
    kinds = load_kinds(None)
    services = frame["service"].unique().sort().to_list()
    if unknown := [service for service in services if service not in kinds]:
        raise MappingError(
            f"orders: service {unknown[0]!r} is none of {', '.join(kinds)}; say what it is with "
            "values, or leave it out"
        )
    reports, patterns = [], []
    for service in services:
        own = frame.filter(pl.col("service") == service)
        data = _data(own, table, service, Clock(utc_offset_hours))
        report, rows = _train(name, data, table, registry, plan, progress)
        reports.append(report)
        patterns.append(rows)
    return reports, {VIEW: _whole(patterns)}


def _whole(patterns: list[pl.DataFrame]) -> pl.DataFrame:
    """Rows with all features of the view; null where orders without dates have no recent ones."""
    columns = {
        feature.name: pl.Array(pl.Float32, feature.dim) if feature.dim > 1 else pl.Float32()
        for feature in load_views()[VIEW].features
    }
    view = pl.DataFrame(schema={"entity_id": pl.String(), **columns})
    return pl.concat([view, *patterns], how="diagonal")


def held_out_orders(table: Imported, n: int) -> tuple[pl.DataFrame, Sequence[str]]:
    """Some of the orders that `train_orders` does not learn from, drawn by chance, with the minutes
    that they took, and the names of the numbers that requests bring."""
    frame = _canonical(table)
    own = frame.filter(pl.col("service") == frame["service"].sort()[0])
    data = _data(own, table, own["service"][0], Clock(None))
    took = pl.sum_horizontal(data.plan.stages).alias("took")
    held = data.frame.filter(~pl.Series(data.learn)).with_columns(took).drop_nulls("took")
    return held.sample(min(n, len(held)), seed=0, shuffle=True), data.plan.numbers


def _train(
    name: str,
    data: _Data,
    table: Imported,
    registry: ModelRegistry,
    plan: OrderPlan,
    progress: Progress,
) -> tuple[Report, pl.DataFrame]:
    service = data.plan.service
    chosen, tried = _choose(data, plan, lambda share: progress(f"choosing, {service}", share))
    best = replace(data.plan, training=replace(chosen, members=plan.members))
    examples = make_examples(data.frame, best, data.learn, data.folds)
    fitted = fit(examples, best, lambda share: progress(f"arrivals, {service}", share))
    whole = ~np.isnan(examples.minutes).any(1)
    learn, test = np.flatnonzero(data.learn & whole), np.flatnonzero(~data.learn & whole)
    ours = arrival_pmf(fitted, examples.inputs[test])
    found = {OURS: ours}
    if plan.simple:
        found = _simple(examples, learn, test, ours.shape[1], progress) | found
    minutes = examples.minutes.sum(1)[test]
    scores = {side: score(side, pmf, minutes) for side, pmf in found.items()}
    read = examples.layout.names()
    model = f"eta-{service}"
    report = Report(
        "svc-eta",
        name,
        {model: ""},
        data.said.format(n=len(test)),
        {side: _scores(own) for side, own in scores.items()},
        {
            "weight decay and dropout": f"{chosen.weight_decay:g} and {chosen.dropout:g}",
            "tried, by CRPS in seconds": tried,
            "patterns": ", ".join(data.plan.patterns) or "none",
            "stages": ", ".join(data.plan.stages),
        },
        (f"Requests bring {', '.join(data.plan.numbers)} as numbers.",)
        if data.plan.numbers
        else (),
        table.quality,
    )
    ours_scores = scores[OURS]
    metrics = {"crps_seconds": float(ours_scores.crps.mean()), "mae_seconds": ours_scores.mae}
    text = card(report, datetime.now(UTC).date(), read)
    shops = _shops(data.frame)
    version = register(
        registry, model, examples, fitted, best, shops, metrics, {"card.md": text.encode()}
    )
    registry.set_alias(model, CHAMPION, version)
    days = local_days(examples.orders, best.clock)
    rows = examples.means.rows(int(days[data.learn].max()) + 1)
    return replace(report, versions={model: version}), rows


def _choose(
    data: _Data, plan: OrderPlan, progress: Callable[[float], None]
) -> tuple[StageTraining, str]:
    """The best of the tries by CRPS on a fifth of the rows that are learned from."""
    if len(plan.tries) == 1:
        return plan.tries[0], "nothing"
    rows = np.flatnonzero(data.learn)
    if data.folds is None:
        latest = np.argsort(data.frame["time"].to_numpy()[rows], kind="stable")
        held = rows[latest[-len(rows) // _FOLDS :]]
    else:
        held = rows[data.folds[rows] == 0]
    learn = data.learn.copy()
    learn[held] = False
    folds = None if data.folds is None else np.where(learn, data.folds, _FOLDS)
    examples = make_examples(data.frame, data.plan, learn, folds)
    judged = held[~np.isnan(examples.minutes[held]).any(1)]
    minutes = examples.minutes.sum(1)[judged]
    tried = {}
    for at, training in enumerate(plan.tries):

        def told(share: float, at: int = at) -> None:
            progress((at + share) / len(plan.tries))

        fitted = fit(examples, replace(data.plan, training=training), told)
        pmf = arrival_pmf(fitted, examples.inputs[judged])
        tried[training] = float(score("", pmf, minutes).crps.mean())
    said = (f"{t.weight_decay:g} and {t.dropout:g}: {crps:.1f}" for t, crps in tried.items())
    return min(tried, key=lambda training: tried[training]), "; ".join(said)


def _simple(
    examples: Examples, learn: Rows, test: Rows, width: int, progress: Progress
) -> dict[str, NDArray[np.floating]]:
    """Distributions by simple models."""
    progress("simple models", 0.0)
    minutes = examples.minutes.sum(1)
    folds = np.full(len(minutes), _FOLDS)
    folds[learn] = np.random.default_rng(0).integers(0, _FOLDS, len(learn))
    found = {
        "constant": constant(minutes[learn], len(test), width),
        "distance line": distance_line(examples, learn, test, width),
        "LightGBM, mean and errors": tree_mean(examples, learn, test, folds, width),
    }
    progress("simple models", 1.0)
    return found


def _scores(found: EtaScores) -> dict[str, Score]:
    spread = 1.96 * found.crps.std() / np.sqrt(len(found.crps))
    return {
        "CRPS s": Score(float(found.crps.mean()), float(spread), -1),
        "MAE s": Score(found.mae, better=-1),
        "RMSE s": Score(found.rmse, better=-1),
        "in 80 %": Score(100 * found.coverage[1], better=0),
    }


def _canonical(table: Imported) -> pl.DataFrame:
    """The columns of the canonical table, null where they are not known, and the numbers."""
    frame = table.frame
    if not table.has("minutes") and not any(table.has(stage) for stage in _STAGES):
        raise MappingError(
            "orders needs minutes, or the minutes of stages: dispatch, pickup, delivery"
        )
    stages = [stage for stage in _STAGES if table.has(stage)]
    if table.has("minutes") and not stages:
        frame = frame.with_columns(delivery="minutes")
        stages = ["delivery"]
    took = frame.select(pl.sum_horizontal(stages)).to_series()
    if (median := took.median()) is not None and float(median) > _MOST_MINUTES:  # type: ignore[arg-type]
        raise MappingError(
            f"orders: half of them take more than {_MOST_MINUTES} minutes; give minutes its unit"
        )
    frame = frame.rename({c: f"{c}_id" for c in _IDS if c in frame.columns})
    names = ("latitude", "longitude", "origin_latitude", "origin_longitude", "distance_km")
    frame = frame.with_columns(
        [pl.lit(None, pl.Float64()).alias(c) for c in names if c not in frame.columns]
    )
    if "order_id" not in frame.columns:
        frame = frame.with_columns(order_id=pl.int_range(pl.len()).cast(pl.String))
    if "time" not in frame.columns:
        frame = frame.with_columns(time=pl.lit(0, pl.Int64()))
    service = pl.col("service") if "service" in frame.columns else pl.lit("standard")
    frame = frame.with_columns(service=service.fill_null("standard")).drop_nulls("time")
    known = ["category"] if "category" in frame.columns else []
    frame = frame.with_columns(pl.col(known).fill_null(""))
    flags = [
        (pl.col(column) == value).fill_null(False).cast(pl.Float64).alias(f"{column}={value}")
        for column, values in _groups(table).items()
        for value in values
    ]
    return _with_distances(frame.with_columns(flags))


def _groups(table: Imported) -> dict[str, list[str]]:
    """The values of categories that have few."""
    found = {}
    for column in table.categories:
        values = table.frame[column].drop_nulls().value_counts(sort=True)[column].to_list()
        if 2 <= len(values) <= _GROUPS:
            found[column] = values
    return found


def _with_distances(frame: pl.DataFrame) -> pl.DataFrame:
    """Distances that are absurd or not known are the usual one."""
    km = distances(orders_of(frame))
    km = np.where((km >= 0) & (km <= _FARTHEST_KM), km, np.nan)
    usual = float(np.nanmedian(km)) if np.isfinite(km).any() else 0.0
    return frame.with_columns(distance_km=pl.Series(np.where(np.isnan(km), usual, km)))


def _data(frame: pl.DataFrame, table: Imported, service: str, clock: Clock) -> _Data:
    if len(frame) < _LEAST_ROWS:
        raise MappingError(
            f"orders: {len(frame)} of {service}; at least {_LEAST_ROWS} are needed to learn from"
        )
    dated = bool((frame["time"] > _YEAR_MS).all())
    patterns = [
        pattern
        for column, own in _PATTERNS.items()
        if column in frame.columns and frame[column].n_unique() > 1
        for pattern in own
    ]
    if {"origin7", "place7"} <= {*patterns}:
        patterns.append("origin7+place7")
    stages = tuple(stage for stage in _STAGES if stage in frame.columns)
    numbers = (
        *table.numbers,
        *(c for c in frame.columns if "=" in c and c not in table.categories),
    )
    plan = EtaPlan(
        service,
        stages,
        tuple(patterns or ["hour"]),
        ("all", "week", "day") if dated else ("all",),
        {},
        numbers,
        Clock(clock.utc_offset_hours or 0) if not dated else clock,
    )
    learn, said = _held_out(frame, dated)
    folds = None
    if not dated:
        drawn = np.random.default_rng(1).integers(0, _FOLDS, len(frame))
        folds = np.where(learn, drawn, _FOLDS)
    return _Data(frame, plan, learn, folds, said)


def _held_out(frame: pl.DataFrame, dated: bool) -> tuple[NDArray[np.bool_], str]:
    part = frame["part"]
    if (part == "test").any():
        return (part != "test").to_numpy(), "The {n:,} orders of the given test part."
    if (part == "valid").any():
        return (part != "valid").to_numpy(), "The {n:,} orders of the given valid part."
    cut = int(len(frame) * _TEST)
    if dated:
        order, how = np.argsort(frame["time"].to_numpy(), kind="stable"), "the last by time"
    else:
        order, how = np.random.default_rng(7).permutation(len(frame)), "drawn by chance"
    learn = np.ones(len(frame), bool)
    learn[order[len(frame) - cut :]] = False
    return learn, f"{{n:,}} orders, {how}."


def _shops(frame: pl.DataFrame) -> Shops:
    """Where orders are picked up: shops, or where none is named, the H3 cells of the places."""
    places = frame.select("origin_latitude", "origin_longitude")
    if "shop_id" in frame.columns:
        ids = frame["shop_id"].fill_null("")
    else:
        cells = [
            "" if lat is None or lng is None else h3.latlng_to_cell(lat, lng, _SHOP_RESOLUTION)
            for lat, lng in places.iter_rows()
        ]
        ids = pl.Series(cells, dtype=pl.String)
    category = frame["category"] if "category" in frame.columns else pl.Series([""] * len(frame))
    shops = (
        places.with_columns(id=ids, category=category)
        .filter(pl.col("id") != "")
        .group_by("id", maintain_order=True)
        .agg(pl.col("origin_latitude", "origin_longitude").mean(), pl.col("category").first())
    )
    degrees = shops.select(pl.col("origin_latitude", "origin_longitude").fill_null(0.0)).to_numpy()
    delivered = delivery_cells(degrees, np.zeros(len(shops)), CELL_RESOLUTION)
    return Shops(
        shops["id"].to_list(),
        shops["id"].to_list(),
        degrees,
        shops["category"].to_list(),
        delivered["cell_items"].astype(np.int64),
        np.repeat(delivered["cells"].astype(np.uint64), np.diff(delivered["cell_starts"])),
    )
