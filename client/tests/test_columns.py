"""Columns in and out, against what the services read and write."""

import numpy as np
import pytest

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2
from madang_client import blocks, columns
from madang_runtime.columns import block_columns


def test_columns_come_back_as_they_went():
    given = {
        "rate": np.ma.array([0.5, 1.5], mask=[False, True]),
        "vector": np.arange(6.0).reshape(2, 3),
        "count": [3, 4],
        "open": np.array([True, False]),
        "name": ["마당", ""],
    }
    rows = feature_store_pb2.ViewRows(blocks=blocks(given))
    found = columns(rows)
    assert list(found) == list(given)
    assert found["rate"].tolist() == [0.5, None]
    assert found["vector"].tolist() == given["vector"].tolist()
    assert found["vector"].dtype == np.float32
    assert found["count"].tolist() == [3, 4]
    assert found["open"].tolist() == [1, 0]
    assert found["name"].tolist() == ["마당", ""]


def test_services_read_them():
    made = blocks({"a": [1.0, 2.0], "b": np.ones((2, 2)), "name": ["x", "마당"]})
    numbers, dims, statuses = block_columns(made[0], 2)
    assert numbers.tolist() == [[1, 1, 1], [2, 1, 1]]
    assert dims == [1, 2]
    assert (statuses == tensor_pb2.FEATURE_STATUS_PRESENT).all()
    texts, _, _ = block_columns(made[1], 2)
    assert [t.decode() for t in texts[:, 0]] == ["x", "마당"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"a": [1.0], "b": [1.0, 2.0]}, "differ in length"),
        ({"a": np.array([None, {}])}, "a is object"),
    ],
)
def test_odd_columns_are_refused(given, why):
    with pytest.raises(ValueError, match=why):
        blocks(given)
