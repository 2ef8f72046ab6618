"""The batches of a training."""

import numpy as np
import pytest

from madang_runtime.models.batches import batch_size, batches


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 32), (2_000, 32), (30_000, 128), (1_000_000, 4096), (10**8, 4096)]
)
def test_few_rows_make_as_many_steps_until_batches_are_tiny(rows, size):
    assert batch_size(rows, steps=300, most=4096) == size


def test_most_is_most():
    assert batch_size(5_000, steps=1, most=1000) == 1000


def test_every_epoch_has_each_row_once_but_what_is_left_over():
    found = list(batches(np.random.default_rng(7), rows=70, size=32, epochs=2))
    assert [len(batch) for batch in found] == [32] * 4
    for epoch in (found[:2], found[2:]):
        assert len(set(np.concatenate(epoch).tolist())) == 64
    assert not np.array_equal(found[0], found[2])


def test_a_step_has_all_rows_where_they_are_few():
    (found,) = batches(np.random.default_rng(7), rows=5, size=32, epochs=1)
    assert sorted(found.tolist()) == [0, 1, 2, 3, 4]
