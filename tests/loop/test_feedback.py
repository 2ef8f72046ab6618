"""What users do changes what is shown next, once each, through crashes."""

import itertools
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import polars as pl
import pytest
from calls import NOT_LOOPED, Clients, degraded, recommend, refused, serve

from madang.feature.v1 import feature_store_pb2 as f
from madang.ranker.v1 import bandit_pb2
from madang.ranker.v1 import ranker_pb2 as r
from madang_cli.mesh.mesh import LocalMesh, wait_for
from madang_cli.mesh.processes import ManagedProcess, free_port
from madang_ranker.bandit.batches import TABLE
from madang_ranker.feedback import GROUP, LOG
from madang_runtime.changelog.compacted_redis import RedisCompactedLog
from madang_runtime.changelog.redis import RedisChangeLog
from madang_runtime.segments import EVERYBODY
from madang_runtime.times import now_ms

CLICK, CONVERSION = r.FEEDBACK_TYPE_CLICK, r.FEEDBACK_TYPE_CONVERSION
HOUR_MS = 3_600_000


def event(item, kind=CLICK, user="", at_ms=None, event_id=""):
    made = r.FeedbackEvent(
        event_id=event_id or uuid.uuid4().hex,
        type=kind,
        user_id=user or uuid.uuid4().hex,
        item_id=item,
        surface="discover",  # whose bandit counts clicks
    )
    if at_ms is not None:
        made.event_time.FromMilliseconds(at_ms)
    return made


def send(clients, events):
    return clients.ranker.RecordFeedback(r.RecordFeedbackRequest(events=events), timeout=5)


def counts(clients, items, name="clicks_1h"):
    """A windowed count of items."""
    lookup = {"view": "item_activity", "features": [name], "entity_ids": items}
    answer = clients.features.LookupFeatures(f.LookupFeaturesRequest(lookups=[lookup]), timeout=5)
    return np.frombuffer(answer.rows[0].blocks[0].values.data, "<f4").astype(int).tolist()


def worked_off(mesh):
    """Whether everything accepted has been applied."""
    log = RedisChangeLog(f"redis://{mesh.info.store}", LOG, 1.0)
    try:
        return wait_for(lambda: log.behind(GROUP) == 0, 30)
    finally:
        log.close()


def rewarded(mesh):
    """The rewards of each item in the last batch of the bandit."""
    table = RedisCompactedLog(f"redis://{mesh.info.store}", TABLE, 1.0)
    try:
        payload = table.changes(0, 10).changed["discover"]
    finally:
        table.close()
    batch = bandit_pb2.BanditBatch.FromString(payload)
    everybody = next((s for s in batch.segments if s.segment == EVERYBODY), None)
    if not everybody:
        return Counter()
    arms = np.frombuffer(everybody.arms, "<u4").tolist()
    found = zip(arms, np.frombuffer(everybody.rewards, "<u4").tolist(), strict=True)
    return Counter({batch.item_ids[arm]: n for arm, n in found})


def fresh_items(n):
    """Ids that no other test counts."""
    return [f"item-{uuid.uuid4().hex}" for _ in range(n)]


def sources(clients, user):
    """Which sources proposed each item of a user's feed, in its order."""
    feed = clients.ranker.Recommend(recommend(user, page_size=100), timeout=5)
    assert not degraded(feed)
    return {item.item_id: {s.source for s in item.reasons} for item in feed.items}


def test_a_click_changes_the_next_feed(clients):
    user = uuid.uuid4().hex
    before = sources(clients, user)
    assert not any("reactive" in s for s in before.values())
    clicked = list(before)[-1]
    assert send(clients, [event(clicked, user=user)]).accepted == 1
    assert wait_for(lambda: any("reactive" in s for s in sources(clients, user).values()), 5)
    after = list(sources(clients, user))
    assert after.index(clicked) < list(before).index(clicked) - 10, "it and its like rise"
    assert after != list(before)


def test_a_hidden_item_is_not_shown_again(clients):
    user = uuid.uuid4().hex
    hidden, kept, *_ = sources(clients, user)
    send(clients, [event(hidden, r.FEEDBACK_TYPE_HIDE, user)])
    assert wait_for(lambda: hidden not in sources(clients, user), 5)
    assert kept in sources(clients, user)


def test_duplicates_disorder_and_lateness_count_as_they_should(mesh, clients):
    a, b, late = fresh_items(3)
    now = now_ms()
    clicks = [event(a, at_ms=now - n * 60_000) for n in range(10)]
    disorder = [clicks[n] for n in np.random.default_rng(0).permutation(10)]
    assert send(clients, [*disorder, *disorder[:4]]).duplicates == 4
    assert send(clients, clicks).duplicates == 10
    ages = (2 * HOUR_MS, 23 * HOUR_MS, 72 * HOUR_MS)
    send(clients, [event(b, CONVERSION, at_ms=now - age) for age in ages])
    send(clients, [event(late, at_ms=now - 72 * HOUR_MS)])
    assert worked_off(mesh)
    assert counts(clients, [a, b, late]) == [10, 0, 0]
    assert counts(clients, [a, b, late], "orders_1h") == [0, 0, 0]
    assert counts(clients, [a, b, late], "orders_1d") == [0, 2, 0]


def test_bad_feedback_is_refused_whole(clients):
    rpc = clients.ranker.RecordFeedback
    (item,) = fresh_items(1)

    def request(*events):
        return r.RecordFeedbackRequest(events=[event(item), *events])

    assert refused(rpc, r.RecordFeedbackRequest()) == "INVALID_ARGUMENT FIELD_INVALID events"
    assert refused(rpc, request(*[event(item)] * 1000)) == "INVALID_ARGUMENT FIELD_INVALID events"
    for bad, field in (
        (event(""), "events[1].item_id"),
        (event(item, 0), "events[1].type"),
        (event(item, 9), "events[1].type"),
        (event(item, event_id="x" * 129), "events[1].event_id"),
        (event(item, at_ms=now_ms() + HOUR_MS), "events[1].event_time"),
    ):
        assert refused(rpc, request(bad)) == f"INVALID_ARGUMENT FIELD_INVALID {field}"
    time.sleep(0.3)
    assert counts(clients, [item]) == [0]


class Sender:
    """Sends clicks without pause, each until it is taken, as a client with retries does."""

    def __init__(self, clients, items) -> None:
        self._clients = clients
        self._items = itertools.cycle(items)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent: Counter[str] = Counter()
        self.failures = 0
        self.odd = 0

    def _run(self) -> None:
        while not self._stop.is_set():
            batch = [event(next(self._items)) for _ in range(20)]
            while True:
                try:
                    answer = send(self._clients, batch)
                except grpc.RpcError:
                    self.failures += 1
                    time.sleep(0.05)
                else:
                    self.odd += answer.accepted + answer.duplicates != len(batch)
                    break
            self.sent.update(e.item_id for e in batch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()
        assert not self.odd


def test_nothing_accepted_is_lost_or_counted_twice(own_mesh, own_clients, tmp_path):
    """kill -9 of everything that an event passes through, while two consumers work."""
    second = f"127.0.0.1:{free_port()}"
    other = ManagedProcess(
        "consumer", *_swap(own_mesh.service_command("consumer", second), tmp_path / "log")
    )
    other.start()
    items = fresh_items(7)
    try:
        with Sender(own_clients, items) as one, Sender(own_clients, items) as two:
            for part in ("consumer", "ranker", "featurestore", "store", "consumer", "store"):
                time.sleep(0.7)
                own_mesh.kill(part)
                time.sleep(0.3)
                own_mesh.start(part)
            other.kill()
            own_mesh.wait_ready("ranker")
            time.sleep(1.0)
        assert one.failures + two.failures > 0, "the crashes were felt"
        assert worked_off(own_mesh)
    finally:
        other.stop()
    sent = one.sent + two.sent
    assert sum(sent.values()) > 1000
    assert counts(own_clients, items) == [sent[item] for item in items]
    files = Path(own_mesh.info.folder) / "feedback" / "*" / "*.parquet"

    def archived() -> Counter[str]:
        return Counter(pl.read_parquet(files).unique("event_id")["item_id"].to_list())

    assert wait_for(lambda: archived() == sent, 30)
    assert wait_for(lambda: rewarded(own_mesh) == sent, 30)


def _swap(command, log):
    """A service's command as the arguments of a process."""
    return command[0], log, command[1]


@pytest.fixture(scope="module")
def wide(workspace):
    """A mesh of two workers a service."""
    with LocalMesh(workspace.home, "wide", workers=2, without=NOT_LOOPED) as made:
        serve(made, workspace)
        yield made


def test_two_workers_take_an_event_once(wide):
    items = fresh_items(20)
    events = [event(item, event_id=item) for item in items]

    def record(_):
        with grpc.insecure_channel(wide.info.gateway) as channel:
            return send(Clients(channel), events).accepted

    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(record, range(16)))
    assert sum(accepted) == len(items)
    assert worked_off(wide)
    with grpc.insecure_channel(wide.info.gateway) as channel:
        assert counts(Clients(channel), items) == [1] * len(items)
