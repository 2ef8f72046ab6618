"""The conformance suite: every store does the same."""

import threading
import time

import pytest

from madang_featurestore.stores.base import (
    HIDDEN_TTL_MS,
    KEEP_HIDDEN,
    KEEP_RECENT,
    Event,
    Keys,
)
from madang_featurestore.stores.redis import RedisStore
from madang_featurestore.windows import Increment
from madang_runtime.errors import MadangError, reason


def event(event_id="e1", time_ms=1000, payload=b"p", counters=None, user="u"):
    return Event(event_id, user, time_ms, payload, counters or {})


def test_an_empty_store_reads_nothing(store):
    read = store.read([Keys("", ["a", "b"])], ["u"])
    assert (read.sequence, read.epoch, read.values, read.recent) == (0, 0, [None, None], [[]])
    assert store.views() == (0, {})


def test_rows_are_read_in_order_and_every_write_advances_the_sequence(store):
    first = store.write({"a": b"\x00\xff", "b": b"2"}, None)
    second = store.write({"a": b"3"}, None)
    assert second > first
    read = store.read([Keys("", ["b", "missing", "a", "b"])])
    assert read.values == [b"2", None, b"3", b"2"]
    assert read.sequence == second


def test_keys_of_any_length_and_script_are_read_by_groups(store):
    ids = ["1", "22", "333", "가게", "emoji 🍜", "with space\r\n$1\r\nx"]
    store.write({f"{prefix}{i}": f"{prefix}={i}".encode() for prefix in "ab" for i in ids}, None)
    groups = [Keys("a", ids[:3]), Keys("b", ids), Keys("a", []), Keys("a", ["44", *ids[3:]])]
    wanted = [f"a={i}" for i in ids[:3]] + [f"b={i}" for i in ids]
    wanted += [None] + [f"a={i}" for i in ids[3:]]
    found = store.read(groups).values
    assert [v.decode() if v else None for v in found] == wanted


def test_rows_vanish_when_they_need_not_be_kept(store):
    store.write({"a": b"1"}, 60)
    store.write({"b": b"1"}, 60_000)
    time.sleep(0.12)
    assert store.read([Keys("", ["a", "b"])]).values == [None, b"1"]


def test_views_change_only_as_expected(store):
    assert store.put_view("v", b"one", None)
    assert not store.put_view("v", b"two", None)
    assert not store.put_view("v", b"two", b"other")
    assert store.put_view("v", b"two", b"one")
    assert store.put_view("w", b"x", None)
    epoch, views = store.views()
    assert views == {"v": b"two", "w": b"x"}
    assert store.read([]).epoch == epoch == 3


def test_last_actions_are_newest_first_whatever_order_they_come_in(store):
    for n in (3, 1, 2):
        store.record([event(f"e{n}", n * 1000, f"p{n}".encode())])
    assert store.read([], ["u", "nobody"]).recent == [[b"p3", b"p2", b"p1"], []]
    assert store.read([], ["u"], since_ms=2000).recent == [[b"p3", b"p2"]]


def test_only_so_many_last_actions_are_kept(store):
    store.record([event(f"e{n}", n, str(n).encode()) for n in range(KEEP_RECENT + 10)])
    (recent,) = store.read([], ["u"]).recent
    assert len(recent) == KEEP_RECENT
    assert recent[0] == str(KEEP_RECENT + 9).encode()


def test_hidden_items_are_kept_for_a_month_and_so_many(store):
    now = round(time.time() * 1000)
    for n in range(KEEP_HIDDEN + 5):
        hide = Event(f"e{n}", "u", now + n, b"", {}, f"i{n}")
        store.record([hide, hide])
    store.record([Event("old", "v", now - HIDDEN_TTL_MS - 1, b"", {}, "i")])
    store.record([Event("late", "u", now - HIDDEN_TTL_MS - 1, b"", {}, "i9")])
    hidden, others, nobody = store.read([], ["u", "v", "w"]).hidden
    assert {i.decode() for i in hidden} == {f"i{n}" for n in range(5, KEEP_HIDDEN + 5)}
    assert others == nobody == []


def test_an_event_is_recorded_once(store):
    counters = {"w": (60_000, [Increment(0, 8, 5, (0,))])}
    assert store.record([event(counters=counters), event(counters=counters)])[0] == [True, False]
    assert store.record([event(counters=counters)])[0] == [False]
    assert store.read([], ["u"]).recent == [[b"p"]]
    value = store.read([Keys("", ["w"])]).values[0]
    assert value[5 * 8 : 5 * 8 + 8] == b"\x05\0\0\0\x01\0\0\0"


def test_counters_are_reset_by_later_buckets_and_not_touched_by_earlier_ones(store):
    def count(event_id, bucket):
        store.record([event(event_id, counters={"w": (60_000, [Increment(16, 12, bucket, (1,))])})])
        value = store.read([Keys("", ["w"])]).values[0]
        at = 16 + bucket % 33 * 12
        return [int.from_bytes(value[at + i : at + i + 4], "little") for i in (0, 4, 8)]

    assert count("a", 7) == [7, 0, 1]
    assert count("b", 7) == [7, 0, 2]
    assert count("c", 40) == [40, 0, 1], "bucket 40 takes the slot of bucket 7"
    assert count("d", 7) == [40, 0, 1], "a late event finds its slot taken"


def test_concurrent_counting_loses_nothing(store):
    def count(worker):
        for n in range(50):
            counters = {"w": (60_000, [Increment(0, 8, 1, (0,))])}
            store.record([event(f"{worker}-{n}", counters=counters)])

    threads = [threading.Thread(target=count, args=(w,)) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int.from_bytes(store.read([Keys("", ["w"])]).values[0][12:16], "little") == 200


def test_a_dead_server_is_unavailable():
    store = RedisStore("redis://127.0.0.1:1", 0.2)
    for call in (
        lambda: store.read([Keys("", ["a"])]),
        lambda: store.write({"a": b""}, None),
        lambda: store.record([event()]),
        store.views,
        lambda: store.put_view("v", b"", None),
    ):
        with pytest.raises(MadangError) as caught:
            call()
        assert caught.value.reason == reason.ERROR_REASON_STORE_UNAVAILABLE
