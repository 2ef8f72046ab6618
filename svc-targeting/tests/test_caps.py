"""The suite of all stores of caps."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from madang_targeting.caps import Caps, Sends, load_caps
from madang_targeting.stores.connection import Connection
from madang_targeting.stores.memory import MemoryCapStore
from madang_targeting.stores.redis_caps import RedisCapStore

DAY, HOUR = 86_400, 3_600
CAPS = Caps.model_validate(
    {
        "channels": ["push", "mail"],
        "caps": [
            {"channel": "push", "most": 2, "seconds": DAY},
            {"channel": "mail", "most": 1, "seconds": 7 * DAY},
            {"most": 3, "seconds": 7 * DAY},
        ],
    }
)
NOW = 1_775_300_400


@pytest.fixture(params=["memory", "valkey"])
def store(request):
    if request.param == "memory":
        yield MemoryCapStore()
        return
    connection = Connection(request.getfixturevalue("valkey"), 2.0)
    yield RedisCapStore(connection)
    connection.close()


@pytest.fixture
def user():
    return uuid.uuid4().hex


def sends(user, campaign=None, channel="push", time=NOW):
    users = [user] if isinstance(user, str) else user
    return Sends(campaign or uuid.uuid4().hex, channel, time, users)


def test_a_channel_takes_what_its_cap_allows_and_then_no_more(store, user):
    got = [bool(store.record(CAPS, sends(user, time=NOW + i))[0]) for i in range(4)]
    assert got == [True, True, False, False]
    assert not store.allowed(CAPS, sends(user, time=NOW + HOUR))[0]
    assert store.allowed(CAPS, sends(user, channel="mail"))[0], "another channel"


def test_windows_slide(store, user):
    for hours in (0, 10):
        assert store.record(CAPS, sends(user, time=NOW + hours * HOUR))[0]
    at = [NOW + DAY - 1, NOW + DAY, NOW + DAY + 1]
    assert [bool(store.allowed(CAPS, sends(user, time=t))[0]) for t in at] == [False, True, True]


def test_what_is_planned_counts_and_forgets_nothing(store, user):
    """A message that will be sent next week is within caps then, and leaves today's as they are."""
    now = int(time.time())
    for later in (0, 1):
        assert store.record(CAPS, sends(user, time=now + later))[0]
    assert store.record(CAPS, sends(user, channel="mail", time=now + 30 * DAY))[0]
    assert not store.allowed(CAPS, sends(user, time=now + 2))[0], "today's are not forgotten"
    assert not store.allowed(CAPS, sends(user, channel="mail", time=now + 31 * DAY))[0]
    assert store.allowed(CAPS, sends(user, channel="mail", time=now + 2))[0]
    assert not store.allowed(CAPS, sends(user, channel="mail", time=now + 24 * DAY))[0]


def test_channels_may_be_sorted_anew(store, user):
    for _ in range(2):
        assert store.record(CAPS, sends(user))[0]
    others = CAPS.model_copy(update={"channels": ["fax", "mail", "push"]})
    assert not store.allowed(others, sends(user))[0]
    assert store.allowed(others, sends(user, channel="mail"))[0]


def test_a_cap_of_all_channels_counts_them_together(store, user):
    plan = [("push", 0), ("mail", 1), ("push", 2), ("push", 30)]
    got = [store.record(CAPS, sends(user, channel=c, time=NOW + h * HOUR))[0] for c, h in plan]
    assert [bool(g) for g in got] == [True, True, True, False]


def test_checking_records_nothing(store, user):
    for _ in range(5):
        assert store.allowed(CAPS, sends(user))[0]
    assert store.record(CAPS, sends(user))[0]


def test_a_campaign_counts_once_however_often_it_is_recorded(store, user):
    for _ in range(5):
        assert store.record(CAPS, sends(user, "c1"))[0], "the same message again is allowed"
    assert store.record(CAPS, sends(user, "c2"))[0]
    assert not store.record(CAPS, sends(user, "c3"))[0]
    assert store.allowed(CAPS, sends(user, "c1"))[0]


def test_users_are_told_apart_in_their_order(store):
    users = [uuid.uuid4().hex for _ in range(2500)]
    for _ in range(2):
        store.record(CAPS, sends(users[::2]))
    found = store.record(CAPS, sends(users))
    assert found.tolist() == [i % 2 == 1 for i in range(2500)]
    assert store.allowed(CAPS, sends([])).tolist() == []


def test_a_closed_channel_takes_nothing_and_one_without_caps_all(store, user):
    closed = Caps(channels=["push"], caps=[{"channel": "push", "most": 0, "seconds": DAY}])
    assert not store.record(closed, sends(user))[0]
    free = Caps(channels=["push"])
    assert all(store.record(free, sends(user))[0] for _ in range(5))


def test_concurrent_senders_never_send_too_much(store):
    """64 senders at once, each with a campaign of its own, to the same users."""
    users = [uuid.uuid4().hex for _ in range(300)]
    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda _: store.record(CAPS, sends(users)), range(64)))
    assert sum(found).tolist() == [2] * 300


def test_the_built_in_caps_are_caps():
    assert load_caps(None).on("push")


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": []},
        {"channels": ["push"], "caps": [{"channel": "mail", "most": 1, "seconds": 1}]},
        {"channels": ["push"], "caps": [{"most": -1, "seconds": 1}]},
        {"channels": ["push"], "caps": [{"most": 1, "seconds": 0}]},
    ],
)
def test_caps_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        Caps.model_validate(wrong)
