"""Whom to tell, from anyone's campaigns."""

import numpy as np
import polars as pl
import pytest

from madang_pipelines.imports.importing import Imported
from madang_pipelines.imports.mapping import MappingError
from madang_pipelines.own.report import OURS
from madang_pipelines.own.sends import SendPlan, train_sends
from madang_runtime.models.registry import ModelRegistry
from madang_targeting.audience import Audiences
from madang_targeting.model import NAME, TargetingModel
from madang_targeting.trees import TreeTraining

QUICK = SendPlan(TreeTraining(rounds=40, learning_rate=0.1))


def sends(n: int = 4000, held: float = 0.0) -> Imported:
    """Who is in their thirties responds, and comes because of it; others come anyway."""
    rng = np.random.default_rng(20)
    age, told = rng.uniform(18, 80, n), rng.random(n) >= held
    thirties = (age >= 30) & (age < 40)
    opened = told & (rng.random(n) < np.where(thirties, 0.5, 0.05))
    came = rng.random(n) < np.where(thirties, 0.05 + 0.4 * told, 0.6)
    frame = pl.DataFrame(
        {
            "user": [f"u{i}" for i in range(n)],
            "campaign": [f"c{i % 6}" for i in range(n)],
            "channel": [["push", "mail"][i % 2] for i in range(n)],
            "told": told,
            "clicked": opened,
            "ordered": came,
            "part": [""] * n,
            "age": age,
            "job": [["cook", "clerk", None][i % 3] for i in range(n)],
        }
    )
    return Imported(frame, ["age"], ["job"])


def test_responses_are_told_apart_and_served(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path / 'models'}")
    report = train_sends("mine", sends(), registry, QUICK)
    scores = report.scores[OURS]
    assert scores["AUC"].value > report.scores["logistic regression"]["AUC"].value
    assert scores["lift of the best tenth"].value > 2
    assert any("Nobody was held out" in note for note in report.notes)
    files = registry.load(NAME, registry.resolve(NAME))
    assert b"job is read as codes: cook, clerk" in files.files["card.md"]
    model = TargetingModel(files, Audiences(registry, tmp_path / "copies").get)
    assert model.layout.channels == ["mail", "push"]
    assert model.audience.size == 4000
    assert set(model.campaigns) == {f"c{i}" for i in range(6)}
    inputs = np.array([[35.0, 1.0], [60.0, 1.0]], np.float32)
    expected = model.simulate(inputs, model.layout.columns(), "push", ["all"], ["clicked"])
    inside, outside = expected.ravel()
    assert 0.3 < inside < 0.7
    assert outside < 0.15


def test_who_is_moved_is_not_who_responds(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    report = train_sends("mine", sends(20_000, held=0.5), registry, QUICK)
    qini = {side: own["Qini"].value for side, own in report.scores.items() if "Qini" in own}
    assert qini["whom it moves (uplift)"] > max(10, qini["who responds"])
    assert any(note.startswith("Telling gains") for note in report.notes)


def test_one_outcome_counts_as_both(tmp_path):
    table = sends(1000)
    frame = table.frame.select("clicked", "part", "age", "job")
    registry = ModelRegistry(f"file://{tmp_path}")
    report = train_sends("mine", Imported(frame, ["age"], ["job"]), registry, QUICK)
    assert report.chosen == {"channels": "direct", "preference groups": "all"}


def test_a_given_test_part_judges(tmp_path):
    table = sends(1200)
    part = pl.Series(["train"] * 900 + ["test"] * 300)
    split = Imported(table.frame.with_columns(part=part), ["age"], ["job"])
    report = train_sends("mine", split, ModelRegistry(f"file://{tmp_path}"), QUICK)
    assert report.judged == "The 300 sends of the given test part."


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (Imported(sends(300).frame), "map some"),
        (Imported(sends(30).frame, ["age"]), "at least 20 must have"),
        (Imported(sends(60).frame, ["age"]), "at least 20 must have"),
    ],
)
def test_what_can_not_be_learned_from(tmp_path, table, said):
    registry = ModelRegistry(f"file://{tmp_path}")
    with pytest.raises(MappingError) as refused:
        train_sends("mine", table, registry, QUICK)
    assert said in str(refused.value)
    assert not registry.names()
