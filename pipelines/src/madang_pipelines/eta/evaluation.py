"""Arrivals beside simple ones, on orders that were not learned from."""

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from madang_eta.dependence import StageDependence, total
from madang_eta.distribution import with_tail
from madang_eta.layout import distances
from madang_pipelines.city.deliveries import DeliveryTruth
from madang_pipelines.eta.scores import EtaScores, score
from madang_pipelines.eta.training import EtaPlan, Examples, Fitted, fit, make_examples, predict
from madang_pipelines.tables import Tables

Floats = NDArray[np.floating]
Rows = NDArray[np.int64]
TREES = {
    "learning_rate": 0.03,
    "num_leaves": 31,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "verbose": -1,
    "num_threads": 2,
}
"""Settings of trees beside which arrivals are judged."""


def arrival_pmf(fitted: Fitted, inputs: NDArray[np.float32], independent: bool = False) -> Floats:
    """The distribution of whole orders, shape [n, minutes]."""
    stages = [
        with_tail(predict(net, inputs), spec.mean_excess)
        for net, spec in zip(fitted.nets, fitted.stages, strict=True)
    ]
    if len(stages) == 1:
        return stages[0]
    loadings = np.zeros(len(stages)) if independent else fitted.loadings
    dependence = StageDependence(loadings.tolist())
    factor = dependence.prior()
    parts = [dependence.given(pmf, i, factor) for i, pmf in enumerate(stages)]
    return total(parts, factor.weights)


def constant(minutes: Floats, n: int, width: int) -> Floats:
    """What was seen in training, for every order."""
    return np.tile(from_samples(minutes[None, :], width), (n, 1))


def from_samples(samples: Floats, width: int) -> Floats:
    """Distributions from samples of each row, shape [n, width]; later counts as the last minute."""
    at = np.clip(samples, 0, width - 1).astype(np.int64)
    found = np.zeros((len(at), width))
    np.add.at(found, (np.arange(len(at))[:, None], at), 1 / at.shape[1])
    return found


def residuals(centres: Floats, errors: Floats, width: int) -> Floats:
    """Predicted minutes with the errors that were seen in training around each.

    Args:
        centres: shape [n]. errors: shape [m], or [n, m] where they differ by row.
    """
    level = np.quantile(errors, np.linspace(0.002, 0.998, 250), axis=-1).T
    return from_samples(centres[:, None] + np.broadcast_to(level, (len(centres), 250)), width)


def distance_line(examples: Examples, learn: Rows, test: Rows, width: int) -> Floats:
    """A line over distance, with its errors."""
    km, minutes = distances(examples.orders), examples.minutes.sum(1)
    slope, start = np.polyfit(km[learn], minutes[learn], 1)
    line = start + slope * km
    return residuals(line[test], minutes[learn] - line[learn], width)


def log_normal(examples: Examples, learn: Rows, test: Rows, width: int) -> Floats:
    """log(minutes) by a line over log(distance), normal around it."""
    km, minutes = np.log1p(distances(examples.orders)), examples.minutes.sum(1)
    known = np.log(np.maximum(minutes, 0.1))
    slope, start = np.polyfit(km[learn], known[learn], 1)
    line = start + slope * km
    spread = (known - line)[learn].std()
    ends = np.log(np.arange(1, width + 1))
    below = ndtr((ends[None, :] - line[test][:, None]) / spread)
    below[:, -1] = 1
    return np.diff(below, axis=1, prepend=0)


def tree_mean(examples: Examples, learn: Rows, test: Rows, folds: Rows, width: int) -> Floats:
    """LightGBM's mean, with the errors that it made out of fold around predictions alike."""
    x, y = examples.inputs, examples.minutes[:, 0]
    stop = learn[folds[learn] == 0]
    rest = learn[folds[learn] != 0]
    early: list[Callable[..., Any]] = [lightgbm.early_stopping(60, verbose=False)]
    data = lightgbm.Dataset(x[rest], y[rest])
    held = lightgbm.Dataset(x[stop], y[stop])
    trees = {**TREES, "objective": "regression", "seed": 1}
    best = lightgbm.train(trees, data, 1500, [held], callbacks=early)
    rounds = best.best_iteration

    def train(rows: Rows) -> lightgbm.Booster:
        return lightgbm.train(trees, lightgbm.Dataset(x[rows], y[rows]), rounds)

    fair = np.zeros(len(y))
    for fold in np.unique(folds[learn]):
        own = learn[folds[learn] == fold]
        fair[own] = np.asarray(train(learn[folds[learn] != fold]).predict(x[own]))
    centre = np.asarray(train(learn).predict(x[test]))
    edges = np.quantile(fair[learn], np.linspace(0, 1, 9)[1:-1])
    errors, alike = y[learn] - fair[learn], np.searchsorted(edges, fair[learn])
    pmf = np.zeros((len(test), width))
    for band in range(8):
        rows = np.searchsorted(edges, centre) == band
        pmf[rows] = residuals(centre[rows], errors[alike == band], width)
    return pmf


def evaluate_city(
    tables: Tables, truth: DeliveryTruth, plan: EtaPlan, most: int = 2000
) -> tuple[list[EtaScores], Fitted]:
    """Arrivals of one kind of service in the held-out period, beside simple ones and the oracle."""
    orders = tables.frames["orders"]
    rows = np.flatnonzero((orders["service"] == plan.service).to_numpy())
    frame = orders[rows]
    learn = (frame["period"] < tables.test_period).to_numpy()
    examples = make_examples(frame, plan, learn)
    fitted = fit(examples, plan)
    whole = ~np.isnan(examples.minutes).any(1)
    past, test = np.flatnonzero(learn & whole), np.flatnonzero(~learn & whole)[:most]
    minutes = examples.minutes.sum(1)
    ours = arrival_pmf(fitted, examples.inputs[test])
    width = ours.shape[1]
    drawn = truth.sample(np.random.default_rng(0), 400, rows[test]).sum(2)
    found = {
        "constant": constant(minutes[past], len(test), width),
        "distance line": distance_line(examples, past, test, width),
        "ours, stages independent": arrival_pmf(fitted, examples.inputs[test], independent=True),
        "ours": ours,
        "oracle": from_samples(drawn, width),
    }
    return [score(name, pmf, minutes[test]) for name, pmf in found.items()], fitted
