"""The conformance suite of compacted logs, and of what follows them."""

import threading
import time
import uuid

import pytest
import redis

from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.changelog.compacted_redis import RedisCompactedLog
from madang_runtime.changelog.follower import Follower
from madang_runtime.errors import MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.scope import SCOPE, CallScope


@pytest.fixture(params=["memory", "redis"])
def table(request):
    if request.param == "memory":
        made = MemoryCompactedLog()
    else:
        made = RedisCompactedLog(request.getfixturevalue("valkey"), uuid.uuid4().hex, 1.0)
    yield made
    made.close()


class Copy:
    """What a replica keeps."""

    def __init__(self):
        self.rows = {}
        self.beginnings = 0

    def apply(self, changed, anew):
        if anew:
            self.rows.clear()
            self.beginnings += 1
        for key, payload in changed.items():
            if payload is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = payload


def follow(table, copy, every=60.0):
    return Follower(table, "things", copy.apply, Metrics(), every)


def test_the_last_change_of_each_key_is_kept_in_order(table):
    assert table.changes(0, 10)[:3] == (0, 0, {})
    assert table.write({"a": b"\x00one", "b": b"two"}) == 2
    assert table.write({"a": b"three", "b": None}) == 4
    assert table.changes(0, 10)[:3] == (4, 4, {"a": b"three", "b": None})
    assert list(table.changes(0, 10).changed) == ["a", "b"]
    assert table.changes(3, 10)[:3] == (4, 4, {"b": None})
    assert table.changes(4, 10)[:3] == (4, 4, {})
    assert table.write({}) == 4


def test_changes_come_in_parts(table):
    table.write({f"{i:03d}": b"x" for i in range(25)})
    first = table.changes(0, 10)
    assert first.position == 10
    assert first.latest == 25
    assert list(first.changed) == [f"{i:03d}" for i in range(10)]
    assert table.changes(20, 10).position == 25


def test_deleting_what_is_not_there_is_a_change_as_any(table):
    assert table.write({"ghost": None}) == 1
    assert table.changes(0, 10).changed == {"ghost": None}


def test_concurrent_writers_get_positions_of_their_own(table):
    reached = []
    threads = [
        threading.Thread(target=lambda i=i: reached.append(table.write({f"k{i}": b"x"})))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reached) == list(range(1, 9))
    assert len(table.changes(0, 100).changed) == 8


def test_a_reader_reaches_a_position_at_once(table):
    copy = Copy()
    follower = follow(table, copy)
    follower.start()
    position = table.write({"a": b"1"})
    assert copy.rows == {}, "it looks once a minute"
    follower.reach(position)
    assert copy.rows == {"a": b"1"}
    with pytest.raises(MadangError) as failed:
        follower.reach(position + 1)
    assert failed.value.reason == reason.ERROR_REASON_NOT_FRESH_YET
    follower.close()


def test_a_reader_is_renewed_whatever_it_has_reached(table):
    copy = Copy()
    follower = follow(table, copy)
    follower.renew()
    table.write({"a": b"1"})
    follower.renew()
    assert copy.rows == {"a": b"1"}
    follower.close()


def test_a_reader_follows_by_itself(table):
    copy = Copy()
    follower = follow(table, copy, every=0.02)
    follower.start()
    table.write({"a": b"1", "b": b"2"})
    table.write({"a": None})
    until = time.monotonic() + 5
    while copy.rows != {"b": b"2"} and time.monotonic() < until:
        time.sleep(0.01)
    assert copy.rows == {"b": b"2"}
    assert follower.age < 1
    follower.close()


def test_a_late_starter_reads_everything_in_parts(table):
    table.write({f"{i}": b"x" for i in range(2500)})
    table.write({f"{i}": None for i in range(0, 2500, 2)})
    copy = Copy()
    follower = follow(table, copy)
    follower.start()
    assert sorted(copy.rows, key=int) == [str(i) for i in range(1, 2500, 2)]
    follower.close()


def test_a_store_that_lost_its_writes_is_read_anew(valkey):
    name, copy = uuid.uuid4().hex, Copy()
    table = RedisCompactedLog(valkey, name, 1.0)
    follower = follow(table, copy)
    table.write({"a": b"1", "b": b"2"})
    follower.start()
    with redis.Redis.from_url(valkey) as client:
        client.delete(*client.keys(f"table:{{{name}}}:*"))
    follower.reach(table.write({"c": b"3"}))  # a position that the follower believes to have seen
    follower._look()
    assert copy.rows == {"c": b"3"}
    assert copy.beginnings == 1
    follower.close()


def test_another_store_is_read_anew_even_where_it_is_further(table):
    """One that took over without the last writes may have reached later positions since."""
    copy = Copy()
    follower = follow(table, copy)
    table.write({"lost": b"1"})
    follower.start()

    class Other(MemoryCompactedLog):
        def changes(self, after, limit):
            return super().changes(after, limit)._replace(store="other")

    other = Other()
    position = other.write({"new": b"2", "newer": b"3"})
    follower._table = other
    follower.reach(position)
    assert copy.rows == {"new": b"2", "newer": b"3"}
    assert copy.beginnings == 1
    follower.close()


def test_readers_of_one_position_share_a_look(table):
    copy, looks = Copy(), []
    follower = follow(table, copy)
    follower.start()
    position, changes = table.write({"a": b"1"}), table.changes

    def slowly(after, limit):
        looks.append(after)
        time.sleep(0.2)
        return changes(after, limit)

    table.changes = slowly
    started = time.monotonic()
    readers = [threading.Thread(target=follower.reach, args=(position,)) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(looks) == 1
    assert time.monotonic() - started < 0.6
    table.changes = changes
    follower.close()


def test_a_reader_waits_for_another_no_longer_than_its_deadline(table):
    follower = follow(table, Copy())
    follower.start()
    with follower._lock:
        token = SCOPE.set(CallScope(deadline=time.monotonic() + 0.1))
        started = time.monotonic()
        with pytest.raises(MadangError):
            follower.reach(1)
        assert time.monotonic() - started < 0.5
        SCOPE.reset(token)
    follower.close()


def test_a_dead_store_leaves_the_copy_and_says_so():
    copy = Copy()
    follower = follow(RedisCompactedLog("redis://127.0.0.1:1", "t", 0.2), copy)
    follower.start()
    time.sleep(0.05)
    assert follower.age >= 0.05
    with pytest.raises(MadangError) as failed:
        follower.reach(1)
    assert failed.value.reason == reason.ERROR_REASON_NOT_FRESH_YET
    with pytest.raises(MadangError) as failed:
        follower.renew()
    assert failed.value.reason == reason.ERROR_REASON_NOT_FRESH_YET
    follower.close()
    with pytest.raises(MadangError) as failed:
        RedisCompactedLog("redis://127.0.0.1:1", "t", 0.2).write({"a": b"1"})
    assert failed.value.reason == reason.ERROR_REASON_STORE_UNAVAILABLE


def test_what_can_not_be_applied_is_tried_again(table):
    copy, broken = Copy(), [True]

    def apply(changed, anew):
        if broken:
            raise ValueError("no")
        copy.apply(changed, anew)

    follower = Follower(table, "things", apply, Metrics(), 60.0)
    follower.start()
    position = table.write({"a": b"1"})
    with pytest.raises(MadangError):
        follower.reach(position)
    broken.clear()
    follower.reach(position)
    assert copy.rows == {"a": b"1"}
    follower.close()


def test_who_waits_for_the_first_look_is_told_once(table):
    table.write({"a": b"1"})
    copy, broken, seen = Copy(), [True], []

    def apply(changed, anew):
        if broken:
            raise ValueError("no")
        copy.apply(changed, anew)

    def note():
        seen.append(dict(copy.rows))

    follower = Follower(table, "things", apply, Metrics(), 60.0, note)
    follower.start()
    assert not seen
    broken.clear()
    follower.reach(1)
    follower.reach(table.write({"b": b"2"}))
    assert seen == [{"a": b"1"}]
    follower.close()


def test_writes_wait_for_the_disk_when_asked(valkey):
    table = RedisCompactedLog(valkey, uuid.uuid4().hex, 2.0, synced=True)
    assert table.write({"a": b"1"}) == 1
    table.close()
