"""Gradient-boosted trees for responses, with the settings that hold on few and on many rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
_FOLDS = 5


class StoppedError(Exception):
    """The work was called off."""


@dataclass(frozen=True)
class TreeTraining:
    """How to train.

    Attributes:
        rounds: at most; early stopping on a fold finds how many help.
        leaves: of a tree.
        learning_rate: of a round.
        least_in_leaf: rows of a leaf; of few rows fewer.
        threads: of training and prediction.
        seed: of what is drawn.
        stopped: asked after each round whether to stop.
    """

    rounds: int = 600
    leaves: int = 15
    learning_rate: float = 0.03
    least_in_leaf: int = 100
    threads: int = 2
    seed: int = 0
    stopped: Callable[[], bool] = lambda: False

    def parameters(self, objective: str, rows: int) -> dict[str, object]:
        """As LightGBM names them."""
        return {
            "objective": objective,
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": max(min(self.least_in_leaf, rows // 50), 5),
            "feature_fraction": 0.6,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 5.0,
            "num_threads": self.threads,
            "seed": self.seed,
            "deterministic": True,
            "verbose": -1,
        }


DEFAULT = TreeTraining()


def train_trees(
    inputs: Floats,
    target: Floats,
    training: TreeTraining,
    *,
    objective: str = "binary",
    weights: Floats | None = None,
    categories: Sequence[int] = (),
    rounds: int = 0,
) -> lightgbm.Booster:
    """Train on n rows, all of them; how many rounds help is found on a fifth of them, unless it is
    known.

    Args:
        inputs: shape [n, columns], NaN where nothing is known.
        target: 0 or 1, or a number for "regression", shape [n].
        training: how.
        objective: LightGBM's.
        weights: what each row counts, shape [n].
        categories: columns whose numbers are codes.
        rounds: to train, when that is known.

    Raises:
        StoppedError: it was told to stop.
    """
    n = len(target)
    given = training.parameters(objective, n)
    weights = np.ones(n) if weights is None else weights
    held = folds_of(n, _FOLDS, training.seed) == 0

    def data(rows: NDArray[np.bool_]) -> lightgbm.Dataset:
        return lightgbm.Dataset(
            inputs[rows],
            target[rows],
            weight=weights[rows],
            categorical_feature=list(categories),
        )

    def heed(_: object) -> None:
        if training.stopped():
            raise StoppedError

    if not rounds:
        early = lightgbm.early_stopping(40, verbose=False)
        rounds = lightgbm.train(
            given, data(~held), training.rounds, [data(held)], callbacks=[early, heed]
        ).best_iteration
    return lightgbm.train(given, data(np.ones(n, bool)), max(rounds, 1), callbacks=[heed])


def folds_of(n: int, folds: int, seed: int) -> NDArray[np.int64]:
    """A fold for each of n rows, as many of each as can be."""
    return np.random.default_rng(seed).permutation(np.arange(n) % folds)


def probabilities(model: lightgbm.Booster, inputs: Floats, threads: int = 0) -> NDArray[np.float64]:
    """What a model says of n rows, shape [n]; with as many threads as it was trained with for 0."""
    more: dict[str, Any] = {"num_threads": threads} if threads else {}
    return np.asarray(model.predict(inputs, **more), np.float64)
