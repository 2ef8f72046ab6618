"""Off-policy evaluation against policies whose value is known."""

from dataclasses import replace

import numpy as np
import pytest

from madang_pipelines.ope import BanditLog, evaluate, on_policy
from madang_pipelines.sources.open_bandit import MissingFilesError, load_campaigns

CONTEXTS, ACTIONS = 12, 40
RATE = np.random.default_rng(1).beta(1, 30, (CONTEXTS, ACTIONS))


def softmax(scores):
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


LOGGING = softmax(10 * RATE + np.random.default_rng(2).normal(size=RATE.shape))
SECOND = softmax(30 * RATE)
WRONG = softmax(-30 * RATE)


def logged(n, seed, policy=LOGGING):
    """A log of a policy."""
    rng = np.random.default_rng(seed)
    context = rng.integers(0, CONTEXTS, n)
    action = (rng.random(n)[:, None] > policy.cumsum(axis=1)[context]).sum(axis=1)
    action = np.minimum(action, ACTIONS - 1)
    reward = (rng.random(n) < RATE[context, action]).astype(float)
    return BanditLog(context, action, reward, policy[context, action])


def value(policy):
    """What a policy earns, contexts being equally likely."""
    return (policy * RATE).sum(axis=1).mean()


@pytest.fixture(scope="module")
def million():
    return logged(1_000_000, seed=4)


def test_a_million_rows_recover_the_value_of_a_second_policy_and_reject_a_wrong_one(million):
    found = evaluate(million, SECOND)
    assert value(SECOND) > 1.2 * value(LOGGING)
    for name, estimate in found.estimates.items():
        assert estimate.holds(value(SECOND)), name
        assert not estimate.holds(value(WRONG)), name
        assert not estimate.holds(value(LOGGING)), name
        assert estimate.half < 0.05 * value(SECOND), name
    assert 0 < found.effective_rows < len(million)


def test_wrong_propensities_are_noticed(million):
    uniform = replace(million, propensity=np.full(len(million), 1 / ACTIONS))
    assert not evaluate(uniform, SECOND).estimates["IPS"].holds(value(SECOND))


def test_the_logging_policy_is_estimated_by_its_own_log(million):
    found = evaluate(million, LOGGING)
    assert found.effective_rows == pytest.approx(len(million))
    assert found.estimates["IPS"].value == pytest.approx(on_policy(million.reward).value)
    assert on_policy(million.reward).holds(value(LOGGING))


def test_intervals_hold_as_often_as_they_say():
    runs = [evaluate(logged(20_000, seed), SECOND) for seed in range(200)]
    for name in ("IPS", "SNIPS", "DR"):
        held = np.mean([run.estimates[name].holds(value(SECOND)) for run in runs])
        assert 0.90 <= held <= 0.99, (name, held)


def test_predictions_narrow_the_interval(million):
    estimates = evaluate(million, SECOND).estimates
    assert estimates["DR"].half < estimates["IPS"].half


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"propensity": np.zeros(5)}, "propensities"),
        ({"propensity": np.full(5, np.nan)}, "propensities"),
        ({"propensity": np.full(5, 1.5)}, "propensities"),
        ({name: np.empty(0, int) for name in ("context", "action", "reward")}, "empty"),
    ],
)
def test_bad_logs_are_refused(change, why):
    with pytest.raises(ValueError, match=why):
        evaluate(replace(logged(5, 0), **change), SECOND)


def test_bad_policies_are_refused():
    for bad in (SECOND * 0.5, -SECOND, SECOND * np.nan):
        with pytest.raises(ValueError, match="distribution"):
            evaluate(logged(5, 0), bad)
    other = np.zeros((CONTEXTS, ACTIONS + 1))
    other[:, -1] = 1
    with pytest.raises(ValueError, match="no action"):
        evaluate(logged(5, 0), other)


def test_open_bandit_files_are_read_and_bad_rows_set_aside(tmp_path):
    header = ",timestamp,item_id,position,click,propensity_score,user_feature_0"
    for policy, rows in (
        ("random", ["0,t,0,1,1,0.5,x", "1,t,1,1,0,0.5,x", "2,t,1,2,0,0.5,x", "3,t,0,2,0,0.5,x"]),
        (
            "bts",
            [
                "0,t,0,1,0,0.9,x",
                "1,t,1,2,0,0.2,x",
                "2,t,1,2,2,0.2,x",
                "3,t,,1,0,0.2,x",
                "4,t,1,1,0,0,x",
            ],
        ),
    ):
        folder = tmp_path / "below" / policy / "all"
        folder.mkdir(parents=True)
        (folder / "all.csv").write_text("\n".join([header, *rows]))
    (campaign,) = load_campaigns(tmp_path)
    assert campaign.policies["bts"].tolist() == [[1, 0], [0, 1]]
    assert campaign.policies["random"].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert campaign.quality[1].rows == [
        (5, "no item"),
        (4, "click is not 0 or 1"),
        (6, "propensity is not in (0, 1]"),
    ]
    found = evaluate(campaign.logs["random"], campaign.policies["bts"])
    assert found.estimates["IPS"].value == pytest.approx(0.5)
    with pytest.raises(MissingFilesError, match="random and bts"):
        load_campaigns(tmp_path / "below" / "bts")


def test_rows_that_are_not_independent_widen_the_interval():
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(400), 10)
    hits = 0
    for _ in range(300):
        reward = np.repeat(rng.random(400) < 0.2, 10).astype(float)  # a page pays or does not
        alone, together = on_policy(reward), on_policy(reward, group)
        assert together.value == alone.value
        assert together.half == pytest.approx(alone.half * np.sqrt(10), rel=0.01)
        hits += together.holds(0.2)
    assert 0.91 < hits / 300 < 0.98
