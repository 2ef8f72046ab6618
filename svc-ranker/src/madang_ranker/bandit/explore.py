"""Puts what the bandit draws between what the model ranks, and tells how probable that was."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang_ranker.bandit.policy import BanditPolicy

Ints = NDArray[np.intp]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Explored:
    """A list of n items with explored positions.

    Attributes:
        order: the items' indices in the order shown, shape [n].
        explored: whether the bandit put the item at each position, shape [n].
        propensities: of each position's item being there, over all rankings, shape [n].
        pool: indices of the items that the bandit chose from.
    """

    order: Ints
    explored: NDArray[np.bool_]
    propensities: Floats
    pool: Ints


def explore(
    order: Ints, proposed: Ints, rates: Floats, ranking: int, policy: BanditPolicy
) -> Explored:
    """Merge the bandit's choice into a model's order.

    Of the positions down to the last explored one, the model fills its own with its best; the
    bandit fills its e with the highest draws of its pool, which are the proposed items that the
    model did not take. What is left follows in the model's order.

    Args:
        order: the items, best first as the model has it, shape [n].
        proposed: indices of the k items that the filter lets the bandit try.
        rates: their draws, shape [k, rankings].
        ranking: the one that is shown.
        policy: where to explore.
    """
    n = len(order)
    row = np.full(n, -1)
    row[proposed] = np.arange(len(proposed))
    rows = row[order]  # of `rates`, -1 where the bandit may not
    slots = _slots(rows >= 0, policy)
    e = len(slots)
    depth = slots[-1] + 1 if e else 0
    head, tail = order[: depth - e], order[depth - e :]
    rows = rows[depth - e :]
    at = np.flatnonzero(rows >= 0)  # the pool, as places in the tail
    chosen = at[_best(rates[rows[at]], e)]  # [e, rankings], places in the tail
    shown = chosen[:, ranking]
    explored = np.zeros(n, bool)
    explored[slots] = True
    merged = np.empty(n, np.intp)
    merged[slots] = tail[shown]
    merged[~explored] = np.concatenate([head, np.delete(tail, shown)])
    propensities = np.ones(n, np.float32)
    propensities[slots] = (chosen == shown[:, None]).mean(axis=1)
    propensities[depth:] = _left(chosen, shown, len(tail), n - depth)
    return Explored(merged, explored, propensities, tail[at])


def _slots(proposed: NDArray[np.bool_], policy: BanditPolicy) -> Ints:
    """The explored positions: as many of the policy's as its pool can fill.

    Args:
        proposed: whether the bandit may try the item that the model has at each place.
    """
    slots = np.arange(policy.every - 1, min(policy.depth, len(proposed)), policy.every)
    e = np.arange(1, len(slots) + 1)
    pool = np.append(np.cumsum(proposed[::-1])[::-1], 0)  # from each place on
    enough = np.flatnonzero(pool[slots + 1 - e] >= e)
    return slots[: enough[-1] + 1] if len(enough) else slots[:0]


def _best(rates: Floats, e: int) -> Ints:
    """The e highest of each column, best first, shape [e, rankings]."""
    if e == 0:
        return np.empty((0, rates.shape[1]), np.intp)
    best = np.argpartition(-rates, e - 1, axis=0)[:e]
    return np.take_along_axis(best, np.argsort(-np.take_along_axis(rates, best, 0), axis=0), 0)


def _left(chosen: Ints, shown: Ints, tail: int, left: int) -> Floats:
    """How probable each item after the explored depth is at its position: there, too, an item
    stands further up in a ranking that took an item before it."""
    rest = np.delete(np.arange(tail), shown)[:left]
    taken = np.zeros((chosen.shape[1], tail), bool)
    taken[np.arange(chosen.shape[1]), chosen] = True
    before = np.cumsum(taken, axis=1)[:, rest] - taken[:, rest]
    same = before == np.count_nonzero(shown[:, None] < rest, axis=0)
    result: Floats = (same & ~taken[:, rest]).mean(axis=0, dtype=np.float32)
    return result
