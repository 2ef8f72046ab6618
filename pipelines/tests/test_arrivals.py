"""Patterns without leaks, undersampling, the gate, and the city's arrivals."""

import numpy as np
import polars as pl
import pytest

from madang_eta.orders import Coded
from madang_eta.stage_model import EtaModel
from madang_pipelines.eta.arrivals import live_rows, shops_of
from madang_pipelines.eta.evaluation import evaluate_city, from_samples
from madang_pipelines.eta.scores import crps, paired, score
from madang_pipelines.eta.training import EtaPlan, make_examples
from madang_pipelines.eta.undersample import undersample
from madang_pipelines.gate import GateError, TableRules, check, load_rules


@pytest.fixture(scope="module")
def plan():
    return EtaPlan("standard", shares={})


@pytest.fixture(scope="module")
def frame(city):
    return city.tables.frames["orders"].filter(pl.col("service") == "standard")


@pytest.fixture(scope="module")
def examples(city, frame, plan):
    return make_examples(frame, plan, (frame["period"] < city.tables.test_period).to_numpy())


def test_a_pattern_is_the_mean_of_the_days_before(examples, plan):
    names, days = examples.layout.names(), day_of(examples)
    lines = examples.layout.lines(examples.orders)
    shops = np.array(examples.frame["shop_id"].to_list())
    residual = examples.minutes - lines
    rng, checked = np.random.default_rng(0), 0
    for row in rng.integers(0, len(days), 200).tolist():
        same = (shops == shops[row]) & (days < days[row]) & ~np.isnan(residual[:, 2])
        recent = same & (days >= days[row] - 7)
        wanted = residual[same, 2].sum() / (same.sum() + 20)
        assert at(examples, names, row, "shop.all_residual[2]") == pytest.approx(wanted, abs=1e-4)
        wanted = residual[recent, 2].sum() / (recent.sum() + 10)
        assert at(examples, names, row, "shop.week_residual[2]") == pytest.approx(wanted, abs=1e-4)
        checked += bool(same.sum())
    assert checked > 50


def day_of(examples):
    days = (examples.orders.time_ms + 9 * 3_600_000) // 86_400_000
    return days - days.min()


def at(examples, names, row, column):
    return float(examples.inputs[row, names.index(column)])


def test_an_order_never_knows_its_own_minutes(city, frame, plan, examples):
    changed = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 1000).then(200.0).otherwise("delivery").alias("delivery")
    )
    learn = (frame["period"] < city.tables.test_period).to_numpy()
    other = make_examples(changed, plan, learn, layout=examples.layout)
    differs = (other.inputs != examples.inputs) & ~np.isnan(examples.inputs)
    rows = np.flatnonzero(differs.any(1))
    assert len(rows), "later days know it"
    assert (day_of(examples)[rows] > day_of(examples)[1000]).all()


def test_what_the_store_serves_is_what_training_would_have_read(city, frame, plan, examples):
    """On the first day after the training, the rows that it published are those days' patterns."""
    day = int(day_of(examples)[examples.weights > 0].max()) + 1
    rows = np.flatnonzero(day_of(examples) == day)
    published = {row["entity_id"]: row for row in examples.means.rows(day).iter_rows(named=True)}
    names = examples.layout.names()
    assert len(published) > 300
    for row in rows[:50].tolist():
        stored = published.get(f"standard/shop/{frame['shop_id'][row]}")
        for column in ("all_residual", "all_ratio", "all_spread", "week_residual", "day_residual"):
            for stage in range(3):
                wanted = stored[column][stage] if stored else 0.0
                found = at(examples, names, row, f"shop.{column}[{stage}]")
                assert found == pytest.approx(wanted, abs=1e-6)


def test_folds_leave_their_own_out_where_there_is_no_time():
    minutes = np.array([[10.0], [20.0], [30.0], [40.0]])
    frame = pl.DataFrame(
        {
            "order_id": list("abcd"),
            "shop_id": ["s"] * 4,
            "time": [0] * 4,
            "origin_latitude": [37.5] * 4,
            "origin_longitude": [127.0] * 4,
            "latitude": [37.5] * 4,
            "longitude": [127.0] * 4,
            "delivery": minutes[:, 0],
        }
    )
    plan = EtaPlan(
        "x", stages=("delivery",), patterns=("shop",), horizons=("all",), live={}, shares={}
    )
    learn = np.array([True, True, True, False])
    made = make_examples(frame, plan, learn, folds=np.array([0, 1, 1, 9]))
    column = made.inputs[:, made.layout.names().index("shop.all_residual[0]")]
    line = made.layout.lines(made.orders)[0, 0]
    assert column.tolist() == pytest.approx(
        [
            (20 - line + 30 - line) / 22,
            (10 - line) / 21,
            (10 - line) / 21,
            (10 - line + 20 - line + 30 - line) / 23,
        ],
        abs=1e-5,
    )


def test_undersampling_keeps_the_same_orders_and_sums_without_bias():
    ids = pl.Series([f"o{i}" for i in range(40_000)])
    ages = np.repeat([0, 10, 20, 40], 10_000)
    kept, _ = undersample(ids, ages, {14: 0.5, 28: 0.1})
    assert kept[:20_000].all()
    assert kept[20_000:30_000].mean() == pytest.approx(0.5, abs=0.02)
    assert kept[30_000:].mean() == pytest.approx(0.1, abs=0.02)
    value, sums = np.random.default_rng(0).gamma(2, 5, 40_000) + ages, []
    for draw in range(10):
        others, worth = undersample(f"{draw}-" + ids, ages, {14: 0.5, 28: 0.1})
        sums.append((value * worth * others).sum())
    assert np.mean(sums) == pytest.approx(value.sum(), rel=0.01)
    again, _ = undersample(ids[::-1], ages[::-1], {14: 0.5, 28: 0.1})
    assert again[::-1].tolist() == kept.tolist()
    with pytest.raises(ValueError, match="within"):
        undersample(ids, ages, {3: 0.0})


def test_the_gate_sets_rows_aside_and_says_why(frame):
    bad = frame.with_columns(
        delivery=pl.when(pl.int_range(pl.len()) == 3).then(-5.0).otherwise("delivery"),
        dispatch=pl.when(pl.int_range(pl.len()) == 5).then(float("nan")).otherwise("dispatch"),
        order_id=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("o0")).otherwise("order_id"),
    )
    first = bad["order_id"][0]
    bad = bad.with_columns(
        order_id=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit(first)).otherwise("order_id")
    )
    kept, rejected = check("orders", bad, load_rules("orders"))
    assert len(kept) == len(bad) - 3
    assert sorted(rejected.rows) == [
        (4, "delivery is below 0"),
        (6, "dispatch is not finite"),
        (8, "order_id is there twice"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.lit(None, pl.Float64).alias("delivery"), "delivery: 100.0% of .* null, at most 10.0%"),
        (pl.lit(-1.0).alias("dispatch"), "dispatch: is below 0 in .* the first in row 1"),
        (pl.lit(0.0).alias("delivery") + pl.col("latitude") * 0, "faster than 120 km/h"),
        (pl.lit("x").alias("rain"), "rain: is String, must be Float64"),
    ],
)
def test_the_gate_refuses_a_table(frame, change, message):
    rules = load_rules("orders")
    rules.columns["rain"].dtype = "Float64"
    with pytest.raises(GateError, match=message):
        check("orders", frame.with_columns(change), rules)


def test_the_gate_needs_columns_and_rows(frame):
    with pytest.raises(GateError, match="has no column 'time'"):
        check("orders", frame.drop("time"), load_rules("orders"))
    with pytest.raises(GateError, match="needs at least 500"):
        check("orders", frame.head(20), load_rules("orders"))
    rules = TableRules.model_validate({"columns": {"service": {"among": ["moon"]}}, "failing": 1})
    with pytest.raises(GateError, match="0 good rows"):
        check("orders", frame, rules)


def test_scores_are_right_where_the_answer_is_known():
    rng = np.random.default_rng(0)
    minutes = rng.uniform(0, 60, 20_000)
    even = np.full((1, 60), 1 / 60).repeat(len(minutes), axis=0)
    found = score("even", even, minutes)
    assert found.crps.mean() == pytest.approx(60 / 6 * 60, rel=0.02), "a sixth of the range"
    assert found.coverage == pytest.approx((0.5, 0.8, 0.9), abs=0.01)
    assert found.width == pytest.approx((1800, 2880, 3240), rel=0.01)
    assert found.window[0] == pytest.approx(1 / 6, abs=0.01)
    assert np.histogram(found.pit, 10, (0, 1))[0].tolist() == pytest.approx([2000] * 10, rel=0.1)
    late = crps(np.array([[1.0, 0.0]]), np.array([10.0]))
    assert late[0] == pytest.approx(9.5, abs=0.3), "being far beyond the last minute costs"
    worse = score("half", np.full((1, 30), 1 / 30).repeat(len(minutes), axis=0), minutes)
    low, high = paired(found, worse)
    assert low < high < 0


def test_samples_become_distributions():
    pmf = from_samples(np.array([[0.5, 1.5, 1.9, 99]]), 3)
    assert pmf.tolist() == [[0.25, 0.5, 0.25]]


def test_the_citys_arrivals_beat_simple_ones_and_the_dependence_matters(city, plan):
    scores, fitted = evaluate_city(city.tables, city.deliveries, plan)
    found = {s.name: s for s in scores}
    mean = {name: s.crps.mean() for name, s in found.items()}
    assert mean["oracle"] < mean["ours"] < mean["distance line"] < mean["constant"]
    assert fitted.correlations[0, 1] > 0.2
    apart = {name: abs(found[name].coverage[1] - 0.8) for name in found}
    assert apart["ours"] < apart["ours, stages independent"] - 0.05
    assert apart["ours"] < 0.05


def test_the_published_model_knows_all_shops_and_ads(city, workspace):
    registry = workspace.registry
    items = set(city.tables.frames["items"]["item_id"])
    models = [
        EtaModel(registry.load(n, registry.resolve(n))) for n in ("eta-standard", "eta-express")
    ]
    known = [set(model.shops.ids) for model in models]
    assert known[0] | known[1] == items
    assert not known[0] & known[1]
    assert {m.service for m in models} == set(shops_of(city.tables, city.tables.frames["orders"]))
    pairs = sum(len(m.shops.pair_rows) for m in models)
    assert pairs > 5000


def test_live_rows_are_the_last_known(frame):
    rows = live_rows(frame)["eta_shop"]
    last = frame.sort("time").group_by("shop_id").last()
    wanted = dict(last.select("shop_id", "cooking").iter_rows())
    assert dict(rows.iter_rows()) == wanted


def test_a_pattern_of_nobody_is_nothing():
    means = Coded.of(["", "a"])
    assert means.with_(Coded.of(["x", "x"])).values == ["", "a+x"]
