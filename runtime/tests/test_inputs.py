"""A caller's feature blocks become the matrices that a model reads, however they are laid out."""

import numpy as np
import pytest

from madang_runtime.columns import block
from madang_runtime.errors import MadangError
from madang_runtime.models.inputs import ViewInputs
from madang_runtime.models.manifest import FeatureRef

FEATURES = [
    FeatureRef(view="v", name="code", dtype="INT64"),
    FeatureRef(view="v", name="price", dtype="FLOAT32"),
    FeatureRef(view="v", name="place", dtype="FLOAT32", dim=2),
    FeatureRef(view="other", name="x", dtype="FLOAT32"),
]
INPUTS = ViewInputs("v", FEATURES)
CODES = np.array([[7], [8], [9]])
FLOATS = np.arange(9, dtype=np.float32).reshape(3, 3)
ABSENT = 2


def codes(**fields):
    return block(["v.code"], CODES, **fields)


def floats(statuses=b""):
    return block(["v.price", "v.place"], FLOATS, dims=[1, 2], statuses=statuses)


def packed(*blocks):
    rows = INPUTS.pack_named(list(blocks), 3, "given")
    return rows.ints.tolist(), rows.floats.tolist()


def refused(*blocks):
    with pytest.raises(MadangError) as caught:
        INPUTS.pack_named(list(blocks), 3, "given")
    return f"{caught.value.reason_name} {caught.value.about.get('field', '')}"


def test_layout_does_not_matter():
    expected = CODES.tolist(), FLOATS.tolist()
    turned = block(["v.place", "v.price"], FLOATS[:, [1, 2, 0]], dims=[2, 1])
    price = block(["v.price", "v.unread"], FLOATS[:, [0, 0]])
    place = block(["v.place"], FLOATS[:, 1:], dims=[2])
    assert packed(codes(), floats()) == expected
    assert packed(floats(), codes()) == expected
    assert packed(codes(), turned) == expected
    assert packed(price, codes(), place) == expected


@pytest.mark.parametrize("extra", [(), (block(["v.unread"], FLOATS[:, :1]),)])
def test_absent_values_are_nothing_in_any_layout(extra):
    statuses = np.ones((3, 2), np.uint8)
    statuses[1, 1] = ABSENT
    gone = np.array([1, ABSENT, 1], np.uint8)
    ints, values = packed(codes(statuses=gone.tobytes()), floats(statuses.tobytes()), *extra)
    assert ints == [[7], [0], [9]]
    assert np.isnan(values[1]).tolist() == [False, True, True]
    assert np.isfinite([values[0], values[2]]).all()


def test_one_kind_of_features_is_enough():
    inputs = ViewInputs("other", FEATURES)
    rows = inputs.pack_named([block(["other.x"], FLOATS[:, :1])], 3, "given")
    assert rows.ints.shape == (3, 0)
    assert rows.floats.tolist() == FLOATS[:, :1].tolist()


def test_what_is_wrong_is_named():
    nan = np.full((3, 3), np.nan, np.float32)
    assert refused(codes()) == "FEATURE_NOT_FOUND given"
    assert refused(codes(), block(["v.price", "v.place"], nan, dims=[1, 2])) == (
        "NOT_FINITE given[1].values"
    )
    assert refused(codes(), floats(), block(["v.unread"], nan[:, :1])) == (
        "NOT_FINITE given[2].values"
    )
    assert refused(codes(), block(["v.price", "v.place"], FLOATS[:2], dims=[1, 2])) == (
        "SHAPE_MISMATCH given[1].values"
    )
    assert refused(codes(), floats(b"\1")) == "SHAPE_MISMATCH given[1].statuses"
    assert refused(codes(), block(["v.price", "v.place"], FLOATS[:, :2])) == "SHAPE_MISMATCH given"
    as_float = block(["v.code"], FLOATS[:, :1])
    assert refused(as_float, floats()) == "SHAPE_MISMATCH given"
