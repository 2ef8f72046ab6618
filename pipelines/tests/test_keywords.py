"""Keywords: what they are learned from, and what is learned."""

from copy import copy

import numpy as np
import polars as pl
import pytest
import torch

from madang.feature.v1 import feature_store_pb2 as f
from madang_pipelines.search.keywords.batch import BatchKeywords, Correction, ranks, reciprocal_rank
from madang_pipelines.search.keywords.log import LONGEST, keyword_log, sequences
from madang_pipelines.search.keywords.node2vec import Graph, Node2Vec, node_vectors
from madang_pipelines.search.keywords.training import (
    batch_keywords,
    graph_vectors,
    new_model,
    searched_items,
    train_keywords,
    user_lists,
)
from madang_pipelines.tables import SCHEMAS, Tables
from madang_runtime.models.registry import CHAMPION
from madang_search.keywords.model import KeywordModel, Step, keyword_code
from madang_search.keywords.sequence import SequenceTraining, train_sequence
from madang_search.settings import KEYWORDS

HOUR = 3_600_000


@pytest.fixture(scope="module")
def log(city):
    return keyword_log(city.tables)


@pytest.fixture(scope="module")
def batch(log):
    return BatchKeywords(log, range(1, log.tables.test_period))


@pytest.fixture(scope="module")
def tastes():
    """Four items, and people who click on one of them all their life, each time before they search
    for one of its five keywords and order it."""
    random, searches, actions = np.random.default_rng(0), [], []
    users, items = [f"u{n}" for n in range(240)], [f"s{n}" for n in range(4)]
    for period in range(3):
        for at, user in enumerate(users):
            item, time = items[at % 4], (10 * period + 1) * HOUR
            searches.append((user, f"{item} {random.integers(5)}", time, item, period))
            actions += [
                (user, item, "click", time - 60_000, period),
                (user, item, "order", time + 60_000, period),
            ]
    return keyword_log(little(searches, actions, users, items))


def little(searches, actions, users=("u1", "u2"), items=("s1", "s2")):
    """Tables of a few searches and actions on items of a category each; period 2 is held out."""
    frames = {
        "users": [{"user_id": user} for user in users],
        "items": [{"item_id": item, "category": at} for at, item in enumerate(items, 1)],
        "searches": [
            dict(zip(("user_id", "query", "time", "item_id", "period"), row, strict=True))
            for row in searches
        ],
        "actions": [
            dict(zip(("user_id", "item_id", "type", "time", "period"), row, strict=True))
            for row in actions
        ],
    }
    frames = {name: pl.DataFrame(frames.get(name, []), schema) for name, schema in SCHEMAS.items()}
    return Tables("little", frames, None, 3)


def test_the_log_knows_nothing_of_the_held_out_period():
    told = [("u1", " A  b", 1, "s1", 0), ("u1", "c", 2, "s1", 1), ("u1", "A b", 3, "s2", 1)]
    log = keyword_log(little([*told, ("u2", "later", 4, "s1", 2), ("u2", "c", 5, "s1", 2)], []))
    assert (log.keywords, log.popularity.tolist()) == (["a b", "c"], [2, 1])
    assert log.searches["keyword"].to_list() == [0, 1, 0, 1], "no keyword, no row"
    assert searched_items(log).rows() == [(0, 3, 1), (1, 3, 1), (0, 4, 1)]


def test_a_search_follows_from_what_was_done_within_the_hour_before():
    searches = [("u1", "a", 2 * HOUR, "s1", 0), ("u1", "b", 2 * HOUR + 5, "s1", 1)]
    actions = [
        ("u1", "s1", "click", HOUR - 1, 0),  # too old
        ("u1", "s2", "click", HOUR, 0),
        ("u1", "s1", "order", 2 * HOUR - 1, 0),
        ("u1", "s1", "click", 2 * HOUR, 0),  # at the same time: not before
        ("u2", "s1", "click", HOUR, 0),
        ("u1", "gone", "click", HOUR + 1, 0),
    ]
    log = keyword_log(little(searches, actions))
    found = sequences(log, [0])
    assert found.keywords.tolist() == [0]
    assert found.nodes.tolist() == [[0] * (LONGEST - 2) + [4, 3]]
    assert found.kinds.tolist() == [
        [0] * (LONGEST - 2) + [f.ACTION_TYPE_CLICK, f.ACTION_TYPE_ORDER]
    ]
    later = sequences(log, [1])
    assert later.nodes[0].tolist()[-4:] == [0, 3, 1, 3], "the search before is an action"
    assert later.kinds[0, -2] == f.ACTION_TYPE_SEARCH
    many = [("u1", "s2", "click", HOUR + n, 0) for n in range(LONGEST + 5)]
    assert (sequences(keyword_log(little(searches, many)), [0]).nodes > 0).all()


def test_a_graph_is_walked_along_its_edges_by_their_weights():
    # 0 - 1 (weight 9), 0 - 2 (weight 1), 1 - 2, 3 alone.
    graph = Graph(4, np.array([0, 0, 1]), np.array([1, 2, 2]), np.array([9.0, 1.0, 1.0]))
    random = np.random.default_rng(0)
    walks = graph.walk(np.zeros(20_000, np.int64), Node2Vec(length=3), random)
    assert np.mean(walks[:, 1] == 1) == pytest.approx(0.9, abs=0.01)
    # From 1, come from 0: back has weight 9 / p, and 2, which 0 is linked to, 1.
    how = Node2Vec(length=3, back=4.0, away=0.5)
    walks = graph.walk(np.zeros(20_000, np.int64), how, random)
    third = walks[walks[:, 1] == 1, 2]
    assert np.mean(third == 0) == pytest.approx((9 / 4) / (9 / 4 + 1), abs=0.015)
    assert (graph.walk(np.array([3]), Node2Vec(), random) == 3).all()


def test_where_a_walk_goes_far_is_likelier_with_a_small_q():
    # 0 - 1 - 2: from 1, come from 0, node 2 is far.
    graph = Graph(3, np.array([0, 1]), np.array([1, 2]), np.ones(2))
    for away in (0.25, 4.0):
        how = Node2Vec(length=3, away=away)
        walks = graph.walk(np.zeros(20_000, np.int64), how, np.random.default_rng(0))
        far = np.mean(walks[:, 2] == 2)
        assert far == pytest.approx((1 / away) / (1 + 1 / away), abs=0.015)


def test_nodes_of_a_group_are_near_each_other():
    inside = [(a, b) for first in (0, 6) for a in range(first, first + 6) for b in range(a)]
    edges = np.array([(a, b) for a, b in inside if a // 6 == b // 6] + [(0, 6)])
    graph = Graph(12, edges[:, 0], edges[:, 1], np.ones(len(edges)))
    vectors = node_vectors(graph, Node2Vec(dimension=16, walks=40, batch=256))
    likeness = vectors @ vectors.T
    own = np.arange(12)[:, None] // 6 == np.arange(12) // 6
    assert likeness[own].mean() > likeness[~own].mean() + 0.3
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(12), abs=1e-5)


def test_the_correction_is_the_formula():
    popularity = np.array([100, 4])
    assert Correction(0.5, 1.0, 10.0).of(popularity) == pytest.approx([10 / 110, 2 / 14])
    assert (Correction().of(popularity) == 1).all()


def test_ranks_count_equals_by_half():
    scores = np.array([[3.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert ranks(scores, np.array([1, 2])).tolist() == [2.5, 2.0]


def test_a_users_own_list_is_better_than_popularity(tastes):
    batch = BatchKeywords(tastes, [1])
    users, wanted = batch.asked([2])
    popular = np.tile(tastes.popularity.astype(np.float32), (len(wanted), 1))
    own = batch.scores(2)
    assert own.sum(1) == pytest.approx(np.ones(len(own)), abs=1e-4)
    assert reciprocal_rank(own[users], wanted) > 2 * reciprocal_rank(popular, wanted)


def test_a_correction_is_chosen_by_what_it_does(log, batch):
    tuned, users = copy(batch), len(log.tables.frames["users"])
    tuned.scores = lambda before: np.ones((users, len(log.keywords)), np.float32)
    tuned.tune(log.tables.test_period - 1)
    chosen = tuned.correction
    assert chosen.m > 0, "of equal scores those of popular ones are raised"
    tuned.tune(log.tables.periods)
    assert tuned.correction == chosen, "nobody searched then"


def test_without_a_period_before_there_is_no_list():
    searches = [("u1", "a", HOUR, "s1", 0), ("u1", "b", 2 * HOUR, "s1", 0)]
    assert batch_keywords(keyword_log(little(searches, []))) is None


def test_keywords_are_in_small_letters_and_never_empty():
    searches = [("u1", text, HOUR, "s1", 0) for text in ("Pizza", " pizza ", "  ", "")]
    log = keyword_log(little(searches, []))
    assert (log.keywords, log.popularity.tolist()) == (["pizza"], [2])


def test_lists_are_of_those_who_did_something_before(log, batch):
    rows = user_lists(log, batch)
    assert 0 < len(rows) <= len(log.tables.frames["users"])
    assert rows["entity_id"].n_unique() == len(rows)
    codes = {keyword_code(text) for text in log.keywords}
    assert set(rows["keywords"][0].to_list()) <= codes
    assert len(set(rows["keywords"][0].to_list())) == 20


def test_what_was_just_done_tells_more_than_popularity(tastes):
    graph = graph_vectors(tastes)
    assert (graph[0] == 0).all()
    model = new_model(tastes, graph, np.zeros((len(graph), 4), np.float32))
    train_sequence(model, sequences(tastes, [0, 1]), SequenceTraining())
    held_out = sequences(tastes, [2])
    with torch.no_grad():
        nodes, kinds = torch.from_numpy(held_out.nodes), torch.from_numpy(held_out.kinds)
        scores = model(nodes, kinds).numpy()
    popular = np.tile(tastes.popularity.astype(np.float32), (len(scores), 1))
    assert reciprocal_rank(scores, held_out.keywords) > 2 * reciprocal_rank(
        popular, held_out.keywords
    )


def test_a_version_serves_what_was_trained(workspace, city):
    registry = workspace.registry
    model = KeywordModel(registry.load(KEYWORDS, registry.resolve(KEYWORDS)), threads=1)
    shops = city.tables.frames["items"].filter(pl.col("kind") == 1)
    every = shops["category_name"].unique()
    hits = by_chance = 0.0
    for item_id, kind in shops.select("item_id", "category_name").head(100).iter_rows():
        odds = model.probabilities([Step(f.ACTION_TYPE_CLICK, model.item_node(item_id))])
        assert odds.sum() == pytest.approx(1, abs=1e-4)
        best = [model.keywords[row] for row in np.argsort(-odds)[:5]]
        hits += kind in best
        by_chance += len(set(best) & set(every)) / len(every)
    assert hits > 2 * by_chance, "who clicks on a shop may search for its kind"
    assert model.rows([keyword_code(model.keywords[3]), 0, 17]) == [3]
    assert (model.row(model.keywords[2]), model.row("?"), model.item_node("?")) == (2, None, None)


def test_without_searches_there_is_no_version(workspace, city, tmp_path):
    registry = type(workspace.registry)(f"file://{tmp_path}")
    registry.copy(workspace.registry, KEYWORDS, workspace.registry.resolve(KEYWORDS))
    registry.set_alias(KEYWORDS, CHAMPION, registry.versions(KEYWORDS)[0])
    frames = city.tables.frames | {"searches": city.tables.frames["searches"].head(50)}
    tables = Tables("few", frames, city.tables.clock, city.tables.periods)
    assert train_keywords(tables, registry, SequenceTraining()) == {}
    assert not registry.has_alias(KEYWORDS)
