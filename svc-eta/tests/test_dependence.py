"""Totals of stages that depend on each other, against samples."""

import numpy as np
import pytest
from scipy.special import ndtri

from madang_eta.dependence import Factor, StageDependence, fit_loadings, total
from madang_eta.distribution import cumulative, means, quantiles

N = 300_000
LOADINGS = np.array([0.7, 0.8, 0.4])


def drawn(loadings, n=N):
    """Minutes of three stages with a hidden factor, the factor, and the scores."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=n)
    noise = rng.normal(size=(n, len(loadings)))
    scores = loadings * z[:, None] + np.sqrt(1 - loadings**2) * noise
    minutes = np.exp(np.log([4, 12, 10]) + scores * [0.6, 0.35, 0.3])
    return minutes, scores


def stage_pmfs(minutes, width=90):
    columns = [
        np.bincount(np.minimum(c.astype(int), width - 1), minlength=width) for c in minutes.T
    ]
    return [(column / len(minutes))[None] for column in columns]


def summed(minutes, loadings):
    dependence = StageDependence(loadings)
    factor = dependence.prior()
    parts = [dependence.given(p, i, factor) for i, p in enumerate(stage_pmfs(minutes))]
    return total(parts, factor.weights)


def test_independent_stages_are_convolved():
    minutes, _ = drawn(np.zeros(3))
    pmf = summed(minutes, np.zeros(3))
    levels = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
    assert pmf.sum() == pytest.approx(1)
    assert means(pmf)[0] == pytest.approx(minutes.sum(1).mean(), abs=0.1)
    assert quantiles(pmf, levels)[0] == pytest.approx(np.quantile(minutes.sum(1), levels), abs=0.25)


def test_dependent_stages_are_as_wide_as_samples_and_independence_is_not():
    minutes, _ = drawn(LOADINGS)
    levels = np.array([0.05, 0.1, 0.5, 0.9, 0.95])
    wanted = np.quantile(minutes.sum(1), levels)
    found = quantiles(summed(minutes, LOADINGS), levels)[0]
    assert found == pytest.approx(wanted, rel=0.025)
    narrow = quantiles(summed(minutes, np.zeros(3)), levels)[0]
    assert narrow[-1] - narrow[0] < 0.85 * (wanted[-1] - wanted[0])


def test_each_stage_keeps_its_own_distribution():
    minutes, _ = drawn(LOADINGS)
    dependence = StageDependence(LOADINGS)
    factor = dependence.prior()
    for i, pmf in enumerate(stage_pmfs(minutes)):
        mixed = (dependence.given(pmf, i, factor) * factor.weights[:, None, None]).sum(0)
        assert np.abs(cumulative(mixed) - cumulative(pmf)).max() < 0.01


@pytest.mark.parametrize("slow", [0.8, 1.0, 2.0])
def test_what_is_over_says_how_slow_the_rest_is(slow):
    minutes, scores = drawn(LOADINGS, 2_000_000)
    first = 4 * slow
    alike = np.abs(minutes[:, 0] - first) < 0.05
    wanted = minutes[alike, 1:].sum(1)
    dependence, pmfs = StageDependence(LOADINGS), stage_pmfs(minutes)
    factor = dependence.after({0: float(scores[alike, 0].mean())})
    parts = [dependence.given(pmfs[i], i, factor) for i in (1, 2)]
    found = total(parts, factor.weights)
    assert means(found)[0] == pytest.approx(wanted.mean(), rel=0.02)
    levels = np.array([0.1, 0.5, 0.9])
    assert quantiles(found, levels)[0] == pytest.approx(np.quantile(wanted, levels), rel=0.04)


def test_loadings_are_found_again():
    _, scores = drawn(LOADINGS)
    found, correlations = fit_loadings(scores)
    assert found == pytest.approx(LOADINGS, abs=0.02)
    assert correlations[0, 1] == pytest.approx(0.56, abs=0.02)


def test_two_stages_may_go_against_each_other():
    _, scores = drawn(LOADINGS)
    pair = np.stack([scores[:, 0], -scores[:, 1]], axis=1)
    found, correlations = fit_loadings(pair)
    assert found[0] * found[1] == pytest.approx(correlations[0, 1])
    assert found[0] * found[1] == pytest.approx(-0.56, abs=0.02)


def test_chance_is_no_dependence():
    _, scores = drawn(np.zeros(3), 2000)
    found, _ = fit_loadings(scores)
    assert found.tolist() == [0, 0, 0]
    assert StageDependence(found).prior() == Factor(np.zeros(1), np.ones(1))


def test_one_stage_has_nothing_in_common():
    found, correlations = fit_loadings(ndtri(np.linspace(0.1, 0.9, 50))[:, None])
    assert found.tolist() == [0]
    assert correlations.tolist() == [[1]]


def test_a_stage_of_its_own_has_nothing_in_common():
    _, scores = drawn(LOADINGS)
    alone = np.random.default_rng(1).normal(size=len(scores))
    found, _ = fit_loadings(np.column_stack([scores, alone]))
    assert found[3] == 0
    assert found[:3] == pytest.approx(LOADINGS, abs=0.02)


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_fractions_of_minutes_add_up(stages):
    """Stages of less than a minute each, evenly: their sum is that of as many even draws."""
    rng = np.random.default_rng(0)
    sums = rng.random((400_000, stages)).sum(1).astype(int)
    wanted = np.bincount(sums, minlength=stages) / len(sums)
    minute = np.array([[[1.0, 0.0]]])
    found = total([minute] * stages, np.ones(1))
    assert found[0, :stages] == pytest.approx(wanted[:stages], abs=0.003)
