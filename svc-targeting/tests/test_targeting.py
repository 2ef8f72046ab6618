"""Calibration, look-alikes, uplift, cuts and curves, where the answer is known."""

import numpy as np
import polars as pl
import pytest

from madang_targeting.calibration import Calibration, rate_interval
from madang_targeting.curve import Histogram, best_cut, bins_of, reach_curve
from madang_targeting.lookalike import train_response
from madang_targeting.members import Members, hold_out
from madang_targeting.scoring import StoppedError, score_audience, take
from madang_targeting.trees import TreeTraining
from madang_targeting.uplift import qini, qini_curve, train_uplift

QUICK = TreeTraining(rounds=120, learning_rate=0.1, threads=1)


def people(n=6000, seed=0):
    """Users of whom three columns matter, and what is true of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    click = 1 / (1 + np.exp(-(-2.5 + 1.2 * x[:, 0] + 0.8 * x[:, 1])))
    return rng, x, click


def test_calibrated_probabilities_mean_what_they_say():
    rng = np.random.default_rng(0)
    truth = rng.beta(1, 8, 200_000)
    outcomes = rng.random(200_000) < truth
    score = truth**0.5  # in the right order, but far too high
    fitted, others = Calibration.fit(score[:100_000], outcomes[:100_000]), truth[100_000:]
    found = fitted(score[100_000:])
    assert found.mean() == pytest.approx(others.mean(), rel=0.03)
    for low, high in ((0.0, 0.05), (0.05, 0.15), (0.15, 0.3), (0.3, 1.0)):
        rows = (found >= low) & (found < high)
        assert found[rows].mean() == pytest.approx(others[rows].mean(), abs=0.02)
    assert (np.diff(fitted.probabilities) >= 0).all()


def test_nothing_is_impossible_and_nothing_certain():
    fitted = Calibration.fit(np.arange(100.0), np.arange(100) >= 50)
    assert 0 < fitted(np.array([-5.0]))[0] < 0.02
    assert 0.98 < fitted(np.array([500.0]))[0] < 1


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.9])
def test_intervals_hold_the_rate_as_often_as_they_say(rate):
    rng = np.random.default_rng(0)
    hits = [rate_interval(k, 500, 0.9) for k in rng.binomial(500, rate, 2000)]
    assert np.mean([low <= rate <= high for low, high in hits]) == pytest.approx(0.9, abs=0.03)
    assert rate_interval(0, 10)[0] == 0
    assert rate_interval(10, 10)[1] == 1


def test_lookalikes_are_those_who_would_respond():
    rng, x, click = people()
    model = train_response(x, rng.random(len(x)) < click, QUICK)
    _, others, theirs = people(seed=1)
    found = model(others)
    assert np.corrcoef(found, theirs)[0, 1] > 0.8
    best = np.argsort(-found)[:600]
    assert theirs[best].mean() > 2.5 * theirs.mean()
    assert found.mean() == pytest.approx(theirs.mean(), rel=0.15)
    assert model.fair.mean() == pytest.approx(click.mean(), rel=0.1)


@pytest.mark.parametrize("responders", [0, 5, 5998])
def test_too_few_say_nothing(responders):
    responded = np.arange(6000) < responders
    with pytest.raises(ValueError, match=f"{responders} of 6000 recipients responded"):
        train_response(np.zeros((6000, 2)), responded, QUICK)


def test_uplift_finds_whom_telling_moves_not_who_comes_anyway():
    rng, x, _ = people(20_000)
    held = 1 / (1 + np.exp(-(-1.5 + 1.5 * x[:, 0])))
    effect = 0.2 * (x[:, 2] > 0) - 0.1 * (x[:, 3] > 1)
    told = rng.random(len(x)) < 0.6
    outcome = rng.random(len(x)) < np.clip(held + effect * told, 0, 1)
    model = train_uplift(x, told, outcome, QUICK)
    found = model(x)
    assert np.corrcoef(found, effect)[0, 1] > 0.7
    assert found.mean() == pytest.approx(effect.mean(), abs=0.03)
    assert qini(found, told, outcome) > qini(x[:, 0], told, outcome) + 0.01
    with pytest.raises(ValueError, match="held out"):
        train_uplift(x, np.ones(len(x), bool), outcome, QUICK)


def test_a_qini_curve_ends_at_what_telling_all_gains():
    rng = np.random.default_rng(0)
    told = rng.random(50_000) < 0.5
    outcome = rng.random(50_000) < np.where(told, 0.3, 0.2)
    shares, gained = qini_curve(rng.random(50_000), told, outcome)
    assert (shares[0], shares[-1], gained[0]) == (0, 1, 0)
    assert gained[-1] == pytest.approx(0.1, abs=0.01)
    assert abs(qini(rng.random(50_000), told, outcome)) < 0.004


def union(first, second, cut):
    return (first >= cut.first) | (second >= cut.second)


def histogram(first, second, expected, bins):
    counts, response = np.zeros((bins, bins)), np.zeros((bins, bins))
    np.add.at(counts, (first, second), 1)
    np.add.at(response, (first, second), expected)
    return Histogram(counts, response)


@pytest.mark.parametrize("size", [1, 100, 1000, 3999])
def test_the_cut_is_the_best_or_that_is_big_enough(size):
    rng = np.random.default_rng(0)
    bins, n = 12, 4000
    first, second = rng.integers(0, bins, n), rng.integers(0, bins, n)
    expected = 0.01 + 0.02 * first / bins + 0.05 * (second / bins) ** 2 + 0.01 * rng.random(n)
    cut = best_cut(histogram(first, second, expected, bins), size)
    taken = union(first, second, cut)
    assert taken.sum() == cut.size >= size
    assert expected[taken].sum() == pytest.approx(cut.response)
    for a in range(bins + 1):
        for b in range(bins + 1):
            other = (first >= a) | (second >= b)
            smallest = all(
                ((first >= a) | (second >= c)).sum() < size for c in range(b + 1, bins + 1)
            )
            if other.sum() >= size and smallest:
                assert expected[other].mean() <= expected[taken].mean() + 1e-12


def test_more_than_there_are_is_everybody():
    cut = best_cut(Histogram(np.ones((3, 3)), np.ones((3, 3))), 100)
    assert cut.size == 9


def test_bins_are_even_in_the_logarithm():
    found = bins_of(np.array([0.0, 1e-4, 1e-2, 0.999, 1.0]), 100)
    assert found.tolist() == [0, 0, 50, 99, 99]


def test_the_curve_falls_with_reach():
    sizes, rates = reach_curve(np.array([0.1, 0.4, 0.2, 0.3]), 4)
    assert sizes.tolist() == [1, 2, 3, 4]
    assert rates.tolist() == pytest.approx([0.4, 0.35, 0.3, 0.25])


def rows_of(members):
    return [row for part in members.parts(3) for row in part.tolist()]


def test_members_survive_packing_and_combine():
    a, b, c = (Members.of_rows(np.array(rows)) for rows in ([5, 1, 9, 70_000], [9, 2, 5], [5, 8]))
    assert rows_of(Members.unpack(a.pack())) == [1, 5, 9, 70_000]
    assert rows_of(Members.any_of([a, b, c])) == [1, 2, 5, 8, 9, 70_000]
    assert rows_of(Members.all_of([a, b, c])) == [5]
    assert rows_of(a.without([b, c])) == [1, 70_000]
    assert rows_of(a.first(2)) == [1, 5]
    assert (5 in a, 6 in a, len(a)) == (True, False, 4)
    assert not len(Members.any_of([])) + len(Members.all_of([]))
    with pytest.raises(ValueError, match="no roaring bitmap"):
        Members.unpack(b"half of one")


def test_who_is_held_out_stays_so_and_is_drawn_by_chance():
    whole = Members.of_rows(np.arange(200_000))
    told, held = hold_out(whole, 0.1, "c1")
    assert len(told) + len(held) == 200_000
    assert len(held) / 200_000 == pytest.approx(0.1, abs=0.005)
    small_told, small_held = hold_out(whole.first(1000), 0.1, "c1")
    assert set(rows_of(small_held)) == {r for r in rows_of(held) if r < 1000}
    _, other = hold_out(whole, 0.1, "c2")
    both = Members.all_of([held, other])
    assert len(both) / 200_000 == pytest.approx(0.01, abs=0.002), "campaigns draw for themselves"
    assert len(hold_out(whole, 0.0, "")[1]) == 0
    assert len(small_told) + len(small_held) == 1000


@pytest.fixture
def audience(tmp_path):
    """A Parquet file of users of whom two columns matter, in several row groups."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.random(50_000), "b": rng.random(50_000), "c": [None] * 50_000})
    frame = frame.with_columns(pl.col("c").cast(pl.Float64))
    path = tmp_path / "users.parquet"
    frame.write_parquet(path, row_group_size=7000)
    return str(path), frame


def test_an_audience_is_scored_in_parts_and_the_best_are_taken(audience):
    path, frame = audience
    models = (lambda x: 0.3 * x[:, 0] ** 9, lambda x: 0.3 * x[:, 1] ** 9)
    seen = []
    scored = score_audience(path, ["a", "b", "c"], models, seen.append)
    assert seen[-1] == 1
    assert len(scored) == scored.histogram.counts.sum() == 50_000
    members, cut = take(scored, 5000)
    assert len(members) == cut.size
    assert 5000 <= cut.size < 5400
    a, b = (frame[name].to_numpy() for name in "ab")
    expected = 0.15 * (a**9 + b**9)
    rows = np.array(rows_of(members))
    assert expected[rows].sum() == pytest.approx(cut.response, rel=1e-6)
    best = np.sort(expected)[::-1][: len(rows)].mean()
    assert expected[rows].mean() > 0.85 * best
    for alone in (a, b):  # one score alone, cut to as many users
        only = np.argsort(-alone)[: len(rows)]
        assert expected[rows].mean() > expected[only].mean()


def test_scoring_can_be_called_off_and_needs_its_columns(audience):
    path, _ = audience
    zero = (lambda x: np.zeros(len(x)),) * 2
    with pytest.raises(StoppedError):
        score_audience(path, ["a"], zero, stopped=lambda: True)
    with pytest.raises(KeyError, match="no column 'z'"):
        score_audience(path, ["a", "z"], zero)
