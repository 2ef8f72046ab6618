"""Arrivals from anyone's orders."""

import numpy as np
import polars as pl
import pytest

from madang.common.v1 import tensor_pb2
from madang_eta.stage_model import EtaModel
from madang_eta.train import StageTraining
from madang_pipelines.eta.frames import orders_of
from madang_pipelines.features import load_views
from madang_pipelines.imports.importing import Imported
from madang_pipelines.imports.mapping import MappingError
from madang_pipelines.own.orders import OrderPlan, train_orders
from madang_pipelines.own.report import OURS
from madang_pipelines.publish import feature_blocks
from madang_runtime.models.registry import ModelRegistry

NULL = tensor_pb2.FEATURE_STATUS_NULL
QUICK = OrderPlan((StageTraining(epochs=8, members=1, hidden=(32,)),), members=1, simple=False)
_DAY_MS = 86_400_000


def orders(n: int = 2000, dated: bool = True, **more) -> Imported:
    """Minutes by distance, doubled in rain."""
    rng = np.random.default_rng(0)
    place = rng.uniform([37.45, 126.95], [37.55, 127.05], (n, 2))
    km = np.hypot(*((place - [37.5, 127.0]) * [111.2, 88.0]).T)
    rain = rng.random(n) < 0.3
    minutes = (5 + 3 * km) * np.where(rain, 2, 1) * rng.lognormal(0, 0.15, n)
    start = 1_700_000_000_000 if dated else 0
    columns = {
        "shop": [f"s{i}" for i in rng.integers(0, 8, n)],
        "time": start + np.arange(n) * _DAY_MS // 100,
        "origin_latitude": 37.5,
        "origin_longitude": 127.0,
        "latitude": place[:, 0],
        "longitude": place[:, 1],
        "minutes": minutes,
        "part": "",
        "sky": ["rain" if wet else "sun" for wet in rain],
        "age": rng.integers(18, 60, n).astype(float),
    }
    frame = pl.DataFrame(columns | more)
    return Imported(frame.drop([c for c, v in more.items() if v is None]), ["age"], ["sky"])


def registry(folder) -> ModelRegistry:
    """An empty one."""
    return ModelRegistry(f"file://{folder}")


@pytest.mark.parametrize("dated", [True, False])
def test_arrivals_read_what_is_known(tmp_path, dated):
    plan = OrderPlan(QUICK.tries, members=1)
    models = registry(tmp_path)
    (report,), views = train_orders("mine", orders(dated=dated), 9.0, models, plan)
    crps = {side: own["CRPS s"].value for side, own in report.scores.items()}
    assert crps[OURS] < 0.8 * crps["constant"], "rain and distance tell a lot"
    assert ("last by time" if dated else "drawn by chance") in report.judged
    assert "400 orders" in report.judged
    files = models.load("eta-standard", report.versions["eta-standard"])
    model = EtaModel(files)
    assert "sky=rain" in model.layout.numbers
    assert b"sky=rain" in files.files["card.md"]
    assert files.manifest.metrics["crps_seconds"] == crps[OURS]
    rows = views["eta_pattern"]
    assert rows["entity_id"].str.starts_with("standard/shop/s").any()
    assert (rows["week_residual"].null_count() == 0) == dated, "without dates none is recent"
    assert rows["all_residual"].null_count() == 0
    (block,) = feature_blocks(load_views()["eta_pattern"], rows)
    assert (NULL in block.statuses) != dated


def test_stages_make_one_distribution(tmp_path):
    table = orders(600)
    half = pl.col("minutes") / 2
    frame = table.frame.with_columns(pickup=half, delivery=half).drop("minutes")
    staged = Imported(frame, table.numbers, table.categories)
    models = registry(tmp_path)
    (report,), _ = train_orders("mine", staged, None, models, QUICK)
    assert report.chosen["stages"] == "pickup, delivery"
    assert EtaModel(models.load("eta-standard", report.versions["eta-standard"])).stages


def test_what_is_not_known_may_be_missing(tmp_path):
    """No places, no times, no shops: still a distribution."""
    table = orders(600)
    frame = table.frame.select("minutes", "part", "sky", "age")
    (report,), _ = train_orders(
        "mine", Imported(frame, ["age"], ["sky"]), None, registry(tmp_path), QUICK
    )
    assert report.scores[OURS]["CRPS s"].value > 0


def test_absurd_places_do_not_bend_the_line():
    from madang_pipelines.own.orders import _with_distances  # noqa: PLC0415

    frame = orders(100).frame.with_columns(
        latitude=pl.when(pl.int_range(100) < 5).then(-80.0).otherwise("latitude"),
        distance_km=pl.lit(None, pl.Float64()),
    )
    km = _with_distances(frame)["distance_km"]
    assert km.max() < 20
    assert not km.null_count()
    assert len(orders_of(frame)) == 100


def test_a_given_test_part_is_held_out(tmp_path):
    part = pl.Series(["train"] * 500 + ["test"] * 100)
    table = orders(600)
    split = Imported(table.frame.with_columns(part=part), table.numbers, table.categories)
    (report,), _ = train_orders("mine", split, None, registry(tmp_path), QUICK)
    assert report.judged == "The 100 orders of the given test part."


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (orders(100), "at least 500"),
        (orders(600, minutes=None), "needs minutes"),
        (orders(600, minutes=5000.0), "give minutes its unit"),
        (orders(600, service="bicycle"), "'bicycle' is none of"),
    ],
)
def test_what_can_not_be_learned_from(tmp_path, table, said):
    models = registry(tmp_path)
    with pytest.raises(MappingError) as refused:
        train_orders("mine", table, None, models, QUICK)
    assert said in str(refused.value)
    assert not models.names()
