"""The city, check-ins, features, training and evaluation."""

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest
import torch

from madang_candidate.train import TowerTraining
from madang_pipelines.city.simulate import CitySize, simulate
from madang_pipelines.evaluation import evaluate_city, ranking_metrics
from madang_pipelines.examples import Snapshots, dcn_examples
from madang_pipelines.features import FeatureBuilder, model_features
from madang_pipelines.tables import SCHEMAS
from madang_pipelines.training import Recipe, quick, train_all
from madang_ranker.model import Dcn, DcnConfig
from madang_ranker.train import DcnTraining, export, predict, tensors
from madang_runtime.models.inputs import columns_of
from madang_runtime.models.registry import ModelRegistry

TINY = CitySize(users=120, shops=600, ads=20, seed=5)


def test_the_same_seed_gives_the_same_city():
    one, two = simulate(TINY), simulate(TINY)
    for name in SCHEMAS:
        assert one.tables.frames[name].equals(two.tables.frames[name])
    assert not one.tables.frames["actions"].equals(
        simulate(CitySize(users=120, shops=600, ads=20, seed=6)).tables.frames["actions"]
    )


def test_no_latent_value_reaches_a_table(city):
    latents = [
        city.truth.item_quality,
        city.truth.price_pull,
        city.truth.distance_pull,
        *city.truth.item_taste.T,
        *city.truth.user_taste.T,
    ]
    for frame in city.tables.frames.values():
        for column in frame.select(pl.selectors.numeric()).iter_columns():
            values = column.to_numpy()
            for latent in latents:
                assert len(latent) != len(values) or not np.allclose(values, latent)


def test_orders_follow_clicks_and_ads_keep_to_their_budgets(city):
    frames = city.tables.frames
    assert frames["impressions"].filter(pl.col("ordered") & ~pl.col("clicked")).is_empty()
    assert frames["impressions"].filter(pl.col("hidden") & pl.col("clicked")).is_empty()
    ads = frames["items"].filter(pl.col("kind") == 2).select("item_id", "bid", "daily_budget")
    shown = (
        frames["impressions"]
        .join(ads, "item_id")
        .join(frames["sessions"].select("session_id", "time"), "session_id")
        .with_columns(day=(pl.col("time") + 9 * 3_600_000) // 86_400_000)
        .group_by("item_id", "day")
        .agg(spent=0.1 * pl.col("bid").sum(), budget=pl.col("daily_budget").first())
    )
    overspent = shown.filter(pl.col("spent") > pl.col("budget") * 1.1 + 100)
    assert len(shown) > 10
    assert overspent.is_empty()


def test_features_are_those_of_the_past_only(city):
    builder = FeatureBuilder(city.tables)
    columns = {
        (view, dtype): columns_of(model_features(), view, dtype)
        for view in ("user_profile", "item_profile")
        for dtype in ("INT64", "FLOAT32")
    }
    actions = city.tables.frames["actions"]
    user = actions["user_id"].value_counts(sort=True)["user_id"][0]
    row = city.tables.frames["users"]["user_id"].to_list().index(user)
    item_ids = city.tables.frames["items"]["item_id"].to_list()
    for period in (0, 2, 4):
        past = actions.filter((pl.col("user_id") == user) & (pl.col("period") < period))
        orders = past.filter(pl.col("type") == "order").sort("time", maintain_order=True)
        rows = builder.users(period)
        floats = columns["user_profile", "FLOAT32"]
        ints = columns["user_profile", "INT64"]
        assert rows.floats[row, floats["orders"]] == pytest.approx(np.log1p(len(orders)))
        assert np.isnan(rows.floats[row, floats["mean_price"]][0]) == orders.is_empty()
        last = [item_ids.index(i) + 1 for i in orders["item_id"].to_list()[::-1][:5]]
        assert rows.ints[row, ints["last_items"]].tolist() == last + [0] * (5 - len(last))
        weight = {"order": 1.0, "click": 0.25}
        totals: dict[str, float] = {}
        for item, kind in past.select("item_id", "type").iter_rows():
            totals[item] = totals.get(item, 0) + weight[kind]
        best = sorted(totals.values(), reverse=True)[:20]
        assert rows.floats[row, floats["top_item_counts"]][: len(best)] == pytest.approx(best)
    first = builder.items(0).floats[:, columns["item_profile", "FLOAT32"]["click_rate"]]
    assert np.isnan(first).all(), "nothing was shown before the first period"


@pytest.fixture(scope="module")
def dcn(city):
    """A small DCN with its examples."""
    builder = FeatureBuilder(city.tables)
    snapshots = Snapshots.of(builder, city.tables.periods)
    examples = dcn_examples(city.tables, builder, snapshots, range(1, 4))
    torch.manual_seed(0)
    config = DcnConfig(501, 431, 17, 26, cross_layers=2)
    return Dcn(config, model_features(), ("user_profile", "item_profile")).eval(), examples


def test_the_fewer_there_are_the_more_embeddings_shrink():
    how = DcnTraining(shrink_by_rows=150.0)
    assert how.shrink(150_000) == pytest.approx(1e-3)
    assert how.shrink(1_500_000) == pytest.approx(1e-4)
    assert how.shrink(10) == 1e-2, "no more than was tried"


def test_the_next_item_is_judged_by_its_place():
    shown, wanted = np.array([5, 3, 9]), np.array([9, 5])
    found = ranking_metrics(shown, wanted, ordered=True)
    best = 1 + 1 / np.log2(3)
    assert found == pytest.approx(
        {"next@10": 1, "next NDCG@10": 0.5, "Recall@10": 1, "NDCG@10": 1.5 / best}
    )
    assert list(ranking_metrics(shown, wanted, ordered=False)) == ["Recall@10", "NDCG@10"]


def test_the_exported_dcn_scores_as_torch_does(dcn):
    model, examples = dcn
    rows = np.arange(300)
    session = ort.InferenceSession(export(model, examples))
    names = [i.name for i in session.get_inputs()]
    arguments = [t.numpy() for t in tensors(examples, rows)]
    found = session.run(["click", "order", "hide"], dict(zip(names, arguments, strict=True)))
    assert np.stack(found, axis=1) == pytest.approx(predict(model, examples)[:300], abs=1e-5)


def test_the_common_part_computed_once_changes_nothing(dcn):
    model, examples = dcn
    rows = np.flatnonzero(examples.session == examples.session[0])
    many = tensors(examples, rows)
    once = (*(t[:1] for t in many[:4]), *many[4:6], torch.zeros(len(rows), dtype=torch.int64))
    with torch.no_grad():
        assert torch.allclose(model(*once)[0], model(*many)[0], atol=1e-6)


def test_models_are_better_than_popularity_and_worse_than_the_oracle(city, tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    recipe = Recipe(
        towers=TowerTraining(epochs=6, batch=256, steps=1, uniform_negatives=128),
        dcn=DcnTraining(epochs=3, batch=1024, steps=1),
        dcn_sizes=quick().dcn_sizes,
    )
    train_all(city.tables, registry, recipe)
    results = evaluate_city(city.tables, city.truth, registry, 300)
    orders = {r.name: r.metrics["orders a feed"] for r in results}
    assert orders["ours"][0] - orders["ours"][1] > orders["popularity"][0]
    assert orders["oracle"][0] > orders["ours"][0]
