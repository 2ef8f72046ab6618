"""The batches of a training."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def batch_size(rows: int, steps: int, most: int, least: int = 32) -> int:
    """Rows of a step: the power of two with which an epoch has nearest to so many steps, from
    `least` to `most`.

    A network learns by steps, so that few rows should take as many as many rows do.
    """
    wanted = int(2 ** round(math.log2(max(rows, 1) / steps)))
    return min(most, max(least, wanted))


def count_steps(rows: int, size: int, epochs: int) -> int:
    """How many batches `batches` gives."""
    return epochs * max(1, rows // size)


def batches(
    rng: np.random.Generator, rows: int, size: int, epochs: int
) -> Iterator[NDArray[np.int64]]:
    """Row numbers of each step, [size], in another order every epoch; what is left over at the end
    of one is left out. All rows, where they are fewer than `size`."""
    for _ in range(epochs):
        order = rng.permutation(rows)
        for at in range(0, max(rows - size + 1, 1), size):
            yield order[at : at + size]
