"""The city, check-ins, features, training and evaluation."""

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest
import torch

from madang_candidate.train import TowerTraining
from madang_pipelines.city.simulate import CitySize, simulate
from madang_pipelines.evaluation import evaluate_checkins, evaluate_city
from madang_pipelines.examples import Snapshots, dcn_examples
from madang_pipelines.features import FeatureBuilder, model_features
from madang_pipelines.sources.checkins import MissingFilesError, load_checkins
from madang_pipelines.tables import SCHEMAS
from madang_pipelines.training import RANKER, Recipe, quick, train_all
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


def write_checkins(folder, **changes):
    files = {
        "train.txt": "7 0 1 1 0 2\n8 1 1 1 2 1\n",
        "time_train.txt": "7 100 200 300 400 500\n8 100 200 300 400 500\n",
        "test.txt": "7 1\n8 2 1\n",
        "time_test.txt": "7 600\n8 600 700\n",
        "location.txt": "0 30.1 -97.7\n1 30.2 -97.8\n2 30.3 -97.6\n",
        "cat.txt": "0 5\n1 6\n2 5\n",
    } | changes
    for name, text in files.items():
        (folder / name).write_text(text)


def test_checkins_become_tables(tmp_path):
    write_checkins(tmp_path)
    tables = load_checkins(tmp_path)
    assert [len(tables.frames[n]) for n in ("users", "items", "actions")] == [2, 3, 13]
    assert not any(q.rows for q in tables.quality)
    held_out = tables.frames["sessions"].filter(pl.col("period") == tables.test_period)
    assert held_out["time"].to_list() == [600_000, 600_000]
    assert held_out["latitude"].to_list() == [30.3, 30.2], "where the history ends"
    past = tables.frames["sessions"].filter(pl.col("period") < tables.test_period)
    assert len(past) > 0
    assert past["period"].min() == 1, "features need a past"


def test_bad_lines_are_set_aside_with_number_and_reason(tmp_path):
    write_checkins(
        tmp_path,
        **{
            "train.txt": "7 0 1 1 0 2\n8 1\n\n7 0\n9 0 77 0 0 0 0\n",
            "time_train.txt": "7 100 200 300 400 500\n8 1 2\n9 1 2 3 4 x 6\n",
            "location.txt": "0 30.1 -97.7\n1 95.0 0\n2 x y\n1 30.2 -97.8\n1 1 1\n2 30 -97\n",
            "cat.txt": "0 5\n44 1\nx\n",
        },
    )
    tables = load_checkins(tmp_path)
    found = {q.source: sorted(q.rows) for q in tables.quality}
    assert found["location.txt"] == [
        (2, "off the map"),
        (3, "not an item with two coordinates"),
        (5, "item given twice"),
    ]
    assert found["cat.txt"] == [(2, "item without a location"), (3, "not an item with a category")]
    assert found["train.txt"] == [
        (2, "as many items as times in time_train.txt are needed"),
        (3, "empty line"),
        (4, "user given twice"),
        (5, "item without a location"),
        (5, "time is not in unix seconds"),
    ]
    tables.save(tmp_path / "out")
    aside = pl.read_ndjson(tmp_path / "out" / "set_aside.jsonl")
    assert len(aside) == sum(len(q.rows) for q in tables.quality)


def test_missing_files_are_named(tmp_path):
    write_checkins(tmp_path)
    (tmp_path / "cat.txt").unlink()
    with pytest.raises(MissingFilesError, match=r"cat\.txt"):
        load_checkins(tmp_path)


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
        towers=TowerTraining(epochs=6, batch=256, uniform_negatives=128),
        dcn=DcnTraining(epochs=3, batch=1024),
        dcn_sizes=quick().dcn_sizes,
    )
    train_all(city.tables, registry, recipe)
    results = evaluate_city(city.tables, city.truth, registry, 300)
    orders = {r.name: r.metrics["orders a feed"] for r in results}
    assert orders["ours"][0] - orders["ours"][1] > orders["popularity"][0]
    assert orders["oracle"][0] > orders["ours"][0]


def test_checkins_are_trained_and_judged_by_the_same_path(tmp_path):
    rng = np.random.default_rng(0)
    users, items = 60, 40
    home = rng.integers(0, items, (users, 3))
    lines = {n: [] for n in ("train.txt", "time_train.txt", "test.txt", "time_test.txt")}
    for u in range(users):
        visits = [home[u, rng.integers(3)] if rng.random() < 0.7 else rng.integers(items)
                  for _ in range(40)]  # fmt: skip
        times = np.sort(rng.integers(1e9, 1e9 + 1e7, 40))
        for part, span in (("train", slice(0, 30)), ("test", slice(30, 40))):
            lines[f"{part}.txt"].append(f"{u} {' '.join(map(str, visits[span]))}")
            lines[f"time_{part}.txt"].append(f"{u} {' '.join(map(str, times[span]))}")
    places = [f"{i} {30 + rng.random():.4f} {-97 + rng.random():.4f}" for i in range(items)]
    write_checkins(
        tmp_path,
        **{name: "\n".join(text) + "\n" for name, text in lines.items()},
        **{
            "location.txt": "\n".join(places),
            "cat.txt": "\n".join(f"{i} {i % 7}" for i in range(items)),
        },
    )
    tables = load_checkins(tmp_path)
    registry = ModelRegistry(f"file://{tmp_path}/models")
    recipe = Recipe(
        towers=TowerTraining(epochs=6, batch=64, uniform_negatives=32),
        dcn=DcnTraining(epochs=6, batch=256),
        dcn_sizes=quick().dcn_sizes,
    )
    trained = train_all(tables, registry, recipe)
    assert registry.manifest(RANKER, trained.versions[RANKER]).parameters["data"] == "check-ins"
    results = {r.name: r.metrics for r in evaluate_checkins(tables, registry, 50)}
    assert results["ours"]["Recall@10"][0] > results["popularity"]["Recall@10"][0]
    assert set(results) == {"popularity", "repeat-visit", "cohort lists", "ours"}
