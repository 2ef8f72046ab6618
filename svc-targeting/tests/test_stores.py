"""The suites of all stores of segments and of results."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1.segment_record_pb2 import SegmentRecord
from madang_runtime.errors import MadangError
from madang_targeting.results import Event
from madang_targeting.stores.connection import Connection
from madang_targeting.stores.memory import MemoryResultStore, MemorySegmentStore
from madang_targeting.stores.redis_results import RedisResultStore
from madang_targeting.stores.redis_segments import RedisSegmentStore


@pytest.fixture(params=["memory", "valkey", "valkey, synced"])
def stores(request):
    """Stores of segments and results, and a prefix of ids that nobody else uses."""
    name = uuid.uuid4().hex
    if request.param == "memory":
        yield MemorySegmentStore(), MemoryResultStore(), name
        return
    url = request.getfixturevalue("valkey")
    connection = Connection(url, 2.0, synced="synced" in request.param)
    yield RedisSegmentStore(connection), RedisResultStore(connection, 1000), name
    connection.close()


def segment(name, state=pb.OPERATION_STATE_PENDING, created=1, size=0):
    record = SegmentRecord(segment=pb.Segment(segment_id=name))
    operation = record.segment.operation
    operation.segment_id, operation.state = name, state
    operation.create_time.FromMilliseconds(created)
    record.segment.spec.size = size
    return record


def test_a_segment_is_kept_changed_and_forgotten(stores):
    store, _, name = stores
    assert store.get(name) is None
    assert store.put(segment(name), 0)
    kept = store.get(name)
    assert kept.record == segment(name)
    done = segment(name, pb.OPERATION_STATE_DONE)
    assert store.put(done, kept.version, b"\x00\xffmembers")
    assert store.members(name) == b"\x00\xffmembers"
    assert store.put(done, kept.version + 1)
    assert store.members(name) == b"\x00\xffmembers", "a change without members leaves them"
    assert store.delete(name)
    assert not store.delete(name)
    assert store.get(name) is store.members(name) is None


def test_whoever_saw_an_older_version_changes_nothing(stores):
    store, _, name = stores
    assert store.put(segment(name), 0)
    first = store.get(name).version
    assert not store.put(segment(name, size=9), 0, b"stale")
    assert store.put(segment(name, size=2), first)
    for stale in (first, first + 7):
        assert not store.put(segment(name, size=9), stale, b"stale")
    assert store.get(name).record.segment.spec.size == 2
    assert store.members(name) is None
    store.delete(name)
    store.put(segment(name), 0)
    assert not store.put(segment(name, size=9), first, b"of another of the same id")


def test_of_many_at_once_one_wins_each_version(stores):
    store, _, name = stores

    def change(size):
        return store.put(segment(name, size=size), 0)

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(change, range(16))) == 1


def test_pages_go_by_id(stores):
    store, _, name = stores
    names = [f"{name}-{i:02}" for i in range(7)]
    for one in reversed(names):
        store.put(segment(one), 0)
    store.delete(names[3])
    found, after = [], f"{name}-"
    while page := [k.record.segment.segment_id for k in store.page(after, 2)]:
        found += [one for one in page if one.startswith(name)]
        after = page[-1]
    assert found == names[:3] + names[4:]


def test_open_operations_come_in_the_order_they_were_asked_for(stores):
    store, _, name = stores
    for i, created in enumerate((30, 10, 20)):
        store.put(segment(f"{name}-{i}", created=created), 0)

    def waiting():
        return [one.removeprefix(name) for one in store.open_ids() if one.startswith(name)]

    assert waiting() == ["-1", "-2", "-0"]
    last = store.get(f"{name}-2").version
    store.put(segment(f"{name}-2", pb.OPERATION_STATE_RUNNING, created=20), last)
    assert waiting() == ["-1", "-2", "-0"]
    last = store.get(f"{name}-1").version
    store.put(segment(f"{name}-1", pb.OPERATION_STATE_FAILED), last)
    store.delete(f"{name}-0")
    assert waiting() == ["-2"]


def test_results_are_kept_once_each(stores):
    _, store, name = stores
    assert store.read(name) == {}
    assert store.known([name, name]) == [False, False]
    assert store.known([]) == []
    store.append(name, Event.SENT, ["a", "b\n", "다"])
    store.append(name, Event.SENT, ["a", "c"])
    store.append(name, Event.CLICK, ["다"])
    store.append(f"{name}2", Event.ORDER, ["x"])
    assert store.read(name) == {Event.SENT: {"a", "b\n", "c", "다"}, Event.CLICK: {"다"}}
    assert [store.channel(n) for n in (name, f"{name}2")] == ["", ""]
    store.append(f"{name}2", Event.SENT, ["x"], "푸시")
    assert store.channel(f"{name}2") == "푸시"
    assert store.known([name, "nobody", f"{name}2"]) == [True, False, True]


def test_many_parts_are_all_read(stores):
    _, store, name = stores
    with ThreadPoolExecutor(16) as pool:  # as one disk write is waited for by all
        list(pool.map(lambda i: store.append(name, Event.SENT, [f"u{i}", f"v{i}"]), range(230)))
    assert len(store.read(name)[Event.SENT]) == 460


def test_a_store_that_is_away_says_so():
    connection = Connection("redis://127.0.0.1:1", 0.2)
    for call in (
        lambda: RedisSegmentStore(connection).get("a"),
        lambda: RedisSegmentStore(connection).put(segment("a"), 0),
        lambda: RedisResultStore(connection, 10).append("c", Event.SENT, ["u"]),
    ):
        with pytest.raises(MadangError) as caught:
            call()
        assert caught.value.reason_name == "STORE_UNAVAILABLE"


def test_results_are_forgotten_after_a_while(valkey):
    connection = Connection(valkey, 2.0)
    store, name = RedisResultStore(connection, 1000), uuid.uuid4().hex
    store.append(name, Event.SENT, ["u"])
    assert 990 < connection.client.ttl(f"results:{name}") <= 1000
    connection.close()
