"""A ranking by dot products is served as a DCN is."""

import numpy as np
import pytest

from madang_candidate.spectral import towers
from madang_ranker.train import DcnExamples, export
from madang_ranker.vectors import VectorRanker
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.onnx_backend import OnnxBackend

SLOPE, INTERCEPT = 3.0, -1.0


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(7, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def backend(vectors):
    known = towers(*vectors, user_code=1, item_code=0)
    rows = InputRows(np.ones((3, 2), np.int64), np.zeros((3, 1), np.float32))
    none, never = np.zeros(0, np.int64), np.zeros(0, bool)
    examples = DcnExamples(rows, rows, rows, none, none, none, never, never, never)
    return OnnxBackend(export(VectorRanker(known.user, known.item, SLOPE, INTERCEPT), examples))


def scores(backend, users, items, segment):
    """Of items by codes, each for the user that `segment` says."""
    user = InputRows(np.array([[9, u] for u in users]), np.zeros((len(users), 1), np.float32))
    item = InputRows(np.array([[i, 9] for i in items]), np.zeros((len(items), 1), np.float32))
    return backend.run(
        {
            "user_ints": user.ints,
            "user_floats": user.floats,
            "context_ints": user.ints,
            "context_floats": user.floats,
            "item_ints": item.ints,
            "item_floats": item.floats,
            "segment": np.array(segment),
        }
    )


def test_log_odds_are_by_the_dot_product(vectors, backend):
    user, item = vectors
    found = scores(backend, [2, 5], [1, 7, 7, 3], [0, 0, 1, 1])
    dots = [user[1] @ item[0], user[1] @ item[6], user[4] @ item[6], user[4] @ item[2]]
    expected = 1 / (1 + np.exp(-SLOPE * np.array(dots) - INTERCEPT))
    assert found["click"] == pytest.approx(expected, abs=0.01)
    assert found["order"] == pytest.approx(found["click"], abs=1e-6)
    assert (found["hide"] < 1e-6).all()


def test_who_or_what_is_unknown_changes_no_order(backend):
    plain = 1 / (1 + np.exp(-INTERCEPT))
    assert scores(backend, [0], [1, 7, 3], [0, 0, 0])["click"] == pytest.approx([plain] * 3)
    assert scores(backend, [2], [0, 99], [0, 0])["click"] == pytest.approx([plain] * 2)
