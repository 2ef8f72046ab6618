"""The bandit: counts, windows, batches, draws and what they do to a list."""

import threading
from functools import partial
from itertools import count

import numpy as np
import pytest
from pydantic import ValidationError

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2
from madang.ranker.v1 import bandit_pb2
from madang.ranker.v1 import ranker_pb2 as pb
from madang_ranker.bandit.batches import BatchMaker, Window
from madang_ranker.bandit.counting import BanditCounter
from madang_ranker.bandit.draws import BatchDraws, parse_batch
from madang_ranker.bandit.explore import explore
from madang_ranker.bandit.layer import BanditLayer
from madang_ranker.bandit.policy import BanditPolicy
from madang_ranker.feedback import BANDIT_GROUP, FeedbackIntake, patiently
from madang_ranker.proposed import Proposed
from madang_ranker.reasons import Reasons
from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.changelog.memory import MemoryChangeLog
from madang_runtime.columns import block
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.segments import SegmentBy

POLICY = BanditPolicy(
    reward="CLICK", every=3, depth=9, window_seconds=60, bucket_seconds=10, rankings=50
)


# --- lists -----------------------------------------------------------------------------------


def merged(order, proposed, rates, ranking, policy):
    """The merge as it is defined, an item at a time."""
    slots = list(range(policy.every - 1, min(policy.depth, len(order)), policy.every))
    while slots:
        head = order[: slots[-1] + 1 - len(slots)]
        pool = [i for i in proposed if i not in head]
        if len(pool) >= len(slots):
            break
        slots = slots[: len(slots) - 1]
    head = order[: slots[-1] + 1 - len(slots)] if slots else []
    drawn = sorted(
        (i for i in proposed if i not in head),
        key=lambda i: -rates[list(proposed).index(i), ranking],
    )[: len(slots)]
    rest = iter([i for i in order if i not in drawn])
    drawn = iter(drawn)
    return [next(drawn) if at in slots else next(rest) for at in range(len(order))]


@pytest.mark.parametrize("every", [1, 3, 5])
@pytest.mark.parametrize("proposed", [0, 1, 4, 15])
@pytest.mark.parametrize("n", [1, 7, 30])
def test_a_merged_list_and_its_propensities_are_those_of_the_definition(n, proposed, every):
    rng = np.random.default_rng(n * 100 + proposed * 10 + every)
    policy = POLICY.model_copy(update={"every": every})
    order = rng.permutation(n)
    tried = np.sort(rng.permutation(n)[:proposed])
    rates = rng.random((len(tried), policy.rankings)).astype(np.float32)
    lists = np.array(
        [merged(order.tolist(), tried, rates, m, policy) for m in range(policy.rankings)]
    )
    for m in (0, 17):
        found = explore(order, tried, rates, m, policy)
        assert found.order.tolist() == lists[m].tolist()
        assert sorted(found.order.tolist()) == list(range(n))
        assert found.propensities == pytest.approx((lists == lists[m]).mean(axis=0))
        assert set(found.order[found.explored]) <= set(tried)
        assert set(found.order[found.explored]) <= set(found.pool)


# --- draws -----------------------------------------------------------------------------------


def batch(counts, **fields):
    """A batch of {segment: {item: (impressions, rewards)}}."""
    items = sorted({item for arms in counts.values() for item in arms})
    made = bandit_pb2.BanditBatch(
        surface="home",
        batch_id="home-1",
        seed=fields.pop("seed", 5),
        prior_successes=1,
        prior_failures=99,
        rankings=fields.pop("rankings", 64),
        item_ids=items,
        **fields,
    )
    for segment, arms in counts.items():
        found = sorted((items.index(item), *n) for item, n in arms.items())
        columns = np.array(found, "<u4").T
        made.segments.add(
            segment=segment,
            arms=columns[0].tobytes(),
            impressions=columns[1].tobytes(),
            rewards=columns[2].tobytes(),
        )
    return made


def test_rates_are_drawn_from_the_posterior_of_the_segment():
    counts = {"all": {"a": (10_000, 500), "b": (900, 0)}, "cohort=1": {"a": (100, 50)}}
    draws = BatchDraws(batch(counts, rankings=1000))
    drawn = draws.draw("all", ["b", "a", "new"])
    assert drawn.impressions.tolist() == [900, 10_000, 0]
    assert drawn.rewards.tolist() == [0, 500, 0]
    prior = 99 / 5  # in failures: the surface earns about 5 %
    for rates, successes, failures in zip(
        drawn.rates, (1, 501, 1), (prior + 900, prior + 9500, prior), strict=True
    ):
        total = successes + failures
        mean = successes / total
        spread = np.sqrt(mean * (1 - mean) / (total + 1))
        assert rates.mean() == pytest.approx(mean, abs=4 * spread / np.sqrt(1000))
        assert rates.std() == pytest.approx(spread, rel=0.25)
    assert draws.draw("cohort=1", ["a"]).rates.mean() == pytest.approx(51 / (101 + prior), abs=0.02)
    unseen = draws.draw("nobody", ["a", "new"])
    assert unseen.impressions.tolist() == [0, 0]
    assert unseen.rates.mean() == pytest.approx(1 / (1 + prior), abs=0.005)


def test_a_segment_leans_on_everybody_as_far_as_pooling_goes():
    counts = {"all": {"a": (9900, 990), "b": (90_000, 90)}, "cohort=1": {"a": (300, 0)}}
    draws = BatchDraws(batch(counts, rankings=1000, pooling=6))
    drawn = draws.draw("cohort=1", ["a", "b", "new"])
    everybody = 991 / (9900 + 1 + 99 * 0.99)  # the surface earns a little more than 1 %
    assert drawn.rates[0].mean() == pytest.approx(6 / (6 / everybody + 300), rel=0.05)
    assert drawn.impressions.tolist() == [300, 90_000, 0]
    assert drawn.rates[1].mean() == pytest.approx(90 / 90_000, rel=0.05), "only all know it"
    assert drawn.rates[2].mean() == pytest.approx(0.0108, rel=0.1)
    assert draws.draw("all", ["a"]).rates.mean() == pytest.approx(everybody, rel=0.02)
    elsewhere = draws.draw("cohort=9", ["a"]).rates
    assert elsewhere.mean() == pytest.approx(everybody, rel=0.05)
    assert elsewhere.std() == pytest.approx(everybody / np.sqrt(6), rel=0.15), "as 6 rewards would"


def test_nobody_is_surer_of_an_arm_than_what_was_seen_of_it():
    counts = {"all": {"new": (1, 0), "old": (10**5, 10**3)}, "cohort=1": {"new": (1, 0)}}
    draws = BatchDraws(batch(counts, rankings=1000, pooling=6))
    here, elsewhere = (draws.draw(s, ["new"]).rates for s in ("cohort=1", "cohort=2"))
    for rates in (here, elsewhere):
        assert rates.mean() == pytest.approx(0.01, rel=0.15)
        assert rates.std() == pytest.approx(0.01, rel=0.2), "a prior of one reward, not of six"


def test_what_nobody_saw_is_expected_to_pay_as_the_surface_does():
    rich = BatchDraws(batch({"all": {"a": (50_000, 10_000), "b": (50_000, 10_000)}}, rankings=1000))
    assert rich.draw("all", ["new"]).rates.mean() == pytest.approx(0.2, rel=0.1)
    poor = BatchDraws(batch({"all": {"a": (50_000, 5)}}, rankings=1000))
    assert poor.draw("all", ["new"]).rates.mean() == pytest.approx(0.01, rel=0.1)


def test_every_process_draws_the_same_and_another_batch_something_else():
    counts = {"all": {f"i{i}": (100, i) for i in range(20)}}
    ids = [*(f"i{i}" for i in range(20)), "new"]
    first, again = (BatchDraws(batch(counts)).draw("all", ids).rates for _ in range(2))
    assert (first == again).all()
    other = BatchDraws(batch(counts, seed=6)).draw("all", ids).rates
    assert (first != other).any(axis=1).all()


def test_more_rewards_than_impressions_are_possible_and_harmless():
    drawn = BatchDraws(batch({"all": {"a": (1, 40)}})).draw("all", ["a"])
    assert ((drawn.rates > 0) & (drawn.rates <= 1)).all()


def test_a_user_keeps_a_ranking_for_an_hour_and_users_share_them_evenly():
    draws = BatchDraws(batch({}))
    assert draws.ranking_of("u1", 7) == draws.ranking_of("u1", 7)
    hours = {draws.ranking_of("u1", hour) for hour in range(300)}
    assert len(hours) > 50
    users = np.bincount([draws.ranking_of(f"u{i}", 7) for i in range(64_000)], minlength=64)
    assert users.min() > 850
    assert users.max() < 1150


def test_a_batch_is_read_as_it_was_written():
    assert parse_batch(batch({}).SerializeToString()).batch_id == "home-1"


def proposed_items(n, explored, segment="all"):
    """n items, of which `explored` passed the filter."""
    ranks = np.zeros((n, 2), np.uint16)
    ranks[:, 0] = np.arange(1, n + 1)
    ranks[explored, 1] = np.arange(1, len(explored) + 1)
    order = np.linspace(1, 0, n, dtype=np.float32)
    reasons = Reasons(["two_tower", "explore"], ranks, np.zeros((n, 2), np.float32))
    return Proposed([f"i{i}" for i in range(n)], b"\x01" * n, order, reasons, segment)


def test_what_pays_is_put_into_the_list_with_its_propensity_and_what_it_was_drawn_from():
    counts = {"all": {f"i{i}": (2000, 200 if i == 25 else 1) for i in range(20, 30)}}
    draws = BatchDraws(batch(counts))
    layer = BanditLayer({"home": draws}.get)
    items = proposed_items(40, list(range(20, 30)))
    tried = layer.merge("home", POLICY, "u", 0, items, np.arange(40))
    assert tried.list.order[2] == 25
    assert tried.list.propensities[2] == 1
    assert (tried.list.propensities[[5, 8]] < 1).all()
    kept = tried.of_page(items, slice(0, 5))
    assert list(kept.explored) == [0, 0, 1, 0, 0]
    rates = np.frombuffer(kept.rates, "<f4")
    assert rates[2] == draws.draw("all", ["i25"]).rates[0, kept.ranking]
    assert (rates[[0, 1, 3, 4]] == 0).all()
    at = list(kept.pool_item_ids).index("i25")
    assert np.frombuffer(kept.pool_rewards, "<u4")[at] == 200
    assert np.frombuffer(kept.pool_impressions, "<u4")[at] == 2000


def test_nothing_is_tried_without_a_policy_a_batch_or_arms():
    draws = BatchDraws(batch({}))
    items, order = proposed_items(10, [5]), np.arange(10)
    assert BanditLayer({}.get).merge("home", POLICY, "u", 0, items, order) is None
    assert BanditLayer({"home": draws}.get).merge("home", None, "u", 0, items, order) is None
    nothing = proposed_items(10, [])
    assert BanditLayer({"home": draws}.get).merge("home", POLICY, "u", 0, nothing, order) is None


def test_policies_are_checked():
    for wrong in (
        {"every": 0},
        {"reward": "HIDE"},
        {"prior_failures": 0},
        {"rankings": 0},
        {"window_seconds": 3600},  # less than a bucket
        {"window_seconds": 100, "bucket_seconds": 30},
    ):
        with pytest.raises(ValidationError):
            BanditPolicy(**wrong)


# --- counts ----------------------------------------------------------------------------------

SEGMENTS = SegmentBy(["user_segments.cohort", "user_segments.demographic"])


class Features:
    """Tells segments: u1 is warm, u2 cold, all others unknown. Fails when told to."""

    name = "segments"

    def __init__(self):
        self.failures = []

    def __call__(self, request):
        if self.failures:
            raise self.failures.pop()
        (lookup,) = request.lookups
        known = {"u1": ([3, 21], "\x01\x01"), "u2": ([0, 21], "\x02\x01")}
        rows = [known.get(user, ([0, 0], "\x03\x03")) for user in lookup.entity_ids]
        found = block(
            list(lookup.features),
            np.array([values for values, _ in rows]),
            statuses="".join(statuses for _, statuses in rows).encode(),
        )
        return feature_store_pb2.LookupFeaturesResponse(
            rows=[feature_store_pb2.ViewRows(view=lookup.view, blocks=[found])]
        )


@pytest.fixture
def log():
    return MemoryChangeLog(abandoned_after=0.05)


@pytest.fixture
def features():
    return Features()


@pytest.fixture
def run(log, features):
    """Counts what is in the log."""

    def until_done(policies=None, segment_by=SEGMENTS):
        counter = BanditCounter(log, features, segment_by, policies or {"home": POLICY}, "c")
        while log.behind(BANDIT_GROUP):
            entries = log.take(BANDIT_GROUP, "c", 500, 0.1)
            patiently(threading.Event(), partial(counter._count, entries))

    return until_done


ids = count()


def events(user, item, impressions=0, clicks=0, conversions=0, surface=""):
    kinds = [pb.FEEDBACK_TYPE_IMPRESSION] * impressions + [pb.FEEDBACK_TYPE_CLICK] * clicks
    kinds += [pb.FEEDBACK_TYPE_CONVERSION] * conversions
    return [
        pb.FeedbackEvent(
            event_id=f"e{next(ids)}", type=kind, user_id=user, item_id=item, surface=surface
        )
        for kind in kinds
    ]


def window(log, now, policy=POLICY, surface="home"):
    pairs, counts = Window(log, surface, policy).total(now)
    return {pair: tuple(n) for pair, n in zip(pairs, counts.tolist(), strict=True)}


@pytest.fixture
def clock(monkeypatch):
    """The time by which events are counted."""
    now = [1_000_000.0]
    monkeypatch.setattr("madang_ranker.bandit.counting.time.time", lambda: now[0])
    return now


def test_an_event_counts_in_every_segment_of_its_user(log, run, clock):
    intake = FeedbackIntake(log)
    intake.record(events("u1", "a", impressions=3, clicks=1, conversions=1))
    intake.record(events("u2", "a", impressions=1) + events("u9", "b", impressions=2, clicks=2))
    run()
    assert window(log, clock[0]) == {
        ("cohort=3", "a"): (3, 1),
        ("demographic=21", "a"): (4, 1),
        ("all", "a"): (4, 1),
        ("all", "b"): (2, 2),
    }


def test_without_segments_everybody_is_alike(log, run, clock):
    FeedbackIntake(log).record(events("u1", "a", impressions=1))
    run(segment_by=SegmentBy([]))
    assert window(log, clock[0]) == {("all", "a"): (1, 0)}


def test_each_surface_has_its_own_reward_and_others_are_passed_over(log, run, clock):
    conversions = POLICY.model_copy(update={"reward": "CONVERSION"})
    intake = FeedbackIntake(log)
    for surface in ("", "menu", "other"):
        intake.record(events("u9", "a", 5, 2, 1, surface))
    run({"home": POLICY, "menu": conversions})
    assert window(log, clock[0]) == {("all", "a"): (5, 2)}
    assert window(log, clock[0], conversions, "menu") == {("all", "a"): (5, 1)}
    assert window(log, clock[0], POLICY, "other") == {}


def test_an_event_counts_once_whoever_dies(log, run, features, clock):
    FeedbackIntake(log).record(events("u1", "a", impressions=20))
    assert log.take(BANDIT_GROUP, "dead", 10, 1.0)
    features.failures = [
        MadangError(Code.UNAVAILABLE, reason.ERROR_REASON_STORE_UNAVAILABLE, "away")
    ]
    run()
    assert window(log, clock[0])["all", "a"] == (20, 0)


def test_it_counts_until_it_is_stopped(log, features, clock):
    stop = threading.Event()
    counter = BanditCounter(log, features, SEGMENTS, {"home": POLICY}, "c")
    thread = threading.Thread(target=counter.run, args=(stop,))
    thread.start()
    FeedbackIntake(log).record(events("u1", "a", impressions=1))
    for _ in range(500):
        if window(log, clock[0]):
            break
        stop.wait(0.01)
    stop.set()
    thread.join()
    assert window(log, clock[0])["all", "a"] == (1, 0)


def test_what_is_no_event_is_finished_and_counts_nothing(log, run, clock):
    log.append([("x", b"\xff\xff\xff")])
    FeedbackIntake(log).record(events("u1", "a", impressions=1))
    run()
    assert window(log, clock[0])["all", "a"] == (1, 0)


def test_the_window_slides_by_buckets(log, run, clock):
    start = clock[0]
    sliding = Window(log, "home", POLICY)
    for step in range(12):  # a bucket each, two windows long
        clock[0] = start + 10 * step
        FeedbackIntake(log).record(events("u9", f"i{step}", impressions=1 + step))
        run()
        pairs, counts = sliding.total(clock[0])
        found = {item: n for (_, item), (n, _) in zip(pairs, counts.tolist(), strict=True)}
        assert found == {f"i{s}": 1 + s for s in range(max(0, step - 5), step + 1)}


def test_a_batch_is_made_when_something_changed(log, run, clock):
    table = MemoryCompactedLog()
    maker = BatchMaker(log, table, {"home": POLICY, "menu": POLICY}, 10.0)
    maker.make(clock[0])
    assert table.changes(0, 10).latest == 2, "empty batches, so that readers draw from the prior"
    maker.make(clock[0] + 10)
    assert table.changes(0, 10).latest == 2
    FeedbackIntake(log).record(events("u1", "a", 7, 2) + events("u9", "b", 1))
    run()
    maker.make(clock[0])
    found = table.changes(2, 10).changed
    assert list(found) == ["home"]
    made = bandit_pb2.BanditBatch.FromString(found["home"])
    assert list(made.item_ids) == ["a", "b"]
    assert {s.segment for s in made.segments} == {"all", "cohort=3", "demographic=21"}
    drawn = BatchDraws(made).draw("cohort=3", ["b", "a"])
    assert drawn.impressions.tolist() == [1, 7], "of everybody where the segment has none"
    assert drawn.rewards.tolist() == [0, 2]
    again = MemoryCompactedLog()
    BatchMaker(log, again, {"home": POLICY}, 10.0).make(clock[0])
    other = bandit_pb2.BanditBatch.FromString(again.changes(0, 10).changed["home"])
    assert (other.batch_id, other.seed) == (made.batch_id, made.seed), "two makers agree"
    FeedbackIntake(log).record(events("u9", "b", 1))
    run()
    BatchMaker(log, again, {"home": POLICY}, 10.0).make(clock[0])
    other = bandit_pb2.BanditBatch.FromString(again.changes(0, 10).changed["home"])
    assert other.batch_id != made.batch_id, "other counts, another batch"


# --- segments --------------------------------------------------------------------------------


def test_segments_are_features_of_one_view():
    for wrong in (["a.b", "c.d"], ["plain"], ["a.b.c"]):
        with pytest.raises(ValueError, match="segments"):
            SegmentBy(wrong)
    assert SegmentBy([]).lookups(["u"]) == []
    assert SegmentBy([]).of([], 2) == [["all"], ["all"]]
    (lookup,) = SEGMENTS.lookups(["u1", "u2"])
    assert (lookup.view, list(lookup.features)) == ("user_segments", ["cohort", "demographic"])


def test_only_present_values_name_a_segment():
    present, null = tensor_pb2.FEATURE_STATUS_PRESENT, tensor_pb2.FEATURE_STATUS_NULL
    rows = feature_store_pb2.ViewRows(
        blocks=[
            block(
                ["demographic", "cohort"],  # in another order than asked
                np.array([[21, 0], [11, 4]]),
                statuses=bytes([present, null, present, present]),
            )
        ]
    )
    assert SEGMENTS.of([rows], 2) == [
        ["demographic=21", "all"],
        ["cohort=4", "demographic=11", "all"],
    ]
