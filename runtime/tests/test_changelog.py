"""The conformance suite of change logs: every one does the same."""

import threading
import time
import uuid

import pytest
import redis

from madang_runtime.changelog.base import Count
from madang_runtime.changelog.memory import MemoryChangeLog
from madang_runtime.changelog.redis import RedisChangeLog
from madang_runtime.errors import MadangError, reason

ABANDONED = 0.3


@pytest.fixture(params=["memory", "redis"])
def make(request):
    """Makes logs; on Valkey, equal names share a stream."""
    made = []

    def one(name="", **options):
        options = {"abandoned_after": ABANDONED, **options}
        if request.param == "memory":
            made.append(MemoryChangeLog(**options))
        else:
            url = request.getfixturevalue("valkey")
            made.append(RedisChangeLog(url, name or uuid.uuid4().hex, 1.0, **options))
        return made[-1]

    yield one
    for log in made:
        log.close()


@pytest.fixture
def log(make):
    return make()


def take(log, consumer="a", limit=10, wait=1.0, group="g"):
    """The first `take` of a group may only make the group."""
    return log.take(group, consumer, limit, wait) or log.take(group, consumer, limit, wait)


def payloads(entries):
    return [entry.payload for entry in entries]


def test_entries_come_in_order_once_and_to_every_group(log):
    assert log.append([("1", b"\x00one"), ("2", b"two")]) == [True, True]
    assert log.append([("3", b"three")]) == [True]
    first = take(log, limit=2)
    assert payloads(first) == [b"\x00one", b"two"]
    assert payloads(take(log)) == [b"three"]
    assert payloads(take(log, group="other")) == [b"\x00one", b"two", b"three"]
    assert take(log, wait=0.05) == []


def test_an_id_is_appended_once(log):
    assert log.append([("1", b"x"), ("1", b"y"), ("2", b"z")]) == [True, False, True]
    assert log.append([("2", b"again")]) == [False]
    assert payloads(take(log)) == [b"x", b"z"]


def test_two_consumers_share_a_group(log):
    log.append([(str(n), str(n).encode()) for n in range(10)])
    both = take(log, "a", 5) + take(log, "b", 5)
    assert sorted(payloads(both)) == sorted(str(n).encode() for n in range(10))


def test_what_a_dead_consumer_took_is_given_to_another(log):
    log.append([("1", b"x"), ("2", b"y")])
    taken = take(log, "dead")
    log.done("g", [taken[0].position])
    assert take(log, "alive", wait=0.01) == []
    time.sleep(ABANDONED + 1.0)
    again = take(log, "alive")
    assert again == taken[1:]
    log.done("g", [again[0].position])
    time.sleep(ABANDONED + 1.0)
    assert take(log, "third", wait=0.01) == []


def test_a_group_knows_how_far_it_is_behind(log):
    assert log.behind("g") == 0
    log.append([(str(n), b"x") for n in range(5)])
    assert log.behind("g") == 5
    taken = take(log, limit=3)
    assert log.behind("g") == 5
    log.done("g", [e.position for e in taken])
    assert log.behind("g") == 2


def test_trimming_keeps_what_any_group_still_needs(make):
    log = make(max_entries=4)
    log.append([(str(n), b"x") for n in range(4)])
    with pytest.raises(MadangError) as caught:
        log.append([("new", b"x")])
    assert caught.value.reason == reason.ERROR_REASON_LOG_FULL
    log.trim()  # nobody has read anything
    taken, slow = take(log, limit=3), take(log, group="slow", limit=1)
    log.done("g", [e.position for e in taken])
    log.done("slow", [slow[0].position])
    log.trim()
    assert log.append([("new", b"y")]) == [True], "what was refused is no duplicate"
    assert payloads(take(log, group="slow")) == [b"x", b"x", b"x", b"y"]


def test_waiting_ends_when_something_comes(log):
    take(log, wait=0.01)
    later = threading.Timer(0.2, lambda: log.append([("1", b"x")]))
    later.start()
    started = time.monotonic()
    assert payloads(log.take("g", "a", 10, 3.0)) == [b"x"]
    assert time.monotonic() - started < 1.0
    later.join()


def test_concurrent_appends_lose_nothing(log):
    def append(worker):
        for n in range(30):
            log.append([(f"{worker}-{n}", b"x"), (f"shared-{n}", b"s")])

    threads = [threading.Thread(target=append, args=(w,)) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = payloads(take(log, limit=1000))
    assert (found.count(b"x"), found.count(b"s")) == (120, 30)


def test_synced_appends_need_a_server_that_can_sync(valkey):
    log, server = RedisChangeLog(valkey, "synced", 2.0, synced=True), redis.Redis.from_url(valkey)
    assert log.append([("1", b"x")]) == [True]
    server.config_set("appendonly", "no")
    with pytest.raises(MadangError) as caught:
        log.append([("2", b"y")])
    assert caught.value.reason == reason.ERROR_REASON_STORE_UNAVAILABLE
    server.config_set("appendonly", "yes")
    log.close()


def test_a_server_that_refuses_writes_is_away(valkey):
    log, server = RedisChangeLog(valkey, "refused", 2.0), redis.Redis.from_url(valkey)
    server.config_set("maxmemory", 1)
    try:
        with pytest.raises(MadangError) as caught:
            log.append([("1", b"x")])
    finally:
        server.config_set("maxmemory", 0)
    assert caught.value.reason == reason.ERROR_REASON_STORE_UNAVAILABLE
    assert log.append([("1", b"x")]) == [True]
    log.close()


def test_a_forgotten_group_keeps_nothing(make):
    log = make(max_entries=3)
    take(log, group="orphan", wait=0.01)
    log.append([(str(n), b"x") for n in range(3)])
    log.done("g", [e.position for e in take(log)])
    log.trim()
    with pytest.raises(MadangError):
        log.append([("new", b"x")])
    log.forget("orphan", 0)
    log.forget("never there", 0)
    log.trim()
    assert log.append([("new", b"x")]) == [True]


def test_a_dead_server_is_unavailable():
    log = RedisChangeLog("redis://127.0.0.1:1", "x", 0.2)
    for call in (
        lambda: log.append([("1", b"")]),
        lambda: log.take("g", "a", 1, 0.1),
        lambda: log.done("g", ["1-1"]),
        lambda: log.behind("g"),
        log.trim,
    ):
        with pytest.raises(MadangError) as caught:
            call()
        assert caught.value.reason == reason.ERROR_REASON_STORE_UNAVAILABLE


def test_an_entry_is_finished_and_counted_in_one_step(log):
    log.append([("1", b"one"), ("2", b"two"), ("3", b"three")])
    one, two, three = (entry.position for entry in take(log))
    a, b = Count("today", "a"), Count("today", "b")
    assert log.count("g", {one: [a, b._replace(n=7)], two: [a]}, 60) == 2
    assert log.counters("today") == {"a": 2, "b": 7}
    assert log.count("g", {one: [a], two: [a], three: [Count("later", "a")]}, 60) == 1, (
        "what another consumer finished meanwhile does not count again"
    )
    assert log.counters("today") == {"a": 2, "b": 7}
    assert log.counters("later") == {"a": 1}
    assert log.counters("never") == {}
    assert log.behind("g") == 0


def test_counters_are_kept_for_a_while(log):
    log.append([("1", b"one"), ("2", b"two")])
    one, two = (entry.position for entry in take(log))
    log.count("g", {one: [Count("today", "a")]}, 0.05)
    time.sleep(0.1)
    assert log.counters("today") == {}
    assert log.count("g", {two: []}, 60) == 1


def test_no_id_can_be_that_of_a_counter(log):
    log.append([("counters:today", b"one"), ("id:counters:today", b"two")])
    one, two = (entry.position for entry in take(log))
    assert log.count("g", {one: [Count("today", "a")], two: [Count("today", "a")]}, 60) == 2
    assert log.counters("today") == {"a": 2}


def test_a_group_at_work_is_not_forgotten(log):
    log.append([("1", b"one")])
    (entry,) = take(log)
    log.done("g", [entry.position])
    log.forget("g", 60.0)
    assert take(log, wait=0.05) == [], "it goes on where it was"
    time.sleep(0.1)
    log.forget("g", 0.05)
    assert payloads(take(log)) == [b"one"], "it begins anew"
