"""Which time buffer counts, and its history."""

import h3
import pytest

from madang.eta.v1 import eta_pb2 as pb
from madang_eta.buffers import BUFFERS, BufferDesk, TimeBuffers
from madang_eta.kinds import load_kinds
from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.changelog.follower import Follower
from madang_runtime.errors import MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.times import now_ms

CELL = h3.latlng_to_cell(37.4959, 127.0664, 10)


@pytest.fixture
def made():
    log, buffers = MemoryCompactedLog(), TimeBuffers()
    follower = Follower(log, BUFFERS, buffers.apply, Metrics())
    return BufferDesk(log, buffers, follower, load_kinds(None)), buffers


def put(desk, minutes, seconds=3600, removed=False, **scope):
    buffer = pb.TimeBuffer(
        scope=pb.BufferScope(**scope), minutes=minutes, reason="snow", author="kim", removed=removed
    )
    buffer.expire_time.FromMilliseconds(now_ms() + seconds * 1000)
    return desk.set(pb.SetTimeBufferRequest(buffer=buffer))


def area(resolution):
    return h3.str_to_int(h3.cell_to_parent(CELL, resolution))


def of(buffers, service="standard", shop="s1", cell=CELL, later=0):
    return buffers.minutes(service, shop, cell, now_ms() + later * 1000)


def test_the_narrowest_counts(made):
    desk, buffers = made
    assert of(buffers) == 0
    put(desk, 3)
    assert of(buffers) == 3
    put(desk, 4, service="standard")
    assert (of(buffers), of(buffers, "express")) == (4, 3)
    put(desk, 5, area=area(5))
    put(desk, 6, area=area(9))
    assert (of(buffers), of(buffers, "express")) == (6, 6)
    assert of(buffers, cell="") == 4
    put(desk, 0, shop_id="s1")
    assert (of(buffers), of(buffers, shop="s2")) == (0, 6), "0 shields a shop from its area's"


def test_a_buffer_ends(made):
    desk, buffers = made
    put(desk, 7, seconds=60)
    assert (of(buffers), of(buffers, later=61)) == (7, 0)
    put(desk, 0, removed=True)
    assert of(buffers) == 0
    found = desk.get(pb.GetTimeBufferRequest(scope=pb.BufferScope()))
    assert not found.HasField("buffer")
    assert [(c.minutes, c.removed, c.author) for c in found.changes] == [
        (0, True, "kim"),
        (7, False, "kim"),
    ]


def test_the_history_of_a_scope_is_its_own_and_ends(made):
    desk, _ = made
    for minutes in range(60):
        put(desk, minutes, shop_id="s1/x")
    put(desk, 9, shop_id="s1")
    long = desk.get(pb.GetTimeBufferRequest(scope=pb.BufferScope(shop_id="s1/x")))
    assert [c.minutes for c in long.changes] == sorted(range(10, 60), reverse=True)
    short = desk.get(pb.GetTimeBufferRequest(scope=pb.BufferScope(shop_id="s1")))
    assert [c.minutes for c in short.changes] == [9]


def test_what_has_expired_is_forgotten_with_the_next_change(made, monkeypatch):
    desk, buffers = made
    put(desk, 7, seconds=60, shop_id="old")
    put(desk, 8, seconds=1000, shop_id="new")
    assert buffers.any()
    later = now_ms() + 100_000
    monkeypatch.setattr("madang_eta.buffers.now_ms", lambda: later)
    put(desk, 9, seconds=1000, shop_id="other")
    assert sorted(buffers.kept.buffers) == ["//new", "//other"]
    monkeypatch.setattr("madang_eta.buffers.now_ms", lambda: later + 91 * 86_400_000)
    put(desk, 1, seconds=92 * 86_400, shop_id="last")
    assert sorted(buffers.kept.buffers) == ["//last"]
    put(desk, 1, seconds=92 * 86_400, shop_id="last")
    assert sorted(buffers.kept.history) == ["//last"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"area": 5}, reason.ERROR_REASON_FIELD_INVALID),
        ({"area": area(2)}, reason.ERROR_REASON_FIELD_INVALID),
        ({"area": area(8), "shop_id": "s1"}, reason.ERROR_REASON_FIELD_INVALID),
        ({"seconds": -1}, reason.ERROR_REASON_FIELD_INVALID),
        ({"seconds": 40 * 86_400}, reason.ERROR_REASON_FIELD_INVALID),
        ({"service": "moon"}, reason.ERROR_REASON_ETA_SERVICE_NOT_FOUND),
    ],
)
def test_what_makes_no_sense_is_refused(made, given, why):
    desk, buffers = made
    with pytest.raises(MadangError) as caught:
        put(desk, 5, **given)
    assert caught.value.reason == why
    assert of(buffers) == 0
