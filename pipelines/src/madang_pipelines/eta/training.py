"""Trains the stages of one kind of service and registers them as one version."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from madang_eta.dependence import fit_loadings
from madang_eta.distribution import with_tail
from madang_eta.layout import Horizon, Layout, distances
from madang_eta.model import StageNet
from madang_eta.orders import Orders
from madang_eta.shops import Shops
from madang_eta.stage_model import StageSpec, normal_scores
from madang_eta.train import StageTraining, export, train_stage
from madang_pipelines.eta.frames import LIVE, live_of, orders_of, stage_minutes
from madang_pipelines.eta.patterns import Past, PatternMeans
from madang_pipelines.eta.undersample import undersample
from madang_runtime.models.context import Clock
from madang_runtime.models.manifest import FeatureRef
from madang_runtime.models.registry import CHAMPION, ModelRegistry

Floats = NDArray[np.float64]
Progress = Callable[[float], None]
_DAY_MS = 86_400_000
_SHORTEST, _LONGEST = 10, 240
PATTERNS = (
    "shop",
    "category",
    "shop+slot",
    "origin7+hour",
    "place8",
    "place9",
    "origin6+place6",
    "hour",
)


@dataclass(frozen=True)
class EtaPlan:
    """What a kind of service learns from.

    Attributes:
        service: the kind.
        stages: columns of minutes, in their order.
        patterns, horizons: see `Layout`.
        live: features of the live views, by view.
        numbers: columns that requests bring.
        clock: how local time follows.
        shares: of older days, the share of orders to learn from; see `undersample`.
        training: of each stage.
    """

    service: str
    stages: tuple[str, ...] = ("dispatch", "pickup", "delivery")
    patterns: tuple[str, ...] = PATTERNS
    horizons: tuple[Horizon, ...] = ("all", "week", "day")
    live: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: LIVE)
    numbers: tuple[str, ...] = ()
    clock: Clock = field(default_factory=lambda: Clock(9))
    shares: Mapping[int, float] = field(default_factory=lambda: {14: 0.5})
    training: StageTraining = field(
        default_factory=lambda: StageTraining(epochs=6, batch=512, members=2, hidden=(128, 64))
    )


@dataclass(frozen=True)
class Examples:
    """n orders as the networks read them.

    Attributes:
        frame: the rows of the table.
        orders: the same as svc-eta's columns.
        inputs: shape [n, columns].
        minutes: of each stage, NaN where that is not known, shape [n, stages].
        weights: 0 for those that are not learned from, shape [n].
        layout: of the columns.
        means: of the patterns, of which the store gets its rows.
    """

    frame: pl.DataFrame
    orders: Orders
    inputs: NDArray[np.float32]
    minutes: Floats
    weights: Floats
    layout: Layout
    means: PatternMeans


@dataclass(frozen=True)
class EtaTrained:
    """What a training made: the registered version, and the rows of `eta_pattern` to publish."""

    version: str
    patterns: pl.DataFrame


def make_examples(
    frame: pl.DataFrame,
    plan: EtaPlan,
    learn: NDArray[np.bool_],
    folds: NDArray[np.int64] | None = None,
    layout: Layout | None = None,
) -> Examples:
    """Inputs of all orders, each from what could be known when it was placed.

    Args:
        frame: rows of the table `orders`, of one kind of service.
        plan: what is read.
        learn: which rows to learn from, shape [n].
        folds: where time is not known, the fold of each row that is learned from; any number
            beyond for the others.
        layout: of a model that is there; None makes one from the rows that are learned from.
    """
    orders = orders_of(frame, plan.numbers)
    minutes = stage_minutes(frame, plan.stages)
    days = local_days(orders, plan.clock)
    kept, weights = learn, learn.astype(np.float64)
    if folds is None and learn.any():
        ages = days[learn].max() - days
        drawn, worth = undersample(frame["order_id"], ages, plan.shares)
        kept = learn & drawn
        weights = np.where(kept, worth, 0.0)
    layout = layout or _layout(plan, orders, minutes, kept)
    if folds is None:  # what happened since is known by the days after it, too
        past = Past(minutes, np.where(learn, weights, 1.0), days, causal=True)
    else:
        past = Past(minutes, weights, folds, causal=False)
    means = PatternMeans(layout, plan.service, orders, past)
    live = live_of(frame, [ref.name for ref in layout.live])
    inputs = layout.columns(orders, means.before_each(), live)
    return Examples(frame, orders, inputs, minutes, weights, layout, means)


def local_days(orders: Orders, clock: Clock) -> NDArray[np.int64]:
    """The local day of each order, from 0."""
    offset = round((clock.utc_offset_hours or 0) * 3_600_000)
    days = (orders.time_ms + offset) // _DAY_MS
    since: NDArray[np.int64] = days - days.min(initial=days[0] if len(days) else 0)
    return since


def _layout(plan: EtaPlan, orders: Orders, minutes: Floats, learn: NDArray[np.bool_]) -> Layout:
    km = distances(orders)
    lines, typical = [], []
    for column in minutes.T:
        rows = learn & ~np.isnan(column)
        start, slope = _line(km[rows], column[rows])
        lines.append((start, slope))
        typical.append(float(np.abs(column[rows] - start - slope * km[rows]).mean()))
    return Layout(
        stages=len(plan.stages),
        line=tuple(lines),
        typical=tuple(typical),
        patterns=plan.patterns,
        horizons=plan.horizons,
        live=tuple(
            FeatureRef(view=view, name=name, dtype="FLOAT32")
            for view, names in plan.live.items()
            for name in names
        ),
        numbers=plan.numbers,
        clock=plan.clock,
    )


def _line(km: Floats, minutes: Floats) -> tuple[float, float]:
    """Start and slope of minutes over kilometres; never falling."""
    spread = km.var()
    slope = max(np.cov(km, minutes, bias=True)[0, 1] / spread, 0.0) if spread > 1e-6 else 0.0
    return float(minutes.mean() - slope * km.mean()), float(slope)


@dataclass(frozen=True)
class Fitted:
    """The networks of a kind of service.

    Attributes:
        stages, nets: of each stage.
        loadings: of each on what they have in common.
        correlations: that were measured between stages, shape [stages, stages].
    """

    stages: list[StageSpec]
    nets: list[StageNet]
    loadings: Floats
    correlations: Floats


def fit(examples: Examples, plan: EtaPlan, progress: Progress = lambda _: None) -> Fitted:
    """Train each stage on the rows with weight, and measure how stages hang together."""
    specs, nets = [], []
    known = ~np.isnan(examples.minutes) & (examples.weights > 0)[:, None]
    for i, name in enumerate(plan.stages):
        rows, column = known[:, i], examples.minutes[:, i]
        classes, excess = _classes(column[rows])
        nets.append(
            train_stage(
                examples.inputs[rows],
                column[rows],
                examples.weights[rows],
                classes,
                plan.training,
                lambda share, i=i: progress((i + share) / len(plan.stages)),  # type: ignore[misc]
            )
        )
        specs.append(StageSpec(name, classes, excess))
    whole = np.flatnonzero(known.all(1))[-20_000:]
    scores = [
        normal_scores(with_tail(predict(net, examples.inputs[whole]), s.mean_excess), minutes)
        for net, s, minutes in zip(nets, specs, examples.minutes[whole].T, strict=True)
    ]
    loadings, correlations = fit_loadings(np.stack(scores, axis=1))
    return Fitted(specs, nets, loadings, correlations)


def _classes(minutes: Floats) -> tuple[int, float]:
    """Minutes with a class of their own, and how far beyond the rest lies on average."""
    classes = int(np.clip(np.ceil(np.quantile(minutes, 0.995)), _SHORTEST, _LONGEST))
    beyond = minutes[minutes >= classes] - classes
    return classes, float(np.clip(beyond.mean() if len(beyond) else 1.0, 1.0, 60.0))


def predict(net: StageNet, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of a network's classes, shape [n, minutes + tail]."""
    with torch.no_grad():
        found: NDArray[np.float32] = net(torch.from_numpy(inputs)).numpy()
    return found


def register(
    registry: ModelRegistry,
    name: str,
    examples: Examples,
    fitted: Fitted,
    plan: EtaPlan,
    shops: Shops,
    metrics: dict[str, float],
    beside: Mapping[str, bytes] | None = None,
) -> str:
    """Write a version, with what is to lie beside it. No alias moves."""
    parameters: dict[str, Any] = {
        "service": plan.service,
        "stages": [vars(stage) for stage in fitted.stages],
        "loadings": fitted.loadings.tolist(),
        "correlations": fitted.correlations.tolist(),
        "layout": examples.layout.model_dump(mode="json"),
    }
    files = {
        f"{s.name}.onnx": export(net) for s, net in zip(fitted.stages, fitted.nets, strict=True)
    }
    return registry.register(
        name,
        {**files, "shops.npz": shops.pack(), **(beside or {})},
        features=examples.layout.features(),
        parameters=parameters,
        metrics=metrics,
    )


def quick(plan: EtaPlan) -> EtaPlan:
    """A plan for tests: one short epoch of one small network."""
    training = StageTraining(epochs=2, batch=256, members=1, hidden=(32,))
    return replace(plan, training=training)


def train_service(
    frame: pl.DataFrame,
    plan: EtaPlan,
    learn: Sequence[bool] | NDArray[np.bool_],
    shops: Shops,
    registry: ModelRegistry,
    progress: Progress = lambda _: None,
) -> EtaTrained:
    """Train on the rows to learn from, register, and make champion."""
    examples = make_examples(frame, plan, np.asarray(learn))
    fitted = fit(examples, plan, progress)
    name = f"eta-{plan.service}"
    version = register(registry, name, examples, fitted, plan, shops, {})
    registry.set_alias(name, CHAMPION, version)
    day = int(local_days(examples.orders, plan.clock)[np.asarray(learn)].max()) + 1
    return EtaTrained(version, examples.means.rows(day))
