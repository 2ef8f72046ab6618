"""Anybody's ONNX behind the ranker's scorer."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from madang_pipelines.features import load_views
from madang_pipelines.own.onnx_model import OwnModelError, register_own_model
from madang_ranker.scoring import DcnScorer, ScoreRequest
from madang_runtime.metrics import Metrics
from madang_runtime.models.inputs import InputRows, check_fingerprint
from madang_runtime.models.registry import ModelRegistry

GUIDE = (Path(__file__).parents[2] / "docs/own-model.md").read_text("utf-8")
SAID = re.search(r"```yaml my-model.yaml\n(.*?)```", GUIDE, re.DOTALL)[1]
CODE = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)[1]
CLASSIFIER = """<ir_version: 8, opset_import: ["": 15]>
own (float[N, 2] x) => (int64[N] label, float[N, 2] probabilities, float[N] other)
<float[2, 2] w = {-1.0, 1.0, 0.0, 0.0}, int64[2] first = {0, 1}> {
  missing = IsNaN(x)
  zero = Constant<value = float {0.0}>()
  known = Where(missing, zero, x)
  logits = MatMul(known, w)
  probabilities = Softmax<axis = 1>(logits)
  label = ArgMax<axis = 1, keepdims = 0>(probabilities)
  other = ReduceMax<axes = [1], keepdims = 0>(probabilities)
}"""


@pytest.fixture
def registry(tmp_path):
    return ModelRegistry(f"file://{tmp_path}/models")


def register(tmp_path, registry, said, model=None):
    (tmp_path / "my-model.yaml").write_text(said)
    if model:
        onnx.save(parser.parse_model(model), tmp_path / "my.onnx")
    return register_own_model(tmp_path / "my-model.yaml", load_views(), registry)


def scorer(registry, version):
    return DcnScorer(registry.load("ranker", version), Metrics())


def test_the_guides_model_serves(tmp_path, registry, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(CODE, {})
    version = register(tmp_path, registry, SAID)
    serving = scorer(registry, version)
    check_fingerprint(registry.manifest("ranker", version), list(load_views().values()))
    n, rng = 7, np.random.default_rng(0)
    user = InputRows(np.zeros((1, 0), np.int64), np.array([[2.0]], np.float32))
    items = rng.random((n, 2)).astype(np.float32)
    items[0, 0] = np.nan
    rows = InputRows(np.zeros((n, 0), np.int64), items)
    request = ScoreRequest(user, serving.context(0, 37.5, 127.0), rows)
    scores = serving.score(request)
    logit = 0.2 - 0.3 * np.nan_to_num(items[:, 0]) + 8 * items[:, 1]
    assert np.allclose(scores.click, 1 / (1 + np.exp(-logit)), atol=1e-5)
    assert not scores.order.any()
    assert not scores.hide.any()


def test_requests_of_a_batch_keep_their_own_user(tmp_path, registry):
    said = "model: my.onnx\nfeatures: [user_profile.user_code, context.latitude]\nclick: p"
    model = """<ir_version: 8, opset_import: ["": 17]>
    own (float[N, 2] x) => (float[N, 1] p) <float[2, 1] w = {0.01, 0.001}> {
      p = MatMul(x, w)
    }"""
    serving = scorer(registry, register(tmp_path, registry, said, model))
    none = np.zeros((1, 0), np.float32)
    requests = [
        ScoreRequest(
            InputRows(np.array([[code]]), none),
            serving.context(0, 10.0 * code, 127.0),
            InputRows(np.zeros((n, 0), np.int64), np.zeros((n, 0), np.float32)),
        )
        for code, n in ((1, 3), (2, 2))
    ]
    first, second = serving.score_all(requests)
    assert np.allclose(first.click, [0.02] * 3)
    assert np.allclose(second.click, [0.04] * 2)


def test_a_classifiers_second_column_counts(tmp_path, registry):
    said = (
        "model: my.onnx\nfeatures: [item_profile.click_rate, item_profile.price]\n"
        "click: probabilities\norder: other"
    )
    serving = scorer(registry, register(tmp_path, registry, said, CLASSIFIER))
    items = np.array([[np.nan, 1.0], [2.0, 1.0]], np.float32)  # price comes first in the view
    order = [c.name for c in serving.item_inputs.columns()]
    assert order == ["item_profile.click_rate", "item_profile.price"]
    rows = InputRows(np.zeros((2, 0), np.int64), items)
    user = InputRows(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32))
    scores = serving.score(ScoreRequest(user, serving.context(0, 0, 0), rows))
    assert np.allclose(scores.click, [0.5, 1 / (1 + np.exp(-4))])
    assert np.allclose(scores.order, [0.5, 1 / (1 + np.exp(-4))])


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("features: [item_profile.price]", "reads 2 columns, features have 1"),
        ("features: [item_profile.prices, item_profile.price]", "item_profile has item_code"),
        ("features: [shop.price, item_profile.price]", "may read user_profile and item_profile"),
        ("features: [item_profile.price, item_profile.price]", "name one twice"),
        ("features: [context.moon, item_profile.price]", "the context has hour"),
        ("features: [item_profile.price, item_profile.orders]\nclick: q", "no output 'q'"),
        ("features: [item_profile.price, item_profile.orders]\nclick: label", "click"),
        ("features: [item_profile.price, item_profile.orders]\nclicks: p", "clicks"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, registry, said, why):
    with pytest.raises(OwnModelError, match=why):
        register(tmp_path, registry, f"model: my.onnx\n{said}", CLASSIFIER)
    assert registry.names() == []


def test_outputs_that_are_no_probabilities_are_refused(tmp_path, registry):
    model = """<ir_version: 8, opset_import: ["": 17]>
    own (float[N, 1] x) => (float[N, 1] y) { y = Identity(x) }"""
    with pytest.raises(OwnModelError, match="NaN is what is not known"):
        register(tmp_path, registry, "model: my.onnx\nfeatures: [item_profile.price]", model)
