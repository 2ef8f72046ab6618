"""Feedback is taken durably and applied once."""

import threading
from collections import Counter

import polars as pl
import pytest

from madang.feature.v1 import feature_store_pb2 as f
from madang.ranker.v1 import ranker_pb2 as pb
from madang_ranker.feedback import ACTIONS, ARCHIVE_GROUP, GROUP, FeedbackConsumer, FeedbackIntake
from madang_ranker.feedback_archive import FeedbackArchiver
from madang_ranker.stores.parquet import feedback_frame
from madang_runtime.archive import ParquetArchive
from madang_runtime.changelog.memory import MemoryChangeLog
from madang_runtime.errors import Code, MadangError, invalid, reason
from madang_runtime.metrics import Metrics
from madang_runtime.times import now_ms

UNAVAILABLE = MadangError(
    Code.UNAVAILABLE, reason.ERROR_REASON_STORE_UNAVAILABLE, "away", retry_after=0.01
)


def event(event_id, kind=pb.FEEDBACK_TYPE_CLICK, item="i", **fields):
    return pb.FeedbackEvent(event_id=event_id, type=kind, user_id="u", item_id=item, **fields)


class Store:
    """Records actions, once an id, unless it is told to fail."""

    name = "record_actions"

    def __init__(self):
        self.actions: dict[str, f.Action] = {}
        self.times: Counter[str] = Counter()
        self.failures: list[MadangError] = []
        self.poison = ""

    def __call__(self, request):
        if self.failures:
            raise self.failures.pop()
        for action in request.actions:
            if action.event_id == self.poison:
                raise invalid("actions", "is a bug")
            self.times[action.event_id] += 1
            self.actions.setdefault(action.event_id, action)
        return f.RecordActionsResponse()


@pytest.fixture
def log():
    return MemoryChangeLog(abandoned_after=0.1)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def rejected():
    return MemoryChangeLog()


@pytest.fixture
def consume(log, rejected, store):
    """Runs a consumer until the log is worked off."""

    def run():
        stop = threading.Event()
        consumer = FeedbackConsumer(log, rejected, store, Metrics(), "c")
        thread = threading.Thread(target=consumer.run, args=(stop,))
        thread.start()
        for _ in range(500):
            if not log.behind(GROUP):
                break
            stop.wait(0.01)
        stop.set()
        thread.join()

    return run


def test_every_type_becomes_its_action(log, store, consume):
    events = [event(str(kind), kind) for kind in ACTIONS]
    assert FeedbackIntake(log).record(events).accepted == 4
    consume()
    assert {a.event_id: a.type for a in store.actions.values()} == {
        str(pb.FEEDBACK_TYPE_IMPRESSION): f.ACTION_TYPE_VIEW,
        str(pb.FEEDBACK_TYPE_CLICK): f.ACTION_TYPE_CLICK,
        str(pb.FEEDBACK_TYPE_CONVERSION): f.ACTION_TYPE_ORDER,
        str(pb.FEEDBACK_TYPE_HIDE): f.ACTION_TYPE_HIDE,
    }


def test_duplicates_are_told_and_not_taken(log, store, consume):
    intake = FeedbackIntake(log)
    answer = intake.record([event("1"), event("1"), event("2")])
    assert (answer.accepted, answer.duplicates) == (2, 1)
    assert intake.record([event("2")]).duplicates == 1
    consume()
    assert store.times == {"1": 1, "2": 1}


def test_an_event_keeps_its_own_time(log, store, consume):
    before = now_ms()
    FeedbackIntake(log).record([event("now"), event("then", event_time={"seconds": 1_700_000_000})])
    consume()
    assert store.actions["then"].event_time.seconds == 1_700_000_000
    assert before <= store.actions["now"].event_time.ToMilliseconds() <= now_ms()


@pytest.mark.parametrize("seconds", [-5, 10**12, "in an hour"])
def test_impossible_times_are_refused_and_nothing_is_taken(log, seconds):
    if seconds == "in an hour":
        seconds = now_ms() // 1000 + 3600
    with pytest.raises(MadangError) as caught:
        FeedbackIntake(log).record([event("1"), event("2", event_time={"seconds": seconds})])
    assert caught.value.about["field"] == "events[1].event_time"
    assert log.behind(GROUP) == 0


def test_feedback_is_archived_and_given_again_when_that_fails(log, tmp_path):
    archive = ParquetArchive(f"file://{tmp_path}", feedback_frame)
    failures = [OSError("full"), OSError("full")]

    def write(events):
        if failures:
            raise failures.pop()
        archive.write(events)

    later = event("later", 77)  # a type that this version does not know
    FeedbackIntake(log).record([*(event(str(n), request_id="r") for n in range(600)), later])
    stop = threading.Event()
    archiver = FeedbackArchiver(log, write, Metrics(), "a", 0.05)
    thread = threading.Thread(target=archiver.run, args=(stop,))
    thread.start()
    for _ in range(500):
        if not log.behind(ARCHIVE_GROUP):
            break
        stop.wait(0.01)
    stop.set()
    thread.join()
    assert not failures
    found = pl.read_parquet(tmp_path / "*" / "*.parquet")
    assert found["event_id"].n_unique() == 601
    assert found.filter(event_id="later")["type"].to_list() == ["77"]
    row = found.row(0, named=True)
    assert (row["type"], row["item_id"], row["request_id"]) == ("CLICK", "i", "r")
    assert abs(row["time"].timestamp() * 1000 - now_ms()) < 60_000


def test_an_outage_is_waited_out(log, store, consume):
    FeedbackIntake(log).record([event(str(n)) for n in range(10)])
    store.failures = [UNAVAILABLE] * 5
    consume()
    assert store.times == {str(n): 1 for n in range(10)}


def test_a_bug_of_the_store_loses_nothing(log, rejected, store, consume):
    FeedbackIntake(log).record([event(str(n)) for n in range(3)])
    bug = MadangError(Code.INTERNAL, reason.ERROR_REASON_INTERNAL, "bug", retry_after=0.01)
    store.failures = [bug] * 3
    consume()
    assert set(store.actions) == {"0", "1", "2"}
    assert not rejected.take("people", "me", 10, 0.01)


def test_a_type_of_a_later_version_is_set_aside(log, rejected, store, consume):
    FeedbackIntake(log).record([event("1"), event("2", 77), event("3")])
    consume()
    assert set(store.actions) == {"1", "3"}
    assert len(rejected.take("people", "me", 10, 0.1)) == 1


def test_what_the_store_refuses_is_set_aside_and_the_rest_is_applied(log, rejected, store, consume):
    FeedbackIntake(log).record([event(str(n)) for n in range(10)])
    store.poison = "4"
    consume()
    assert set(store.actions) == {str(n) for n in range(10)} - {"4"}
    (kept,) = rejected.take("people", "me", 10, 0.1)
    assert pb.FeedbackEvent.FromString(kept.payload).event_id == "4"
