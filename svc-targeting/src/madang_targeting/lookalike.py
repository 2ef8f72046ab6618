"""Look-alikes: who responded to a campaign teaches a classifier whom else it would interest."""

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray

from madang_targeting.calibration import Calibration
from madang_targeting.trees import DEFAULT, TreeTraining, folds_of, probabilities, train_trees

Floats = NDArray[np.floating]
_FOLDS = 5
_LEAST, _LEAST_FOLDS = 20, 3


@dataclass(frozen=True)
class ResponseModel:
    """P(response | told), of a campaign's recipients.

    Attributes:
        trees: the classifier.
        calibration: of its probabilities.
        fair: what models that had not seen them say of the rows learned from, calibrated; [n].
    """

    trees: lightgbm.Booster
    calibration: Calibration
    fair: NDArray[np.float64]

    def __call__(self, inputs: Floats) -> NDArray[np.float64]:
        """Probabilities of n users, shape [n]."""
        return self.calibration(probabilities(self.trees, inputs))


def train_response(
    inputs: Floats,
    responded: NDArray[np.bool_],
    training: TreeTraining = DEFAULT,
    categories: Sequence[int] = (),
    folds: NDArray[np.integer] | None = None,
) -> ResponseModel:
    """Learn from whom was told and who responded.

    Args:
        inputs: of recipients, shape [n, columns], NaN where nothing is known.
        responded: shape [n].
        training: of the trees.
        categories: columns whose numbers are codes.
        folds: of each row, such as by campaign; None, and fewer than three, draws five.

    Raises:
        StoppedError: it was told to stop.
        ValueError: there are fewer than 20 who did, or who did not.
    """
    if min(responded.sum(), (~responded).sum()) < _LEAST:
        raise ValueError(
            f"{int(responded.sum())} of {len(responded)} recipients responded; at least {_LEAST} "
            "must have, and as many must not"
        )
    target = responded.astype(np.float64)
    if folds is None or len(np.unique(folds)) < _LEAST_FOLDS:
        folds = folds_of(len(target), _FOLDS, training.seed)
    # One number of rounds for all, so that the calibration of the parts' scores fits the whole's.
    parts = [
        train_trees(inputs[folds != fold], target[folds != fold], training, categories=categories)
        for fold in np.unique(folds)
    ]
    rounds = int(np.median([part.num_trees() for part in parts]))
    raw = np.zeros(len(target))
    for fold, part in zip(np.unique(folds), parts, strict=True):
        own = folds == fold
        same = part.num_trees() == rounds
        fitted = (
            part
            if same
            else train_trees(
                inputs[~own], target[~own], training, categories=categories, rounds=rounds
            )
        )
        raw[own] = probabilities(fitted, inputs[own])
    fair = np.zeros(len(target))
    for fold in np.unique(folds):
        own = folds == fold
        fair[own] = Calibration.fit(raw[~own], target[~own])(raw[own])
    trees = train_trees(inputs, target, training, categories=categories, rounds=rounds)
    return ResponseModel(trees, Calibration.fit(raw, target), fair)
