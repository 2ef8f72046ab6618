"""Tensors and blocks."""

import numpy as np
import pytest

from madang.common.v1 import tensor_pb2
from madang_runtime.columns import block, block_columns, from_tensor, to_tensor
from madang_runtime.errors import MadangError, reason


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.int64).reshape(3, 2),
        np.array([["가나".encode(), b""], [b"x", b"yz"]]),
        np.zeros((0, 4), np.float32),
        np.array([b""])[:0],
    ],
)
def test_round_trip(array):
    assert (from_tensor(to_tensor(array)) == array).all()
    assert from_tensor(to_tensor(array)).shape == array.shape


def refused(tensor) -> int:
    with pytest.raises(MadangError) as caught:
        from_tensor(tensor)
    return caught.value.reason


def test_what_does_not_fit_is_refused():
    good = to_tensor(np.ones((2, 2), np.float32))
    assert refused(tensor_pb2.Tensor(dtype=1, shape=[2, 3], data=good.data)) == (
        reason.ERROR_REASON_SHAPE_MISMATCH
    )
    assert refused(tensor_pb2.Tensor(dtype=1, shape=[-1], data=b"")) == (
        reason.ERROR_REASON_SHAPE_MISMATCH
    )
    assert refused(tensor_pb2.Tensor(dtype=1, shape=[2**40, 2**40], data=b"")) == (
        reason.ERROR_REASON_SHAPE_MISMATCH
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_must_be_finite(bad):
    array = np.array([[1, bad]], np.float32)
    assert refused(to_tensor(array)) == reason.ERROR_REASON_NOT_FINITE


def test_strings_must_be_utf8_with_rising_offsets():
    text = to_tensor(np.array([b"ab", b"c"]))
    broken = tensor_pb2.Tensor(dtype=3, shape=[2], data=b"\xff\xfe\xfd", offsets=text.offsets)
    assert refused(broken) == reason.ERROR_REASON_SHAPE_MISMATCH
    falling = np.array([0, 3, 1], "<u4").tobytes()
    broken = tensor_pb2.Tensor(dtype=3, shape=[2], data=b"abc", offsets=falling)
    assert refused(broken) == reason.ERROR_REASON_SHAPE_MISMATCH
    assert refused(tensor_pb2.Tensor(dtype=3, shape=[2], data=b"abc")) == (
        reason.ERROR_REASON_SHAPE_MISMATCH
    )


def test_one_long_text_among_many_is_refused_before_it_is_padded():
    offsets = np.full(10_001, 2**20, "<u4")
    offsets[0] = 0
    tensor = tensor_pb2.Tensor(
        dtype=3, shape=[10_000], data=b"x" * 2**20, offsets=offsets.tobytes()
    )
    assert refused(tensor) == reason.ERROR_REASON_SHAPE_MISMATCH


def test_blocks_check_names_dims_and_statuses():
    values, dims, statuses = block_columns(
        block(["a", "b"], np.ones((3, 3), np.float32), dims=[1, 2]), 3
    )
    assert values.shape == (3, 3)
    assert dims == [1, 2]
    assert (statuses == tensor_pb2.FEATURE_STATUS_PRESENT).all()
    for wrong in (
        block(["a"], np.ones((3, 3), np.float32)),
        block(["a", "b"], np.ones((3, 3), np.float32), dims=[3]),
        block(["a"], np.ones((3, 1), np.float32), statuses=b"\1"),
    ):
        with pytest.raises(MadangError) as caught:
            block_columns(wrong, 3)
        assert caught.value.reason == reason.ERROR_REASON_SHAPE_MISMATCH
