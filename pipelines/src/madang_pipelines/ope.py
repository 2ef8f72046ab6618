"""Off-policy evaluation: what another policy would have earned, from a log of this one.

Sources: Horvitz & Thompson 1952 (IPS); Swaminathan & Joachims, "The self-normalized estimator for
counterfactual learning", NeurIPS 2015 (SNIPS); Dudík, Langford & Li, "Doubly robust policy
evaluation and learning", ICML 2011 (DR), with rewards predicted out of fold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_Z = 1.959964  # 95 %
_FOLDS = 5
_PRIOR_ROWS = 20.0


@dataclass(frozen=True)
class BanditLog:
    """n logged decisions.

    Attributes:
        context: code from 0 of what the policies may look at, such as segment and position, [n].
        action: code from 0 of what was shown, [n].
        reward: what came of it, [n].
        propensity: the probability with which the logging policy showed it, in (0, 1], [n].
    """

    context: Ints
    action: Ints
    reward: Floats
    propensity: Floats

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True)
class Estimate:
    """A mean reward with its 95 % interval, by normal approximation."""

    value: float
    half: float

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self.value + self.half

    def holds(self, value: float) -> bool:
        """Whether the interval has a value in it."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Evaluation:
    """Estimates of one policy from one log.

    Attributes:
        estimates: by "IPS", "SNIPS" and "DR".
        effective_rows: (Σw)² / Σw² of the importance weights w: how many rows of the policy's own
            the log is worth.
        support: mean of w, about 1 where the logging policy could show whatever the policy would;
            well below, the estimates leave out what was never shown.
    """

    estimates: dict[str, Estimate]
    effective_rows: float
    support: float


def on_policy(reward: Floats, group: Ints | None = None) -> Estimate:
    """What the logging policy earned; see `estimate` for `group`."""
    return _mean(reward, group)


def evaluate(log: BanditLog, policy: Floats) -> Evaluation:
    """Estimate a policy's mean reward in the contexts of a log.

    Args:
        log: with exact propensities.
        policy: P(action | context), shape [contexts, actions]; rows add up to 1.

    Raises:
        ValueError: the log is empty or has a propensity outside (0, 1], or the policy's rows don't
            add up to 1.
    """
    _check(log, policy)
    weight = policy[log.context, log.action] / log.propensity
    return estimate(log.reward, weight, *_predictions(log, policy))


def estimate(
    reward: Floats,
    weight: Floats,
    predicted: Floats,
    of_policy: Floats,
    group: Ints | None = None,
) -> Evaluation:
    """Estimate a policy's mean reward from n rows of another's.

    Args:
        reward: what was earned.
        weight: P(action | context) of the policy, over that of the logging one.
        predicted: of the logged action, not from the row's own reward.
        of_policy: likewise, the policy's mean in the row's context.
        group: of each row, from 0: rows of a group, such as a page, are not independent, and the
            intervals are of the groups' sums. None: every row is on its own.

    Raises:
        ValueError: all weights are 0.
    """
    mean_weight = weight.mean()
    if mean_weight == 0:
        raise ValueError("the log has no action that the policy ever takes")
    snips = float((weight * reward).sum() / weight.sum())
    return Evaluation(
        {
            "IPS": _mean(weight * reward, group),
            "SNIPS": _mean(snips + weight / mean_weight * (reward - snips), group),
            "DR": _mean(of_policy + weight * (reward - predicted), group),
        },
        float(weight.sum() ** 2 / (weight**2).sum()),
        float(mean_weight),
    )


def _check(log: BanditLog, policy: Floats) -> None:
    if not len(log):
        raise ValueError("the log is empty")
    if not ((log.propensity > 0) & (log.propensity <= 1)).all():
        raise ValueError("propensities must be in (0, 1]")
    if not np.allclose(policy.sum(axis=1), 1, atol=1e-6) or (policy < 0).any():
        raise ValueError("each row of the policy must be a distribution over actions")


def _mean(values: Floats, group: Ints | None = None) -> Estimate:
    """The mean, with the interval of groups that are independent of each other."""
    mean, n = float(values.mean()), len(values)
    sums = values - mean if group is None else np.bincount(group, values - mean)
    groups = len(sums)
    if groups < 2:
        return Estimate(mean, float("inf"))
    spread = float((sums**2).sum() * groups / (groups - 1)) ** 0.5 / n
    return Estimate(mean, _Z * spread)


def _predictions(log: BanditLog, policy: Floats) -> tuple[Floats, Floats]:
    """Per row, by the rows of other folds: the predicted reward of the logged action, and of the
    policy in the row's context."""
    fold = np.random.default_rng(0).permutation(len(log)) % _FOLDS
    predicted, of_policy = np.empty(len(log)), np.empty(len(log))
    for f in range(_FOLDS):
        inside = fold == f
        rewards = _reward_table(log, ~inside, policy.shape)
        context = log.context[inside]
        predicted[inside] = rewards[context, log.action[inside]]
        of_policy[inside] = (policy * rewards).sum(axis=1)[context]
    return predicted, of_policy


def _reward_table(log: BanditLog, rows: NDArray[np.bool_], shape: tuple[int, ...]) -> Floats:
    """Mean reward by context and action, drawn towards the action's mean and that towards all."""
    cell = log.context[rows] * shape[1] + log.action[rows]
    count = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    total = np.bincount(cell, log.reward[rows], shape[0] * shape[1]).reshape(shape)
    overall = total.sum() / max(count.sum(), 1)
    action = (total.sum(0) + _PRIOR_ROWS * overall) / (count.sum(0) + _PRIOR_ROWS)
    table: Floats = (total + _PRIOR_ROWS * action) / (count + _PRIOR_ROWS)
    return table
