"""The filter layer of the bandit."""

import numpy as np
import pytest
from indexes import make_index

from madang.ranker.v1 import bandit_pb2
from madang_candidate.arms import ArmFilter, lower_bound
from madang_candidate.index import ItemIndex, LiveItem
from madang_runtime.changelog.table import LogTable


def batch(counts, **fields):
    """A batch of {segment: {item: (impressions, rewards)}}."""
    items = sorted({item for arms in counts.values() for item in arms})
    fields = {"seed": 3, "keep": 3, "fresh": 4, "fresh_below": 50, **fields}
    made = bandit_pb2.BanditBatch(item_ids=items, **fields)
    for segment, arms in counts.items():
        columns = np.array(sorted((items.index(i), *n) for i, n in arms.items()), "<u4").T
        made.segments.add(
            segment=segment,
            arms=columns[0].tobytes(),
            impressions=columns[1].tobytes(),
            rewards=columns[2].tobytes(),
        )
    return made


def arms_of(made, index):
    batches = LogTable(bandit_pb2.BanditBatch.FromString)
    batches.apply({"home": made.SerializeToString()}, False)
    return ArmFilter(batches).arms("home", index)


def test_the_bound_is_wilsons_and_exposure_counts():
    bounds = lower_bound(
        np.array([0, 10, 1000, 100_000, 100, 1.0]),
        np.array([0, 1, 100, 10_000, 0, 5.0]),
    )
    assert bounds[:5] == pytest.approx([0, 0.0224, 0.0855, 0.0984, 0], abs=1e-3)
    assert 0 < bounds[5] < 1, "more rewards than impressions count as all"


def test_what_pays_in_the_segment_passes_and_fresh_arms_by_chance():
    index = make_index(50)
    seen = {f"i{i}": (1000, i) for i in range(30)}
    made = batch({"all": seen, "cohort=1": {"i3": (500, 40), "i4": (500, 0), "gone": (9, 9)}})
    allowed = np.arange(50)
    rows, bounds = arms_of(made, index).propose(["all"], allowed)
    assert rows[:3].tolist() == [29, 28, 27]
    assert set(rows[3:]) <= set(range(30, 50)), "what everybody saw is not fresh"
    assert len(set(rows.tolist())) == 7
    assert (bounds[3:] == 0).all()
    assert (np.diff(bounds[:3]) < 0).all()
    own, _ = arms_of(made, index).propose(["cohort=1", "all"], allowed)
    assert own[0] == 3
    assert own[1:].tolist() == rows[3:].tolist(), "the chance is the same for all"
    other, _ = arms_of(batch({"all": seen}, seed=4), index).propose(["all"], allowed)
    assert set(other[3:]) != set(rows[3:])


def test_what_pays_for_everybody_passes_in_a_small_segment():
    index, allowed = make_index(50), np.arange(50)
    made = batch({"all": {"i1": (9000, 900)}, "cohort=1": {"i1": (5, 0)}}, pooling=30)
    rows, bounds = arms_of(made, index).propose(["cohort=1"], allowed)
    assert rows[0] == 1
    assert bounds[0] == pytest.approx(lower_bound(np.array([305.0]), np.array([30.0]))[0])
    rows, _ = arms_of(made, index).propose(["cohort=2"], allowed)
    assert rows[0] == 1, "a segment without counts follows everybody"


def test_only_what_is_allowed_passes():
    index = make_index(50)
    arms = arms_of(batch({"all": {f"i{i}": (1000, i) for i in range(30)}}), index)
    rows, _ = arms.propose(["all"], np.array([2, 5, 40]))
    assert rows.tolist() == [5, 2, 40]
    assert arms.propose(["all"], np.empty(0, np.int64))[0].tolist() == []
    assert arms_of(batch({}, keep=0, fresh=0), index).propose(["all"], np.arange(50))[0].size == 0


def test_arms_follow_batches_and_indexes():
    batches = LogTable(bandit_pb2.BanditBatch.FromString)
    found, first, second = ArmFilter(batches), make_index(10), make_index(20)
    assert found.arms("home", first) is None
    batches.apply({"home": batch({}).SerializeToString()}, False)
    arms = found.arms("home", first)
    assert found.arms("home", first) is arms, "made once"
    assert found.arms("home", second).index is second
    batches.apply({"home": batch({}, seed=9).SerializeToString()}, False)
    assert found.arms("home", second).batch.seed == 9
    batches.apply({"home": None}, False)
    assert found.arms("home", second) is None
    batches.apply({"home": batch({}).SerializeToString()}, False)
    batches.apply({}, True)
    assert found.arms("home", second) is None


def test_fresh_arms_take_turns_from_batch_to_batch():
    index, counts = make_index(50), np.zeros(50)
    for seed in range(300):
        rows, _ = arms_of(batch({}, seed=seed, fresh=5), index).propose(["all"], np.arange(50))
        counts[rows] += 1
    assert counts.min() > 10
    assert counts.max() < 60


def test_what_was_put_in_lately_is_tried_before_what_is_little_known():
    index = make_index(50)
    items = [LiveItem(f"new{i}", 1, 2**24 - 1, np.zeros(8, np.float32), None) for i in range(3)]
    later = ItemIndex(index.trained, index.exact_below, items)
    for seed in range(20):
        arms = arms_of(batch({}, seed=seed), later)
        rows, _ = arms.propose(["all"], np.arange(53))
        assert {50, 51, 52} == set(rows[:3].tolist())
        assert len(rows) == 4
