"""The shadow's comparison, and the refresher's loop, without a mesh."""

import threading
import time

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from madang_eta.orders import Orders, Points
from madang_eta.refresher import ListRefresher, RefreshMetrics
from madang_eta.resolving import Service
from madang_eta.shadow import ShadowComparer, ShadowMetrics, distance
from madang_runtime.errors import Code, MadangError, reason

NOT_READY = MadangError(Code.UNAVAILABLE, reason.ERROR_REASON_NOT_READY, "not yet")


class Model:
    """Says that all orders take as long."""

    def __init__(self, minute, waits=None):
        self.minute, self.waits, self.asked = minute, waits, []
        self.reader = self

    def read(self, orders, look_up):
        if self.waits:
            self.waits.wait(5)
        return orders, ""

    def arrivals(self, orders):
        self.asked.append(len(orders))
        return np.eye(60)[[self.minute] * len(orders)]


def orders(n):
    nowhere = Points(np.zeros((1, 2)), np.zeros(n, np.int64))
    return Orders(np.zeros(n, np.int64), nowhere, nowhere, np.zeros(n))


def comparer(model, registry=None):
    metrics = ShadowMetrics(registry or CollectorRegistry())
    return ShadowComparer(lambda _: model, lambda _: None, metrics, 1.0), metrics


def total(metric, suffix="_sum"):
    return sum(s.value for m in metric.collect() for s in m.samples if s.name.endswith(suffix))


def test_the_distance_is_what_has_to_be_moved():
    a, b = np.eye(60)[[10]], np.eye(30)[[13]]
    assert distance(a, b).tolist() == [3]


def test_a_shadow_is_compared_on_some_rows_of_a_request():
    model = Model(14)
    made, metrics = comparer(model)
    made.start()
    made.watch(Service("standard", None, None), orders(5000), np.eye(60)[[10] * 5000])
    until = time.monotonic() + 5
    while not total(metrics.apart, "_count") and time.monotonic() < until:
        time.sleep(0.01)
    made.close()
    assert model.asked == [32]
    assert total(metrics.apart) == 32 * 4
    shifts = [s.value for m in metrics.shift.collect() for s in m.samples if "le" in s.labels]
    assert max(shifts) == 32


def test_no_request_waits_for_a_shadow_and_stopping_does_not_either():
    busy = threading.Event()
    made, metrics = comparer(Model(1, waits=busy))
    made.start()
    started = time.monotonic()
    for _ in range(100):
        made.watch(Service("standard", None, None), orders(1), np.eye(60)[[1]])
    assert time.monotonic() - started < 1
    assert total(metrics.skipped, "_total") >= 30
    threading.Timer(0.2, busy.set).start()
    started = time.monotonic()
    made.close()
    assert time.monotonic() - started < 3


def refresher(monkeypatch, broken):
    """Of two services of which one is broken, and what was refreshed when."""
    done = []
    made = ListRefresher(
        {"standard": "standard", "express": "express"},
        None,
        None,
        RefreshMetrics(CollectorRegistry()),
        1,
    )

    def refresh(service, stop):
        done.append((service, time.monotonic()))
        if service == "standard":
            raise broken

    monkeypatch.setattr(made, "refresh", refresh)
    return made, done


@pytest.mark.parametrize("broken", [NOT_READY, ValueError("a bug")])
def test_a_broken_service_neither_stops_the_others_nor_makes_them_spin(monkeypatch, broken):
    monkeypatch.setattr("madang_eta.refresher._RETRY_SECONDS", 0.05)
    made, done = refresher(monkeypatch, broken)
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(0.5, stop))
    thread.start()
    time.sleep(0.8)
    stop.set()
    thread.join(2)
    assert not thread.is_alive()
    names = [name for name, _ in done]
    assert names.count("express") == 2, "every half second"
    assert names.count("standard") > 5, "tried again soon"
