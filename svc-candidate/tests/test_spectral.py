"""Vectors in closed form find who likes what."""

import numpy as np
import onnxruntime as ort
import pytest

from madang_candidate import spectral
from madang_candidate.spectral import Choices, Spectrum
from madang_candidate.train import export_items, export_users
from madang_runtime.models.inputs import InputRows

GROUPS, USERS, ITEMS = 6, 240, 180


@pytest.fixture(scope="module")
def choices():
    """Users of a group choose items of it, and one in ten of any; popular ones more."""
    rng = np.random.default_rng(0)
    weight = 1 / np.arange(1, ITEMS + 1)
    pairs = []
    for user in range(USERS):
        own = np.where(np.arange(ITEMS) % GROUPS == user % GROUPS, 9.0, 0.2) * weight
        pairs += [(user, i) for i in rng.choice(ITEMS, 12, replace=False, p=own / own.sum())]
    user, item = np.array(pairs).T
    return Choices.of(user, item, USERS, ITEMS)


def test_pairs_are_distinct_and_sorted():
    made = Choices.of(np.array([1, 0, 1]), np.array([2, 3, 2]), 2, 5)
    assert made.user.tolist() == [0, 1]
    assert made.item.tolist() == [3, 2]
    assert [spectral.rows_by_user(made)(u).tolist() for u in (0, 1)] == [[3], [2]]


def test_what_is_held_out_is_found(choices):
    held = np.random.default_rng(1).random(len(choices.user)) < 0.2
    learn, later = choices.without(held), choices.without(~held)
    count = np.bincount(learn.item, minlength=ITEMS).astype(np.float32)
    popular, _ = spectral.judge(np.ones((USERS, 1), np.float32), count[:, None], learn, later)
    how = spectral.choose(learn)
    user, item = spectral.vectors(learn, how)
    ours, ndcg = spectral.judge(user, item, learn, later)
    assert ours.mean() > popular.mean() + 0.2
    assert (ndcg <= 1).all()
    assert how.ndcg > 0
    assert np.allclose(np.linalg.norm(user, axis=1), 1, atol=1e-5)
    assert np.linalg.norm(item, axis=1).max() == pytest.approx(1)


def test_dot_products_give_the_odds_of_what_is_held_out(choices):
    held = np.random.default_rng(1).random(len(choices.user)) < 0.2
    learn, later = choices.without(held), choices.without(~held)
    user, item = spectral.vectors(learn, Spectrum(64))
    slope, intercept = spectral._odds(user, item, learn, later, 0)
    new, wanted = np.ones((2, USERS, ITEMS), bool)
    new[learn.user, learn.item], wanted[:] = False, False
    wanted[later.user, later.item] = True
    dots = (user @ item.T)[new]
    likely = dots > np.quantile(dots, 0.9)
    for part in (likely, ~likely):
        told = np.exp(slope * dots[part] + intercept).mean()
        rate = wanted[new][part].mean() / wanted[new].mean()
        assert told / 0.1 == pytest.approx(rate, rel=0.5)
    small, _ = spectral._odds(user, 0.01 * item, learn, later, 0)
    assert small == pytest.approx(100 * slope, rel=0.01)


def test_all_dimensions_give_the_matrix_back(choices):
    how = Spectrum(ITEMS, power=0.0, correction=0.5)
    whole = spectral._Decomposed(choices, how)
    user, item = whole.vectors(how)
    degrees = [
        np.bincount(r, minlength=n) + 5.0 for r, n in ((choices.user, USERS), (choices.item, ITEMS))
    ]
    matrix = np.zeros((USERS, ITEMS))
    matrix[choices.user, choices.item] = 1
    smoothed = matrix / np.sqrt(np.outer(*degrees))
    assert np.allclose(user @ item.T, smoothed, atol=1e-4)


def test_metrics_by_hand():
    user, item = np.ones((2, 1), np.float32), np.arange(30, dtype=np.float32)[:, None]
    past = Choices.of(np.array([0, 1]), np.array([29, 28]), 2, 30)
    later = Choices.of(np.array([0, 0, 0, 1]), np.array([28, 3, 29, 28]), 2, 30)
    recall, ndcg = spectral.judge(user, item, past, later, k=5)
    # 28 is first and 3 far down; 29 was chosen before, and the other user chose nothing new.
    assert recall.tolist() == [0.5]
    assert ndcg[0] == pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert spectral.judge(user, item, past, later, k=30)[0].tolist() == [1.0]


def test_tables_are_exported_and_unknown_codes_are_zero(choices):
    user, item = spectral.vectors(choices, Spectrum(16))
    towers = spectral.towers(user, item, 1, 0)
    users = InputRows(np.array([[9, 1], [9, 0], [9, 10**6]]), np.zeros((3, 2), np.float32))
    context = InputRows(np.zeros((3, 3), np.int64), np.zeros((3, 2), np.float32))
    session = ort.InferenceSession(export_users(towers.user, users, context))
    given = {
        "user_ints": users.ints,
        "user_floats": users.floats,
        "context_ints": context.ints,
        "context_floats": context.floats,
    }
    names = {i.name for i in session.get_inputs()}
    found = session.run(None, {n: v for n, v in given.items() if n in names})[0]
    assert np.allclose(found[0], user[0], atol=1e-3)
    assert not found[1:].any()
    items = InputRows(np.array([[2], [1]]), np.zeros((2, 1), np.float32))
    session = ort.InferenceSession(export_items(towers.item, items))
    names = {i.name for i in session.get_inputs()}
    rows = {"ints": items.ints, "floats": items.floats}
    found = session.run(None, {n: v for n, v in rows.items() if n in names})[0]
    assert np.allclose(found, item[[1, 0]], atol=1e-3)


def test_too_many_for_tables():
    assert spectral.fits(30_000, 40_000)
    assert not spectral.fits(10_000_000, 500_000)
