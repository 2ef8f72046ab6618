"""Distributions over minutes, against samples and by hand."""

import numpy as np
import pytest

from madang_eta.distribution import (
    cumulative,
    delayed,
    means,
    mode_windows,
    quantiles,
    remaining,
    sure_window,
    with_tail,
)

TWO = np.array([[0.0, 0.5, 0.0, 0.5], [0.1, 0.2, 0.3, 0.4]])


def gamma(shape: float, scale: float, minutes: int = 120, n: int = 400_000) -> np.ndarray:
    drawn = np.random.default_rng(0).gamma(shape, scale, n)
    return np.bincount(np.minimum(drawn.astype(int), minutes - 1), minlength=minutes)[None] / n


def test_means_and_quantiles_are_those_of_even_minutes():
    assert means(TWO).tolist() == pytest.approx([2.5, 2.5])
    assert cumulative(TWO)[0].tolist() == [0, 0, 0.5, 0.5, 1]
    found = quantiles(TWO, np.array([0.25, 0.5, 0.75, 0.999]))
    assert found[0].tolist() == pytest.approx([1.5, 2.0, 3.5, 3.998])
    assert (np.diff(found, axis=1) > 0).all()


def test_quantiles_are_those_of_samples():
    drawn = np.random.default_rng(0).gamma(4, 6, 400_000)
    levels = np.array([0.05, 0.1, 0.5, 0.9, 0.95])
    assert quantiles(gamma(4, 6), levels)[0] == pytest.approx(np.quantile(drawn, levels), abs=0.1)


def test_the_window_holds_the_mode_and_is_the_likeliest_that_does():
    pmf = gamma(4, 6)
    window = mode_windows(pmf, 10)
    start, end = int(window.start[0]), int(window.end[0])
    mode = int(pmf.argmax())
    assert end - start == 10
    assert start <= mode < end
    inside = [pmf[0, s : s + 10].sum() for s in range(max(mode - 9, 0), mode + 1)]
    assert window.probability[0] == pytest.approx(max(inside))


def test_a_window_is_never_longer_than_the_distribution():
    window = mode_windows(TWO, 10)
    assert window.end.tolist() == [4, 4]
    assert window.probability.tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.8, 0.95])
def test_the_sure_window_is_the_shortest_that_is_sure_enough(rate):
    pmf = gamma(4, 6)
    window = sure_window(pmf, rate)
    start, end = int(window.start[0]), int(window.end[0])
    assert window.probability[0] >= rate
    shorter = [pmf[0, s : s + end - start - 1].sum() for s in range(120)]
    assert max(shorter) < rate


def test_a_window_that_nobody_can_promise_is_the_whole_range():
    half = np.array([[0.5, 0.4, 0.0]])
    window = sure_window(half, 0.99)
    assert (window.start.tolist(), window.end.tolist()) == ([0], [3])


def test_buffers_shift_and_what_would_be_before_now_is_now():
    later = delayed(TWO, np.array([2, -2]))
    assert later.shape == (2, 6)
    assert later[0].tolist() == [0, 0, 0, 0.5, 0, 0.5]
    assert later[1].tolist() == pytest.approx([0.6, 0.4, 0, 0, 0, 0])
    assert delayed(TWO, np.array([0, 0])).tolist() == TWO.tolist()


@pytest.mark.parametrize("elapsed", [0.0, 3.0, 11.5, 27.25])
def test_what_remains_is_what_samples_say(elapsed):
    drawn = np.random.default_rng(1).gamma(4, 6, 400_000)
    longer = drawn[drawn >= elapsed] - elapsed
    rest, survived = remaining(gamma(4, 6), elapsed, 100)
    assert survived[0] == pytest.approx((drawn >= elapsed).mean(), abs=0.01)
    assert means(rest)[0] == pytest.approx(longer.mean(), abs=0.15)
    assert rest.sum() == pytest.approx(1)


def test_a_tail_is_as_long_as_it_was_seen_and_forgets_how_long_it_took():
    classes = np.array([[0.2, 0.3, 0.5]])
    pmf = with_tail(classes, 6.0)
    assert pmf.sum() == pytest.approx(1)
    assert pmf[0, :2].tolist() == [0.2, 0.3]
    assert (np.diff(pmf[0, 2:]) < 0).all()
    excess = (pmf[0, 2:] * (np.arange(pmf.shape[1] - 2) + 0.5)).sum() / 0.5
    assert 5 < excess < 7
    at, _ = remaining(pmf, 2.0, 2)
    later, _ = remaining(pmf, 500.0, 2)
    assert later.tolist() == at.tolist()


def test_what_is_very_late_is_not_there_at_once():
    """A tail that nearly nothing falls into still says how long the rest takes."""
    classes = np.full((1, 16), 0.0)
    classes[0, 5:15], classes[0, 15] = 0.1, 5e-7
    pmf = with_tail((classes / classes.sum()).astype(np.float32), 8.0)
    rest, _ = remaining(pmf, 90.0, 15)
    assert means(rest)[0] == pytest.approx(8, rel=0.1)
    early, _ = remaining(pmf, 14.0, 15)
    assert means(early)[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("rate", [1e-9, 0.01])
def test_a_window_never_ends_before_it_starts(rate):
    window = sure_window(gamma(4, 6).astype(np.float32), rate)
    assert window.end[0] > window.start[0]
    assert window.probability[0] >= rate


@pytest.mark.parametrize("excess", [1.0, 3.0, 10.0, 60.0])
def test_a_tail_has_the_mean_that_it_is_given(excess):
    tail = with_tail(np.array([[0.0, 1.0]]), excess)[0, 1:]
    assert (tail * (np.arange(len(tail)) + 0.5)).sum() == pytest.approx(excess, rel=0.08)
