"""Items that were put in and taken out since the models were trained."""

import numpy as np
import pytest
from indexes import SEOUL, make_index, unit

from madang_candidate.cells import cells_around
from madang_candidate.index import ItemIndex, LiveItem
from madang_runtime.errors import MadangError

NOON = 12
FAR = (35.1, 129.0)
ALWAYS = 2**24 - 1


def live(item_id, vector, place=SEOUL, radius=2.0, kind=1, open_hours=ALWAYS):
    cells = cells_around(*place, radius, 8) if radius else None
    return LiveItem(item_id, kind, open_hours, vector, cells)


def changed(index, items=(), deleted=()):
    return ItemIndex(index.trained, index.exact_below, items, deleted)


@pytest.mark.parametrize("exact_below", [1000, 5])
def test_a_new_item_is_found_like_any(exact_below):
    index = make_index(60, exact_below=exact_below)
    vector = unit(1, 8, seed=9)[0]
    after = changed(index, [live("new", vector)])
    row = after.row("new")
    assert row == 60
    assert index.row("new") is None, "an index never changes"
    allowed = after.allowed(after.deliverable(*SEOUL), NOON)
    rows, scores = after.search(vector, allowed, 5)
    assert rows[0] == row
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert (np.diff(scores) <= 0).all()
    exact = changed(make_index(60), [live("new", vector)])
    assert rows.tolist() == exact.search(vector, allowed, 5)[0].tolist()
    assert after.vectors(np.array([0, row, 5])) == pytest.approx(
        np.stack([index.vectors(np.array([0]))[0], vector, index.vectors(np.array([5]))[0]])
    )


def test_a_new_item_keeps_to_its_hours_kind_and_place():
    index = make_index(10)
    vector = unit(1, 8)[0]
    after = changed(
        index, [live("ad", vector, kind=2, open_hours=1 << 20), live("far", vector, FAR)]
    )
    assert after.ids[10:] == ["ad", "far"]
    here = after.deliverable(*SEOUL)
    assert 10 in after.allowed(here, 20, kinds=[2])
    assert 10 not in after.allowed(here, 20, kinds=[1])
    assert 10 not in after.allowed(here, NOON)
    assert 10 not in after.allowed(here, 20, excluded=["ad"])
    assert 11 not in here
    assert after.deliverable(*FAR).tolist() == [11], "a place that nothing was delivered to before"
    with pytest.raises(MadangError):
        index.deliverable(*FAR)


def test_an_item_without_a_radius_goes_everywhere():
    after = changed(make_index(10), [live("all", unit(1, 8)[0], radius=0)])
    assert after.deliverable(*FAR).tolist() == [10]
    assert 10 in after.deliverable(*SEOUL)
    everywhere = changed(make_index(10, radius=0.0), [live("near", unit(1, 8)[0])])
    assert everywhere.deliverable(*FAR).tolist() == list(range(10))
    assert 10 in everywhere.deliverable(*SEOUL)


def test_a_changed_item_has_one_row_and_its_history_leads_to_it():
    index = make_index(10)
    after = changed(index, [live("i3", unit(1, 8, seed=4)[0])])
    assert after.row("i3") == 10
    allowed = after.allowed(after.deliverable(*SEOUL), NOON)
    assert 3 not in allowed
    assert 10 in allowed
    assert after.rows_of_codes(np.array([4, 5, 0, 99])).tolist() == [10, 4, -1, -1]
    assert after.current(np.array([3, 4, -1])).tolist() == [10, 4, -1]


def test_a_deleted_item_is_gone_everywhere():
    index = make_index(10, exact_below=3)
    after = changed(index, deleted=["i2", "never"])
    assert after.row("i2") is None
    assert after.rows(["i2", "i4"]).tolist() == [4]
    assert after.rows_of_codes(np.array([3])).tolist() == [-1]
    assert 2 not in after.existing(None)
    assert 2 not in after.allowed(after.deliverable(*SEOUL), NOON)
    rows, _ = after.search(unit(1, 8)[0], after.existing(None), 10)
    assert 2 not in rows
    assert len(rows) == 9
