"""The dynamic batcher."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from madang_runtime.errors import MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.models.batcher import DynamicBatcher
from madang_runtime.scope import SCOPE, CallScope


class Recorder:
    """Doubles numbers; the first batch waits until it is told to go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.running = threading.Event()

    def __call__(self, items):
        self.batches.append(list(items))
        self.running.set()
        self.go.wait(5)
        return [2 * i for i in items]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def batcher(recorder):
    made = DynamicBatcher(recorder, name="m", metrics=Metrics(), max_rows=10, max_waiting=4)
    yield made
    recorder.go.set()


def call_all(batcher, recorder, items, scopes=None):
    """Submit the first item, then the others while it runs."""

    def one(i, item):
        SCOPE.set((scopes or {}).get(i, CallScope()))
        return batcher(item, item)

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(one, 0, items[0])
        recorder.running.wait(5)
        rest = []
        for i, item in enumerate(items[1:], 1):
            rest.append(pool.submit(one, i, item))
            time.sleep(0.02)
        time.sleep(0.05)
        recorder.go.set()
        return [f.exception() or f.result() for f in (first, *rest)]


def test_what_waits_together_runs_together_and_full_batches_are_cut(batcher, recorder):
    assert call_all(batcher, recorder, [1, 4, 5, 6]) == [2, 8, 10, 12]
    assert recorder.batches == [[1], [4, 5], [6]]


def test_an_item_larger_than_a_batch_runs_alone(batcher, recorder):
    assert call_all(batcher, recorder, [1, 50, 2]) == [2, 100, 4]
    assert recorder.batches == [[1], [50], [2]]


def test_abandoned_work_is_dropped(batcher, recorder):
    left = {2: CallScope(is_active=lambda: False)}
    results = call_all(batcher, recorder, [1, 2, 3, 4], left)
    assert results[0] == 2
    assert results[2].reason == reason.ERROR_REASON_DEADLINE_EXCEEDED
    assert 3 not in [i for batch in recorder.batches for i in batch]


def test_a_deadline_ends_the_wait_and_the_rest_goes_on(batcher, recorder):
    soon = {1: CallScope(time.monotonic() + 0.05)}
    results = call_all(batcher, recorder, [1, 2, 3], soon)
    assert results[0] == 2
    assert results[1].reason == reason.ERROR_REASON_DEADLINE_EXCEEDED
    assert results[2] == 6
    assert recorder.batches == [[1], [3]]


def test_nothing_is_lost_or_mixed_up_under_load():
    batcher = DynamicBatcher(
        lambda items: [2 * i for i in items], name="m", metrics=Metrics(), max_rows=7
    )
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda i: batcher(i, 1 + i % 3), range(4000)))
    assert results == [2 * i for i in range(4000)]


def test_too_much_waiting_is_refused(batcher, recorder):
    results = call_all(batcher, recorder, [1, 2, 2, 2, 2, 2, 2])
    refused = [r for r in results if isinstance(r, MadangError)]
    assert len(refused) == 2
    assert {r.reason for r in refused} == {reason.ERROR_REASON_OVERLOADED}
    assert refused[0].retry_after


def test_a_wrong_number_of_results_is_an_error_of_that_batch_only():
    batcher = DynamicBatcher(lambda items: items[1:], name="m", metrics=Metrics())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="1 items gave 0 results"):
            batcher(1, 1)


def test_an_error_reaches_every_caller_of_the_batch_and_the_next_runs():
    def fail_on_three(items):
        if 3 in items:
            raise ValueError("three")
        return items

    batcher = DynamicBatcher(fail_on_three, name="m", metrics=Metrics())
    with pytest.raises(ValueError, match="three"):
        batcher(3, 1)
    assert batcher(4, 1) == 4
