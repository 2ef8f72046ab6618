"""The batches of a training."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def batch_size(rows: int, steps: int, most: int) -> int:
    """Rows of a step: a power of two such that an epoch has about so many steps, from 32 to `most`.

    Few rows take as many steps as many do: a network learns by steps.
    """
    return min(most, max(32, int(2 ** round(math.log2(max(rows, 1) / steps)))))


def batches(
    rng: np.random.Generator, rows: int, size: int, epochs: int
) -> Iterator[NDArray[np.int64]]:
    """Row numbers of each step, [size], in another order every epoch; what is left over at the end
    of one is left out. All rows, where they are fewer than `size`."""
    for _ in range(epochs):
        order = rng.permutation(rows)
        for at in range(0, max(rows - size + 1, 1), size):
            yield order[at : at + size]
