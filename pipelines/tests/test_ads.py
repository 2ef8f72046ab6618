"""The embedding networks of ads."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest
import torch

from madang_candidate.ad_train import AdExamples, AdTraining, train_ads
from madang_candidate.model import TowerConfig
from madang_candidate.train import export_items, export_users, item_vectors
from madang_pipelines.examples import Snapshots, ad_examples, dcn_examples
from madang_pipelines.features import FeatureBuilder, model_features
from madang_pipelines.publish import campaign_upserts, saved_campaigns, with_ended
from madang_runtime.models.inputs import InputRows

VIEWS = ("user_profile", "item_profile")


def some(examples, rows):
    """Some of the impressions."""
    context = examples.context
    return replace(
        examples,
        user_row=examples.user_row[rows],
        item_row=examples.item_row[rows],
        context=InputRows(context.ints[rows], context.floats[rows]),
        clicked=examples.clicked[rows],
    )


@pytest.fixture(scope="module")
def data(city):
    """Impressions to train on, and later ones."""
    builder = FeatureBuilder(city.tables)
    snapshots = Snapshots.of(builder, city.tables.periods)
    return [
        ad_examples(
            dcn_examples(city.tables, builder, snapshots, range(*periods)), snapshots, periods[0]
        )
        for periods in ((1, 4), (4, 5))
    ]


@pytest.fixture(scope="module")
def networks(data):
    config = TowerConfig(501, 431, 17, 26, dimension=16)
    return train_ads(data[0], config, model_features(), VIEWS, AdTraining(epochs=4, batch=256))


def vectors(networks, examples: AdExamples):
    """The vectors of each impression's user and context, and of its item."""
    users, items, context = examples.users, examples.items, examples.context
    asked = (
        users.ints[examples.user_row],
        users.floats[examples.user_row],
        context.ints,
        context.floats,
    )
    shown = InputRows(items.ints[examples.item_row], items.floats[examples.item_row])
    with torch.no_grad():
        query = networks.query(*map(torch.from_numpy, asked)).numpy()
    return query, item_vectors(networks.ad, shown), asked, shown


def test_what_is_clicked_is_near_and_what_is_not_is_apart(networks, data):
    later = data[1]
    query, ad, _, _ = vectors(networks, later)
    near = (query * ad).sum(1)
    clicked, passed = near[later.clicked], near[~later.clicked]
    ranks = np.searchsorted(np.sort(passed), clicked)
    assert ranks.mean() / len(passed) > 0.65, "the area under the ROC curve"


def test_of_all_items_those_are_near_that_a_user_would_open(networks, data, city):
    """Most of which were never shown at the user's place."""
    later = some(data[1], np.arange(0, len(data[1].clicked), 40))
    query, _, _, _ = vectors(networks, later)
    users, items = len(city.tables.frames["users"]), len(city.tables.frames["items"])
    catalogue = 4 * items + np.arange(items)
    rows = InputRows(later.items.ints[catalogue], later.items.floats[catalogue])
    kept = np.argsort(-(query @ item_vectors(networks.ad, rows).T), axis=1)[:, : items // 10]
    truth, _ = city.truth.probabilities(
        later.user_row[:, None] % users,
        np.arange(items)[None, :],
        later.context.ints[:, :1],
        later.context.floats[:, None, :].astype(np.float64),
    )
    best = np.argsort(-truth, axis=1)[:, :10]
    found = np.mean([np.isin(b, k).mean() for b, k in zip(best, kept, strict=True)])
    assert found > 0.3, "a tenth by chance"


def test_vectors_have_length_one_and_are_exported_as_they_are(networks, data):
    examples = some(data[1], np.arange(50))
    query, ad, asked, shown = vectors(networks, examples)
    assert np.linalg.norm(query, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(ad, axis=1) == pytest.approx(1, abs=1e-5)
    for content, arguments, expected in (
        (export_users(networks.query, examples.users, examples.context), asked, query),
        (export_items(networks.ad, examples.items), (shown.ints, shown.floats), ad),
    ):
        session = ort.InferenceSession(content)
        names = [i.name for i in session.get_inputs()]
        given = {n: a for n, a in zip(NAMES[len(arguments)], arguments, strict=True) if n in names}
        (found,) = session.run(["vector"], given)
        assert found == pytest.approx(expected, abs=1e-5)


NAMES = {
    4: ("user_ints", "user_floats", "context_ints", "context_floats"),
    2: ("ints", "floats"),
}


def test_campaigns_that_a_training_has_no_more_are_ended(tmp_path):
    def campaigns(*ids):
        return pl.DataFrame({"item_id": ids, "bid": 2.5, "daily_budget": 10.0})

    first = with_ended(campaigns("a", "b"), tmp_path / "c")
    assert first["ended"].to_list() == [False, False]
    first.write_parquet(tmp_path / "c")
    second = with_ended(campaigns("b", "c"), tmp_path / "c")
    assert [(c.item_id, c.bid_micros, c.ended) for c in campaign_upserts(second)] == [
        ("b", 2_500_000, False),
        ("c", 2_500_000, False),
        ("a", 2_500_000, True),
    ]
    assert campaign_upserts(saved_campaigns(tmp_path)) == []


def test_an_unknown_ad_and_a_newcomer_have_vectors(networks, data):
    examples = data[1]
    nothing = InputRows(
        np.zeros_like(examples.items.ints[:1]), np.full_like(examples.items.floats[:1], np.nan)
    )
    vector = item_vectors(networks.ad, nothing)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
