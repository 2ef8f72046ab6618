"""Uplift: who does it because they were told, not who does it anyway."""

from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray

from madang_targeting.trees import DEFAULT, TreeTraining, probabilities, train_trees

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class UpliftModel:
    """P(outcome | told) - P(outcome | not told), by an X-learner (Künzel et al., "Metalearners for
    estimating heterogeneous treatment effects using machine learning", 2019).

    Attributes:
        effect_told, effect_held: trees of the effect, from those who were told and who were not.
        told_share: of all who were learned from.
    """

    effect_told: lightgbm.Booster
    effect_held: lightgbm.Booster
    told_share: float

    def __call__(self, inputs: Floats) -> NDArray[np.float64]:
        """The effect of telling n users, shape [n]; negative for those it keeps away."""
        told, held = (probabilities(m, inputs) for m in (self.effect_told, self.effect_held))
        return self.told_share * held + (1 - self.told_share) * told


def train_uplift(
    inputs: Floats, told: Bools, outcome: Bools, training: TreeTraining = DEFAULT
) -> UpliftModel:
    """Learn from a campaign with a hold-out group that was drawn by chance.

    Args:
        inputs: shape [n, columns], NaN where nothing is known.
        told: who was told, shape [n].
        outcome: who did it, told or not, shape [n].
        training: of the trees.

    Raises:
        ValueError: nobody was told, or nobody was held out.
    """
    if not 0 < told.sum() < len(told):
        raise ValueError("an effect needs users who were told and users who were held out")
    target = outcome.astype(np.float64)
    base_told = train_trees(inputs[told], target[told], training)
    base_held = train_trees(inputs[~told], target[~told], training)
    gained = target[told] - probabilities(base_held, inputs[told])
    missed = probabilities(base_told, inputs[~told]) - target[~told]
    return UpliftModel(
        train_trees(inputs[told], gained, training, objective="regression"),
        train_trees(inputs[~told], missed, training, objective="regression"),
        float(told.mean()),
    )


def qini_curve(score: Floats, told: Bools, outcome: Bools) -> tuple[Floats, Floats]:
    """Outcomes gained by telling the best of each share (Radcliffe, "Using control groups to target
    on predicted lift", 2007).

    Returns:
        shares from 0 to 1 and outcomes gained a user of all, shape [n + 1] each.
    """
    order = np.argsort(-score, kind="stable")
    t, y = told[order], outcome[order].astype(np.float64)
    told_so_far, held_so_far = np.cumsum(t), np.cumsum(~t)
    from_told, from_held = np.cumsum(y * t), np.cumsum(y * ~t)
    scale = np.divide(told_so_far, held_so_far, out=np.zeros(len(t)), where=held_so_far > 0)
    gained = (from_told - from_held * scale) / max(t.mean(), 1e-9) / len(t)
    n = len(t)
    return np.arange(n + 1) / n, np.concatenate([[0.0], gained])


def qini(score: Floats, told: Bools, outcome: Bools) -> float:
    """Area between the Qini curve and that of telling by chance."""
    shares, gained = qini_curve(score, told, outcome)
    return float(np.trapezoid(gained - shares * gained[-1], shares))
