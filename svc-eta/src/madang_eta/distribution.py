"""Distributions over minutes.

A distribution of n orders is an array of shape [n, K]: column k is the probability that something
takes from k to k + 1 minutes, evenly spread within. Rows sum to 1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


class Windows(NamedTuple):
    """One window a row: minutes [start, end) and the probability of being within."""

    start: Ints
    end: Ints
    probability: Floats


def cumulative(pmf: Floats) -> Floats:
    """P(T < k) for k = 0 … K, shape [n, K + 1]."""
    out = np.zeros((*pmf.shape[:-1], pmf.shape[-1] + 1), pmf.dtype)
    np.cumsum(pmf, axis=-1, out=out[..., 1:])
    return out


def means(pmf: Floats) -> Floats:
    """Expected minutes, shape [n]."""
    middles = np.arange(pmf.shape[-1], dtype=pmf.dtype) + pmf.dtype.type(0.5)
    mean: Floats = pmf @ middles
    return mean


def quantiles(pmf: Floats, levels: Floats) -> Floats:
    """Minutes by which an order has arrived with each probability, shape [n, levels]."""
    below = cumulative(pmf)
    rows = np.arange(len(pmf))[:, None]
    wanted = levels[None, :] * below[:, -1:]
    at = np.stack([(below[:, 1:] < w[:, None]).sum(1) for w in wanted.T], axis=1)
    at = np.minimum(at, pmf.shape[1] - 1)
    within = np.maximum(pmf[rows, at], 1e-12)
    minutes: Floats = at + np.clip((wanted - below[rows, at]) / within, 0, 1)
    return minutes


def mode_windows(pmf: Floats, length: int) -> Windows:
    """The likeliest window of a length that contains the likeliest minute: what users are shown."""
    n, minutes = pmf.shape
    length = min(length, minutes)
    below = cumulative(pmf)
    mode = pmf.argmax(1)
    # Every start from which the window still holds the mode.
    starts = np.clip(mode[:, None] - np.arange(length)[None, :], 0, minutes - length)
    rows = np.arange(n)[:, None]
    inside = below[rows, starts + length] - below[rows, starts]
    best = inside.argmax(1)
    start = starts[np.arange(n), best]
    return Windows(start, start + length, inside[np.arange(n), best])


def sure_window(pmf: Floats, hit_rate: float) -> Windows:
    """The shortest window of each row that has at least a probability; of several the likeliest.

    Where none has, such as for rates near 1, the whole range.
    """
    below = cumulative(pmf.astype(np.float64))
    rows, minutes = np.arange(len(pmf)), pmf.shape[1]
    # For each start the first end by which enough has arrived.
    wanted = below[:, :-1] + hit_rate
    ends = np.stack([np.searchsorted(b, w, "left") for b, w in zip(below, wanted, strict=True)])
    ends = np.maximum(ends, np.arange(1, minutes + 1))
    reach = np.minimum(ends, minutes)
    inside = np.take_along_axis(below, reach, 1) - below[:, :-1]
    lengths = np.where(ends <= minutes, reach - np.arange(minutes), minutes + 1)
    best = np.lexsort((-inside, lengths), axis=1)[:, 0]
    found = lengths[rows, best] <= minutes
    start = np.where(found, best, 0)
    end = np.where(found, reach[rows, best], minutes)
    return Windows(start, end, below[rows, end] - below[rows, start])


def delayed(pmf: Floats, minutes: Ints) -> Floats:
    """Each row shifted by whole minutes; what would be before 0 arrives in minute 0."""
    if not minutes.any():
        return pmf
    later, width = int(minutes.max(initial=0)), pmf.shape[1]
    out = np.zeros((len(pmf), width + max(later, 0)), pmf.dtype)
    at = np.maximum(np.arange(width)[None, :] + minutes[:, None], 0)
    np.add.at(out, (np.arange(len(pmf))[:, None], at), pmf)
    return out


def remaining(pmf: Floats, elapsed: float, tail_from: int) -> tuple[Floats, Floats]:
    """What is left of something that has already taken a while.

    Args:
        pmf: shape [n, K].
        elapsed: minutes, not negative.
        tail_from: the minute from which on it falls geometrically, so that what is left there is
            the same however long it has taken.

    Returns:
        the distribution from now on, shape [n, K]; and P(T ≥ elapsed), or of tail_from, shape [n].
    """
    elapsed = min(elapsed, tail_from)
    minutes = pmf.shape[1]
    # From the end, so that what is little there keeps its digits.
    longer = cumulative(pmf[:, ::-1].astype(np.float64))[:, ::-1]
    at = np.minimum(elapsed + np.arange(minutes + 1), minutes)
    low = np.minimum(at.astype(np.int64), minutes - 1)
    part = at - low
    shifted = longer[:, low] * (1 - part) + longer[:, low + 1] * part
    left = shifted[:, 0]
    rest = shifted[:, :-1] - shifted[:, 1:]
    rest[left == 0] = np.eye(1, minutes)
    return rest / rest.sum(1, keepdims=True), left


def with_tail(classes: Floats, mean_excess: float) -> Floats:
    """The last class, which is a tail, as minutes in which it falls geometrically.

    Args:
        classes: probabilities of minutes 0 … K - 1 and of longer, shape [n, K + 1].
        mean_excess: minutes beyond K that those in the tail take on average.
    """
    # The mean of a geometric number of minutes, and the half that each minute has.
    ratio = max(mean_excess - 0.5, 0.05) / (mean_excess + 0.5)
    extra = max(int(np.ceil(5 * mean_excess)), 2)
    share = ratio ** np.arange(extra)
    share = (share / share.sum()).astype(classes.dtype)
    return np.concatenate([classes[:, :-1], classes[:, -1:] * share], axis=1)
