"""Fusion, index, popularity, sources and retrieval."""

import threading
import time

import h3
import numpy as np
import pytest
from indexes import SEOUL, make_index, unit

from madang_candidate.cells import delivery_cells
from madang_candidate.content.model import no_content
from madang_candidate.fusion import fuse
from madang_candidate.index import top
from madang_candidate.popularity import Popularity, count_popularity, learn_time_slots
from madang_candidate.query import Ranked
from madang_candidate.retrieval import Retrieval
from madang_candidate.sources.reactive import ReactiveSource
from madang_runtime.errors import Code, MadangError, reason


def test_fusion_is_the_weighted_sum_of_reciprocal_ranks():
    rows, scores = fuse([np.array([3, 1]), np.array([1, 2])], [1.0, 0.5], 60)
    assert rows.tolist() == [1, 3, 2]
    assert scores == pytest.approx([1 / 62 + 0.5 / 61, 1 / 61, 0.5 / 62])
    assert fuse([], [], 60)[0].tolist() == []
    assert fuse([np.empty(0, np.int64)], [1.0], 60)[0].tolist() == []


def test_top_orders_and_cuts():
    scores = np.array([1, 5, 3, 4], np.float32)
    assert top(scores, 2).tolist() == [1, 3]
    assert top(scores, 9).tolist() == [1, 3, 2, 0]


def test_items_are_delivered_within_their_radius_only():
    index = make_index(radius=1.0)
    rows = index.deliverable(*SEOUL)
    assert 0 < len(rows) < len(index)
    with pytest.raises(MadangError) as caught:
        index.deliverable(0.0, 0.0)
    assert (caught.value.code, caught.value.reason) == (
        Code.OUT_OF_RANGE,
        reason.ERROR_REASON_PLACE_NOT_SERVED,
    )
    everywhere = make_index(radius=0.0)
    assert everywhere.cells == 0
    assert everywhere.deliverable(0.0, 0.0) is None


def test_delivery_cells_are_those_within_the_radius():
    columns = delivery_cells(np.array([SEOUL]), np.array([2.0]), 8)
    cells = [h3.int_to_str(int(c)) for c in columns["cells"]]
    away = [h3.great_circle_distance(SEOUL, h3.cell_to_latlng(c)) for c in cells]
    assert max(away) <= 2.0
    ring = h3.grid_ring(h3.latlng_to_cell(*SEOUL, 8), 6)
    assert all(h3.great_circle_distance(SEOUL, h3.cell_to_latlng(c)) > 2.0 for c in ring)


def test_allowed_respects_hours_kinds_and_exclusions():
    index = make_index(radius=0.0)
    assert len(index.allowed(None, 12)) == 50
    assert set(index.allowed(None, 3) % 2) == {1}
    assert set(index.kinds[index.allowed(None, 12, [2])]) == {2}
    assert 7 not in index.allowed(None, 12, excluded=["i7", "unknown"])


def test_codes_lead_to_rows():
    index = make_index()
    assert index.rows_of_codes(np.array([1, 50, 51, 0, -3])).tolist() == [0, 49, -1, -1, -1]
    assert index.row("i3") == 3
    assert index.row("none") is None


def test_the_ann_finds_what_exact_search_finds():
    vectors = unit(3000, 16)
    exact, approximate = make_index(3000, 0.0, 10_000, vectors), make_index(3000, 0.0, 0, vectors)
    everything, some = np.arange(3000), np.arange(0, 3000, 3)
    recalls = []
    for query in unit(50, 16, seed=9):
        for allowed in (everything, some):
            best = set(exact.search(query, allowed, 20)[0].tolist())
            found = approximate.search(query, allowed, 20)[0]
            assert set(found.tolist()) <= set(allowed.tolist())
            recalls.append(len(best & set(found.tolist())) / 20)
    assert np.mean(recalls) > 0.95


def test_popularity_is_by_area_and_slot_then_everywhere():
    near, far = SEOUL, (35.1796, 129.0756)
    slots = [0] * 12 + [1] * 12
    columns = count_popularity(
        np.array([1, 1, 2, 3, 3, 3]),
        np.array([near, near, near, far, far, far]),
        np.array([9, 9, 9, 9, 9, 20]),
        np.ones(6, np.float32),
        slots,
    )
    popularity = Popularity(columns, slots)
    (area, counts), (everywhere, _) = popularity.lists(*near, 10)
    assert (area.tolist(), counts.tolist()) == ([1, 2], [2, 1])
    assert everywhere.tolist() == [1, 3, 2]
    assert [r.tolist() for r, _ in popularity.lists(*near, 20)] == [[3]]


def test_time_slots_join_hours_that_sell_alike():
    rng = np.random.default_rng(0)
    hours = rng.integers(0, 24, 20_000)
    rows = np.where(hours < 12, rng.integers(0, 20, 20_000), rng.integers(20, 40, 20_000))
    slots = learn_time_slots(rows, hours, 40)
    assert len(set(slots)) == 5
    assert not set(slots[:12]) & set(slots[12:])


class Given:
    """A source that answers what it is given, after a while."""

    def __init__(self, name, rows, weight=1.0, delay=0.0):
        self.name, self.weight = name, weight
        self._rows, self._delay = np.array(rows, np.int64), delay
        self.threads = []

    def propose(self, query):
        self.threads.append(threading.get_ident())
        time.sleep(self._delay)
        return Ranked(self._rows, 10.0 * self._rows.astype(np.float32))


class Limit:
    """The part of a query that retrieval itself reads."""

    limit = 3


def test_candidates_say_who_gave_them_at_which_rank():
    retrieval = Retrieval([Given("a", [5, 4]), Given("b", [4, 9, 7])], 60, 1.0)
    found = retrieval.retrieve(Limit)
    assert found.rows.tolist() == [4, 5, 9]
    assert found.sources == ["a", "b"]
    assert found.ranks.tolist() == [[2, 1], [1, 0], [0, 2]]
    assert found.source_scores.tolist() == [[40, 40], [50, 0], [0, 90]]
    assert list(found.scores) == sorted(found.scores, reverse=True)


def test_a_late_source_is_left_out_and_named():
    retrieval = Retrieval([Given("quick", [1]), Given("late", [2], delay=0.5)], 60, 0.1)
    found = retrieval.retrieve(Limit)
    assert found.rows.tolist() == [1]
    assert found.sources == ["quick"]
    assert found.late["late"].code == Code.DEADLINE_EXCEEDED


def test_all_sources_late_is_an_error_that_the_ranker_can_degrade():
    slow = [Given(str(i), [i], delay=0.5) for i in range(4)]
    started = time.monotonic()
    with pytest.raises(MadangError) as caught:
        Retrieval(slow, 60, 0.1).retrieve(Limit)
    assert time.monotonic() - started < 0.3, "one deadline for all of them"
    assert caught.value.code == Code.DEADLINE_EXCEEDED


def test_a_bug_in_a_source_is_not_hidden():
    class Broken(Given):
        def propose(self, query):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Retrieval([Given("a", [1]), Broken("b", [])], 60, 1.0).retrieve(Limit)


def test_sources_run_at_the_same_time_and_nothing_is_no_candidate():
    slow = [Given(str(i), [], delay=0.2) for i in range(4)]
    started = time.monotonic()
    found = Retrieval(slow, 60, 1.0).retrieve(Limit)
    assert time.monotonic() - started < 0.6
    assert found.rows.shape == (0,)
    assert found.ranks.shape == (0, 4)


def test_the_newest_action_leads_the_reactive_list():
    class Query:
        index = make_index(30, 0.0)
        user_vector = np.ones(8, np.float32)
        allowed = np.arange(30)
        limit = 30
        recent = ()

    def places(*recent):
        Query.recent = recent
        found = ReactiveSource(1.0, 60, no_content).propose(Query).rows.tolist()
        return found.index(4), found.index(2)

    assert places(4)[0] == 0, "nothing is more like an item than itself"
    assert places(4, 2)[0] < places(4, 2)[1] < 15
    assert places(2, 4)[1] < places(2, 4)[0] < 15
    Query.recent = ()
    assert len(ReactiveSource(1.0, 60, no_content).propose(Query).rows) == 0
