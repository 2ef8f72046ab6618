"""Calibration, look-alikes, uplift, cuts and curves, where the answer is known."""

import numpy as np
import polars as pl
import pytest

from madang_targeting.calibration import Calibration, campaign_spread, foretold, rate_interval
from madang_targeting.curve import Histogram, Unions, bins_of
from madang_targeting.lookalike import train_response
from madang_targeting.members import Members, drawn
from madang_targeting.scoring import Parts, Scores, score_audience
from madang_targeting.trees import StoppedError, TreeTraining
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


def test_equal_scores_are_one():
    rng = np.random.default_rng(0)
    outcomes = rng.random(5000) < 0.02
    fitted = Calibration.fit(np.full(5000, 0.3), outcomes)
    assert fitted(np.array([0.3]))[0] == pytest.approx(outcomes.mean())


def test_of_nothing_but_chance_nobody_is_the_best():
    """Where columns say nothing, the best tenth is expected to respond as all do."""
    ratios = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x, did = rng.normal(size=(3000, 6)), rng.random(3000) < 0.05
        found = train_response(x, did, QUICK)(rng.normal(size=(3000, 6)))
        ratios.append(np.sort(found)[-300:].mean() / 0.05)
    assert np.mean(ratios) < 1.5


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
    counts, sums = np.zeros((bins, bins)), np.zeros((len(expected), bins, bins))
    np.add.at(counts, (first, second), 1)
    for own, values in zip(sums, expected, strict=True):
        np.add.at(own, (first, second), values)
    return Histogram(counts, sums)


@pytest.fixture
def crowd():
    """Two scores of 4,000 users in 12 bins, what is expected of them, and their ORs."""
    rng = np.random.default_rng(0)
    bins, n = 12, 4000
    first, second = rng.integers(0, bins, n), rng.integers(0, bins, n)
    goal = 0.01 + 0.02 * first / bins + 0.05 * (second / bins) ** 2 + 0.01 * rng.random(n)
    expected = np.stack([goal, 0.3 * goal])
    return first, second, expected, Unions(histogram(first, second, expected, bins))


@pytest.mark.parametrize("size", [1, 100, 1000, 3999])
def test_the_cut_is_the_best_or_that_is_big_enough(crowd, size):
    first, second, expected, unions = crowd
    cut = unions.best(size)
    taken = union(first, second, cut)
    assert taken.sum() == pytest.approx(cut.size)
    assert cut.size >= size
    assert expected[:, taken].sum(1) == pytest.approx(cut.expected)
    for a in range(13):
        for b in range(13):
            other = (first >= a) | (second >= b)
            if other.sum() >= size:
                assert expected[0, other].mean() <= expected[0, taken].mean() + 1e-9


@pytest.mark.parametrize("rate", [0.02, 0.04, 0.06])
def test_a_wanted_rate_is_had_by_the_largest_or(crowd, rate):
    first, second, expected, unions = crowd
    cut = unions.largest(rate)
    taken = union(first, second, cut)
    assert expected[0, taken].mean() >= rate
    for a in range(13):
        for b in range(13):
            other = (first >= a) | (second >= b)
            if other.any() and expected[0, other].mean() >= rate + 1e-9:
                assert other.sum() <= taken.sum()


def test_nobody_is_taken_when_nobody_is_good_enough(crowd):
    first, second, _, unions = crowd
    assert unions.largest(0.9).size == 0
    assert not union(first, second, unions.largest(0.9)).any()
    assert unions.everybody.size == unions.best(10**9).size == 4000


def test_the_curve_has_the_best_or_of_each_size_and_falls(crowd):
    _, _, expected, unions = crowd
    curve = unions.curve(10)
    sizes = [cut.size for cut in curve]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == pytest.approx(4000)
    for cut in curve:
        assert cut.expected[0] == pytest.approx(unions.best(cut.size).expected[0])
    rates = [cut.expected[0] / cut.size for cut in curve]
    assert rates[0] > 1.3 * rates[-1]
    assert rates[-1] == pytest.approx(expected[0].mean())


def test_an_audience_of_nobody_has_a_curve_of_nothing():
    unions = Unions(Histogram(np.zeros((3, 3)), np.zeros((2, 3, 3))))
    assert unions.curve(10) == []
    assert unions.best(10).size == unions.largest(0.1).size == 0


def test_bins_are_even_in_the_logarithm():
    found = bins_of(np.array([0.0, 1e-4, 1e-2, 0.999, 1.0]), 100)
    assert found.tolist() == [0, 0, 50, 99, 99]


def rows_of(members):
    return [row for part in members.parts(3) for row in part.tolist()]


def test_members_survive_packing_and_combine():
    a, b, c = (Members.of_rows(np.array(rows)) for rows in ([5, 1, 9, 70_000], [9, 2, 5], [5, 8]))
    assert rows_of(Members.unpack(a.pack())) == [1, 5, 9, 70_000]
    assert rows_of(Members.any_of([a, b, c])) == [1, 2, 5, 8, 9, 70_000]
    assert rows_of(Members.all_of([a, b, c])) == [5]
    assert rows_of(a.without([b, c])) == [1, 70_000]
    assert a.rows().tolist() == [1, 5, 9, 70_000]
    assert (5 in a, 6 in a, len(a)) == (True, False, 4)
    assert not len(Members.any_of([])) + len(Members.all_of([]))
    with pytest.raises(ValueError, match="no roaring bitmap"):
        Members.unpack(b"half of one")


def test_who_is_drawn_stays_so_and_campaigns_draw_for_themselves():
    users = [f"u{i}" for i in range(100_000)]
    held = drawn(users, 0.1, "c1")
    assert held.mean() == pytest.approx(0.1, abs=0.005)
    assert (drawn(users[500:900], 0.1, "c1") == held[500:900]).all(), "whoever else is there"
    assert held[drawn(users, 0.05, "c1")].all(), "a larger share holds the smaller"
    both = held & drawn(users, 0.1, "c2")
    assert both.mean() == pytest.approx(0.01, abs=0.002)
    assert not drawn(users, 0.0, "").any()


@pytest.fixture
def audience(tmp_path):
    """A Parquet file of users of whom two columns matter, in several row groups."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.random(50_000), "b": rng.random(50_000), "c": [None] * 50_000})
    frame = frame.with_columns(pl.col("c").cast(pl.Float64))
    path = tmp_path / "users.parquet"
    frame.write_parquet(path, row_group_size=7000)
    return path, frame


def scorer(inputs):
    first, second = (0.3 * inputs[:, i].astype(float) ** 9 for i in (0, 1))
    return Scores(first, second, np.stack([(first + second) / 2, first]))


def test_an_audience_is_scored_in_parts_and_the_best_are_taken(audience):
    path, frame = audience
    seen = []
    scored = score_audience(Parts(path, ["a", "b", "c"]), scorer, progress=seen.append)
    assert seen[-1] == 1
    assert scored.histogram.counts.sum() == 50_000
    whole = Unions(scored.histogram).best(5000)
    rows, same = scored.take(whole)
    assert same is whole
    assert 5000 <= len(rows) == whole.size < 5400
    rows, cut = scored.take(whole, 5000)
    assert len(rows) == cut.size == 5000
    assert cut.expected[0] / 5000 >= whole.expected[0] / whole.size
    a, b = (frame[name].to_numpy() for name in "ab")
    expected = 0.15 * (a**9 + b**9)
    assert expected[rows].sum() == pytest.approx(cut.expected[0], rel=1e-3)
    assert (0.3 * a**9)[rows].sum() == pytest.approx(cut.expected[1], rel=1e-3)
    best = np.sort(expected)[::-1][: len(rows)].mean()
    assert expected[rows].mean() > 0.85 * best
    for alone in (a, b):  # one score alone, cut to as many users
        only = np.argsort(-alone)[: len(rows)]
        assert expected[rows].mean() > expected[only].mean()


def test_only_who_is_eligible_is_counted_and_taken(audience):
    path, frame = audience
    eligible = frame["b"].to_numpy() < 0.5
    scored = score_audience(Parts(path, ["a", "b"]), scorer, eligible)
    assert scored.histogram.counts.sum() == eligible.sum()
    rows, cut = scored.take(Unions(scored.histogram).best(1000))
    assert len(rows) == cut.size
    assert eligible[rows].all()


def test_scoring_can_be_called_off_and_needs_its_columns(audience):
    path, _ = audience
    with pytest.raises(StoppedError):
        score_audience(Parts(path, ["a", "b"]), scorer, stopped=lambda: True)
    with pytest.raises(KeyError, match="no column 'z'"):
        Parts(path, ["a", "z"])


def test_training_can_be_called_off():
    rng, x, click = people()
    asked = iter(range(100))
    training = TreeTraining(rounds=120, threads=1, stopped=lambda: next(asked) > 5)
    with pytest.raises(StoppedError):
        train_response(x, rng.random(len(x)) < click, training)


@pytest.mark.parametrize(("between", "sends"), [(0.0, 400), (0.4, 400), (0.4, 20_000)])
def test_what_is_foretold_of_campaigns_holds_as_often_as_it_says(between, sends):
    """Campaigns that differ from what is expected of them: their spread is found again, and the
    intervals that follow from it hold nine new ones in ten."""
    rng = np.random.default_rng(0)
    rate = 0.2
    true = 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) + rng.normal(0, between, 600))))
    came = rng.binomial(sends, true)
    numbers = np.repeat(np.arange(300), sends)
    outcomes = np.concatenate([np.arange(sends) < k for k in came[:300]])
    spread = campaign_spread(np.full(len(numbers), rate), outcomes, numbers)
    assert spread == pytest.approx(between, abs=0.06)
    low, high = foretold(rate, sends, spread)
    new = came[300:] / sends
    assert ((low <= new) & (new <= high)).mean() == pytest.approx(0.9, abs=0.06)


def test_of_nobody_nothing_is_foretold():
    assert foretold(0.2, 0, 0.5) == (0.2, 0.2)
    assert foretold(0.0, 100, 0.5) == (0.0, 0.0)
    assert campaign_spread(np.full(9, 0.1), np.zeros(9), np.zeros(9, int)) == 0.0
