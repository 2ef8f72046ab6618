"""The content towers, and what a search suggests."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from indexes import make_index

from madang_candidate.content.model import CONTENT, ContentModel, no_content
from madang_candidate.content.towers import ContentTowers, ContentTraining, Shops, train_content
from madang_candidate.sources.reactive import ReactiveSource
from madang_runtime.errors import MadangError
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder


class Content:
    """Items of even rows answer "even", the higher the better; the version lacks row 0."""

    def query(self, text):
        return np.array([1.0 if text == "even" else -1.0, 0.0], np.float32)

    def vectors(self, index, rows):
        vectors = np.stack([np.where(rows % 2 == 0, rows, -rows), rows], axis=1)
        return (vectors * (rows > 0)[:, None]).astype(np.float32)


class Query:
    index = make_index(30, 0.0)
    user_vector = np.ones(8, np.float32)
    allowed = np.arange(0, 20)
    limit = 6

    def __init__(self, *recent):
        self.recent = recent


def proposed(*recent, content=Content):
    return ReactiveSource(1.0, 60, content).propose(Query(*recent)).rows.tolist()


def test_a_search_ranks_all_that_is_allowed_and_answers_it():
    assert proposed("even") == [18, 16, 14, 12, 10, 8]
    assert proposed("odd") == [19, 17, 15, 13, 11, 9]
    Query.index.exact_below, before = 3, Query.index.exact_below
    try:
        pool = Query.index.search(Query.user_vector, Query.allowed, Query.limit)[0]
        assert set(proposed("even")) <= set(pool.tolist()), "of too much, what is near the user"
    finally:
        Query.index.exact_below = before


def test_the_newest_action_counts_most_be_it_a_search_or_not():
    assert proposed("even", "odd")[0] == 18
    assert proposed("odd", "even")[0] == 19
    pool = Query.index.search(Query.user_vector, Query.allowed, Query.limit)[0].tolist()
    mixed = proposed(pool[2], "even")
    assert mixed.index(pool[2]) < mixed.index(18)


def test_without_content_towers_items_alone_count():
    assert proposed("even", content=no_content) == []
    pool = Query.index.search(Query.user_vector, Query.allowed, Query.limit)[0].tolist()
    assert proposed("even", pool[1], content=no_content)[0] == pool[1]
    told = ("even", "odd", "even", pool[1], pool[2])
    assert proposed(*told, content=no_content) == proposed(pool[1], pool[2])
    with pytest.raises(MadangError):
        no_content()


def test_the_last_three_actions_count_and_each_once():
    pool = Query.index.search(Query.user_vector, Query.allowed, Query.limit)[0].tolist()
    four = ("even", pool[0], pool[1], pool[2])

    def scores(*recent):
        return ReactiveSource(1.0, 60, Content).propose(Query(*recent)).scores.tolist()

    assert scores(*four) == scores(*four[:3]) != scores(*four[:2])
    assert proposed("even", "even", "even", pool[0]) == proposed("even", pool[0])


def shops(n, seed=0):
    random = np.random.default_rng(seed)
    text = random.normal(size=(n, 32)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    price = np.stack([random.normal(size=n), np.ones(n)], axis=1).astype(np.float32)
    return Shops(text, price, random.gamma(1, 10, n).astype(np.float32))


def test_before_training_vectors_keep_what_is_alike():
    towers, made = ContentTowers(32), shops(40)
    with torch.no_grad():
        text, price = torch.from_numpy(made.text), torch.from_numpy(made.price)
        queries, items = towers.of_queries(text).numpy(), towers.of_shops(text, price).numpy()
    assert (np.argmax(queries @ items.T, axis=1) == np.arange(40)).all()
    assert np.linalg.norm(items, axis=1) == pytest.approx(np.ones(40), abs=1e-5)


def test_what_was_ordered_comes_nearer_by_text_and_by_price():
    made, random = shops(40), np.random.default_rng(1)
    queries = shops(2, seed=2).text
    cheap = np.flatnonzero(made.price[:, 0] < -0.5)
    dear = np.flatnonzero(made.price[:, 0] > 0.5)
    asked = random.integers(0, 2, 2000)
    ordered = np.where(asked == 0, random.choice(cheap, 2000), random.choice(dear, 2000))
    towers = train_content(queries[asked], ordered, made, ContentTraining(epochs=4))
    with torch.no_grad():
        near = (
            towers.of_queries(torch.from_numpy(queries))
            @ towers.of_shops(torch.from_numpy(made.text), torch.from_numpy(made.price)).T
        )
    first, second = near.numpy()
    assert first[cheap].mean() > first[dear].mean() + 0.3
    assert second[dear].mean() > second[cheap].mean() + 0.3


@pytest.fixture(scope="module")
def content(workspace):
    registry = workspace.registry
    files = registry.load(CONTENT, registry.resolve(CONTENT))
    encoder = registry.load(ENCODER, files.manifest.parameters[ENCODER])
    return ContentModel(files, Encoder(encoder, small=True, threads=1), threads=1)


def test_a_version_finds_shops_by_what_they_sell(content, city):
    items = city.tables.frames["items"].filter(kind=1)

    ids = [*items["item_id"], "new"]

    class Trained:
        def __init__(self):
            self.ids = ids[:300]

        def __len__(self):
            return 300

    vectors = content.vectors(SimpleNamespace(ids=ids, trained=Trained()), np.arange(len(ids)))
    assert not vectors[-1].any(), "the version does not know it"
    assert np.linalg.norm(vectors[:-1], axis=1) == pytest.approx(np.ones(len(items)), abs=1e-4)
    for query, kind in (("일식", "일식"), ("pizza", "피자"), ("바삭한 닭튀김", "치킨")):
        best = np.argsort(-(vectors @ content.query(query)))[:10]
        kinds = [items["category_name"][row] for row in best.tolist()]
        assert kinds.count(kind) >= 7, (query, kinds)
