"""The batches of a training."""

import numpy as np
import pytest

from madang_runtime.models.batches import batch_size, batches, count_steps


@pytest.mark.parametrize("rows", [10_000, 14_000, 30_000, 150_000, 1_000_000])
def test_few_rows_make_about_as_many_steps_as_many(rows):
    size = batch_size(rows, steps=300, most=4096)
    assert 300 / 2**0.5 - 1 < rows // size < 300 * 2**0.5


@pytest.mark.parametrize(("rows", "size"), [(1, 32), (2_000, 32), (10**8, 4096)])
def test_batches_are_neither_tiny_nor_huge(rows, size):
    assert batch_size(rows, steps=300, most=4096) == size


def test_most_is_most():
    assert batch_size(5_000, steps=1, most=1000) == 1000


def test_every_epoch_has_each_row_once_but_what_is_left_over():
    found = list(batches(np.random.default_rng(7), rows=70, size=32, epochs=2))
    assert [len(batch) for batch in found] == [32] * 4
    for epoch in (found[:2], found[2:]):
        assert len(set(np.concatenate(epoch).tolist())) == 64
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize(("rows", "size"), [(5, 32), (32, 32), (70, 32), (1000, 1000)])
def test_steps_are_counted_as_they_come(rows, size):
    found = batches(np.random.default_rng(7), rows, size, epochs=3)
    assert len(list(found)) == count_steps(rows, size, epochs=3)


def test_a_step_has_all_rows_where_they_are_few():
    (found,) = batches(np.random.default_rng(7), rows=5, size=32, epochs=1)
    assert sorted(found.tolist()) == [0, 1, 2, 3, 4]
