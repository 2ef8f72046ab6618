"""What ads spend, and how it is paced."""

import threading
from functools import partial
from itertools import count

import numpy as np
import pytest

from madang.candidate.v1 import candidate_pb2
from madang.ranker.v1 import pacing_pb2
from madang.ranker.v1 import ranker_pb2 as pb
from madang_ranker.campaigns.pacing import BATCH_KEY, LEAST, START, Pacer, due, next_rates
from madang_ranker.campaigns.spend import SpendCounter, day_of, spend_name
from madang_ranker.feedback import SPEND_GROUP, FeedbackIntake, patiently
from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.changelog.memory import MemoryChangeLog
from madang_runtime.errors import Code, MadangError, reason

DAY, EVEN = 86_400, [1.0] * 24
NOON = 20_000 * DAY + DAY / 2
ids = count()


def campaign(item_id, bid=10, budget=100):
    return candidate_pb2.Campaign(item_id=item_id, bid_micros=bid, daily_budget_micros=budget)


@pytest.fixture
def campaigns():
    return {"a": campaign("a"), "b": campaign("b", 7, 0)}


@pytest.fixture
def log():
    return MemoryChangeLog()


@pytest.fixture
def clock(monkeypatch):
    now = [NOON]
    monkeypatch.setattr("madang_ranker.campaigns.spend.time.time", lambda: now[0])
    return now


@pytest.fixture
def count_all(log, campaigns, clock):
    counter = SpendCounter(log, lambda: campaigns, 0, "c")

    def until_done():
        while log.behind(SPEND_GROUP):
            entries = log.take(SPEND_GROUP, "c", 500, 0.1)
            patiently(threading.Event(), partial(counter._count, entries))

    return until_done


def tell(log, item, kind=pb.FEEDBACK_TYPE_CLICK, n=1):
    events = [
        pb.FeedbackEvent(event_id=f"e{next(ids)}", type=kind, user_id="u", item_id=item)
        for _ in range(n)
    ]
    FeedbackIntake(log).record(events)
    return events


def test_a_click_costs_its_bid_once(log, count_all):
    twice = tell(log, "a", n=3)
    FeedbackIntake(log).record(twice)
    tell(log, "b", n=2)
    tell(log, "a", pb.FEEDBACK_TYPE_IMPRESSION)
    tell(log, "a", pb.FEEDBACK_TYPE_CONVERSION)
    tell(log, "no ad")
    log.append([("x", b"\xff\xff\xff")])
    count_all()
    assert log.counters(spend_name(20_000)) == {"a": 30, "b": 14}


def test_a_day_begins_where_the_marketplace_is(log, campaigns, count_all, clock):
    tell(log, "a")
    count_all()
    clock[0] += DAY
    tell(log, "a", n=2)
    count_all()
    assert log.counters(spend_name(20_000)) == {"a": 10}
    assert log.counters(spend_name(20_001)) == {"a": 20}
    assert day_of(NOON, 9) == (20_000, 0.875)
    assert day_of(NOON, 12) == (20_001, 0.0)
    assert day_of(NOON, -13) == (19_999, pytest.approx(23 / 24))


def test_what_can_not_be_charged_yet_waits(log, campaigns, clock):
    away = [True]

    def current():
        if away.pop():
            away.append(False)
            raise MadangError(Code.UNAVAILABLE, reason.ERROR_REASON_NOT_FRESH_YET, "away")
        return campaigns

    counter = SpendCounter(log, current, 0, "c")
    tell(log, "a")
    entries = log.take(SPEND_GROUP, "c", 500, 0.1)
    patiently(threading.Event(), partial(counter._count, entries))
    assert log.counters(spend_name(20_000)) == {"a": 10}


def test_what_is_due_follows_the_hours():
    assert due(0.0, EVEN) == 0
    assert due(0.25, EVEN) == pytest.approx(0.25)
    evening = [0.0] * 18 + [1.0, 2.0, 1.0] + [0.0] * 3
    assert due(0.5, evening) == 0
    assert due(19.5 / 24, evening) == pytest.approx(0.5)
    assert due(0.99, evening) == 1


def test_rates_fall_when_ahead_rise_when_behind_and_end_with_the_budget():
    rates = np.array([0.5, 0.5, 0.5, 0.99, 0.001, 0.5])
    spent = np.array([60, 40, 100, 0, 90, 101.0])
    found = next_rates(rates, spent, np.full(6, 100.0), 0.5)
    assert found == pytest.approx([0.45, 0.55, 0, 1, LEAST, 0])


class Day:
    """A pacer over a log whose clicks are charged at once."""

    def __init__(self, log, campaigns, hours=EVEN):
        self.log, self.table = log, MemoryCompactedLog()
        self.behind = 0.0
        self.pacer = Pacer(log, self.table, lambda: campaigns, hours, 0, 60, lambda: self.behind)

    def batch(self, now):
        self.pacer.make(now)
        payload = self.table.changes(0, 9).changed[BATCH_KEY]
        batch = pacing_pb2.PacingBatch.FromString(payload)
        rates = np.frombuffer(batch.rates, "<f4").tolist()
        return batch, dict(zip(batch.item_ids, rates, strict=True))


def test_batches_follow_the_day(log, campaigns, count_all, clock):
    campaigns["late"] = campaign("late", 60, 100)
    day = Day(log, campaigns)
    batch, rates = day.batch(NOON)
    assert batch.day == 20_000
    assert rates == pytest.approx({"a": START * 1.1, "late": START * 1.1}), "b has no budget"
    tell(log, "late")
    count_all()
    batch, rates = day.batch(NOON + 60)
    assert rates == pytest.approx({"a": START * 1.1**2, "late": START * 1.1 * 0.9})
    assert np.frombuffer(batch.spent_micros, "<i8").tolist() == [0, 60]
    tell(log, "late")
    count_all()
    assert day.batch(NOON + 120)[1]["late"] == 0
    del campaigns["a"]
    campaigns["late"].daily_budget_micros = 1000
    assert day.batch(NOON + 180)[1] == pytest.approx({"late": START * 1.1}), "it has budget again"
    batch, rates = day.batch(NOON + DAY)
    assert (batch.day, rates) == (20_001, pytest.approx({"late": START * 1.1}))
    assert np.frombuffer(batch.spent_micros, "<i8").tolist() == [0]


def test_of_two_pacers_one_moves_the_rates(log, campaigns):
    one = Day(log, campaigns)
    two = Day(log, campaigns)
    two.pacer = Pacer(log, one.table, lambda: campaigns, EVEN, 0, 60, lambda: 0.0)
    two.table = one.table
    first, _ = one.batch(NOON)
    again, _ = two.batch(NOON + 20)
    assert first == again
    campaigns["new"] = campaign("new")
    batch, rates = two.batch(NOON + 21)
    assert rates == pytest.approx({"a": START * 1.1, "new": START}), "a new campaign does not wait"
    assert batch.made_at == first.made_at, "and others don't wait for it"
    assert one.batch(NOON + 60)[1] == pytest.approx({"a": START * 1.1**2, "new": START * 1.1})


def test_a_new_campaign_brings_no_spent_one_back(log, campaigns, count_all, clock):
    day = Day(log, campaigns)
    tell(log, "a", n=20)
    count_all()
    assert day.batch(NOON)[1] == {"a": 0}
    campaigns["new"] = campaign("new")
    assert day.batch(NOON + 1)[1] == pytest.approx({"a": 0, "new": START})


def test_a_batch_from_the_future_is_replaced(log, campaigns):
    day = Day(log, campaigns)
    day.batch(NOON + 3600)
    assert day.batch(NOON)[0].made_at.ToMilliseconds() == NOON * 1000


def test_nobody_vouches_for_what_is_not_counted(log, campaigns):
    day = Day(log, campaigns)
    first, _ = day.batch(NOON)
    day.behind = 11.0
    assert day.batch(NOON + 60)[0] == first
    day.behind = 0.0
    log.behind(SPEND_GROUP)  # the group is there
    for _ in range(6):
        tell(log, "a", n=1000)
    assert day.batch(NOON + 60)[0] == first
    while entries := log.take(SPEND_GROUP, "c", 500, 0.0):
        log.done(SPEND_GROUP, [entry.position for entry in entries])
    assert day.batch(NOON + 60)[0] != first


def test_without_campaigns_nothing_is_published(log):
    day = Day(log, {"b": campaign("b", 7, 0)})
    day.pacer.make(NOON)
    assert not day.table.changes(0, 9).changed


def test_a_day_of_traffic_spends_the_budget_evenly_and_little_more(log, clock):
    """Far more clicks are to be had than the budget pays for: 1,440 minutes, 20 users a minute."""
    budget = 2000
    paced = {"a": campaign("a", 10, budget)}
    day, rng = Day(log, paced), np.random.default_rng(3)
    counter = SpendCounter(log, lambda: paced, 0, "c")
    start, spent = 20_000 * DAY, []
    for minute in range(1440):
        clock[0] = start + 60 * minute
        rate = day.batch(clock[0])[1]["a"]
        if clicks := int(rng.binomial(20, rate * 0.3)):
            tell(log, "a", n=clicks)
            counter._count(log.take(SPEND_GROUP, "c", 500, 0.1))
        spent.append(log.counters(spend_name(20_000)).get("a", 0))
    assert budget * 0.97 <= spent[-1] <= budget * 1.02
    quarters = np.array(spent)[[359, 719, 1079]] / budget
    assert quarters == pytest.approx([0.25, 0.5, 0.75], abs=0.05)
