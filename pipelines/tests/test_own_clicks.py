"""A ranker from anyone's clicks."""

import json

import numpy as np
import polars as pl
import pytest

from madang_pipelines.imports.importing import Imported
from madang_pipelines.imports.mapping import MappingError
from madang_pipelines.own.clicks import ITEM_FIELDS, USER_FIELDS, ClickPlan, train_clicks
from madang_pipelines.own.fields import from_json
from madang_pipelines.own.report import OURS
from madang_ranker.scoring import DcnScorer, ScoreRequest
from madang_runtime.metrics import Metrics
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.registry import CHAMPION, ModelRegistry

QUICK = ClickPlan(shrinks=(1e-3,), least=(1,), epochs=12, members=1)


def clicks(n: int = 6000, seed: int = 0) -> Imported:
    """Users of three tastes, who click what is of their taste; the more so, the cheaper it is."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 30, n), rng.integers(0, 60, n)
    price = rng.exponential(10.0, n)
    p = np.where(user % 3 == item % 3, 0.7, 0.05) * np.where(price < 8, 1.0, 0.3)
    frame = pl.DataFrame(
        {
            "label": rng.random(n) < p,
            "part": [""] * n,
            "price": price,
            "User ID": [f"u{i}" for i in user],
            "item": [f"i{i}" for i in item],
        }
    )
    return Imported(frame, ["price"], ["User ID", "item"], ["User ID"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    registry = ModelRegistry(f"file://{tmp_path_factory.mktemp('clicks')}")
    table = clicks()
    report, fields = train_clicks("clicks", table, registry, QUICK)
    return registry, table, report, fields


def test_it_finds_what_no_line_can(trained):
    report = trained[2]
    auc = {side: own["AUC"].value for side, own in report.scores.items()}
    assert auc["constant"] == 0.5
    assert auc[OURS] > auc["logistic regression"] + 0.1, "who likes what is in pairs"
    assert report.judged == "600 rows, drawn by chance."


def test_what_is_served_is_what_was_judged(trained):
    registry, table, report, fields = trained
    files = registry.load("ranker", registry.resolve("ranker", CHAMPION))
    scorer = DcnScorer(files, Metrics())
    frame = table.frame.filter(pl.col("User ID") == "u4").head(20).with_columns(price=5.0)
    user, items = fields[0].rows(frame), fields[1].rows(frame)
    one = InputRows(user.ints[:1], user.floats[:1])
    scores = scorer.score(ScoreRequest(one, scorer.context(0, 0.0, 0.0), items))
    own = np.array([int(i[1:]) % 3 == 1 for i in frame["item"]])
    assert scores.click[own].min() > scores.click[~own].max()
    assert not scores.order.any()
    assert files.manifest.metrics["auc"] == report.scores[OURS]["AUC"].value
    assert [f.name for f in files.manifest.features] == ["user_id", "item", "price"]
    codes = json.loads(files.files["vocabulary.json"])
    assert codes[USER_FIELDS]["codes"]["User ID"][user.ints[0, 0] - 1] == "u4"
    assert codes[ITEM_FIELDS]["features"] == {"item": "item", "price": "price"}
    assert from_json(files.files["vocabulary.json"]) == fields
    card = files.files["card.md"].decode()
    assert "| **ours" in card.replace("| ours | **", "| **ours")
    assert "item_fields.price (FLOAT32)" in card


def test_what_was_never_seen_is_unknown(trained):
    registry, _, _, fields = trained
    scorer = DcnScorer(registry.load("ranker", registry.resolve("ranker")), Metrics())
    frame = pl.DataFrame(
        {"User ID": ["nobody"], "item": [None], "price": [None]},
        schema={"User ID": pl.String(), "item": pl.String(), "price": pl.Float64()},
    )
    user, item = fields[0].rows(frame), fields[1].rows(frame)
    assert not user.ints.any()
    assert not item.ints.any()
    scores = scorer.score(ScoreRequest(user, scorer.context(0, 0.0, 0.0), item))
    assert 0 < scores.click[0] < 1


def test_a_given_split_is_taken(tmp_path):
    table = clicks(3000)
    part = pl.Series(["train"] * 2000 + ["valid"] * 500 + ["test"] * 500)
    split = Imported(
        table.frame.with_columns(part=part), table.numbers, table.categories, table.user
    )
    quick = ClickPlan(shrinks=(1e-4,), least=(1,), epochs=1, members=1, simple=False)
    report, _ = train_clicks("x", split, ModelRegistry(f"file://{tmp_path}"), quick)
    assert report.judged == "The 500 rows of the given test part."
    assert list(report.scores) == ["constant", OURS]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"user": []}, "user must name"),
        ({"user": ["User ID", "item", "price"]}, "user must name"),
        ({"frame": clicks(60).frame}, "of the rarer label"),
        ({"frame": clicks().frame.with_columns(label=pl.lit(True))}, "0 of the rarer label"),
    ],
)
def test_what_can_not_be_learned_from(tmp_path, changed, said):
    table = clicks()
    given = {"frame": table.frame, "user": table.user} | changed
    own = Imported(given["frame"], table.numbers, table.categories, given["user"])
    registry = ModelRegistry(f"file://{tmp_path}")
    with pytest.raises(MappingError) as refused:
        train_clicks("x", own, registry, QUICK)
    assert said in str(refused.value)
    assert not registry.names()
