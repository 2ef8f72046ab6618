"""Which rows to learn from, which choose, and which judge."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

Rows = NDArray[np.int64]
_SHARE = 0.1


def three_ways(frame: pl.DataFrame, seed: int = 7) -> tuple[Rows, Rows, Rows, str]:
    """Rows to learn from, to choose by, to judge by, and how they were split, in a sentence.

    A split that is given is taken; where it has no test, what chooses also judges. Without one the
    last tenths by time are held out, or tenths by chance.
    """
    part = frame["part"]
    at = np.arange(len(frame))
    given = {name: at[(part == name).to_numpy()] for name in ("train", "valid", "test")}
    learn, choose, judge = given.values()
    if len(learn) and len(choose) and len(judge):
        return learn, choose, judge, f"The {len(judge):,} rows of the given test part."
    if len(learn) and len(choose):
        said = f"The {len(choose):,} rows of the given valid part, which also ended the training."
        return learn, choose, choose, said
    if len(learn) and len(judge):
        rest = np.random.default_rng(seed).permutation(learn)
        cut = max(int(len(rest) * _SHARE), 1)
        said = f"The {len(judge):,} rows of the given test part."
        return np.sort(rest[cut:]), np.sort(rest[:cut]), judge, said
    if "time" in frame.columns and not frame["time"].null_count():
        order, how = np.argsort(frame["time"].to_numpy(), kind="stable"), "the last by time"
    else:
        order, how = np.random.default_rng(seed).permutation(len(frame)), "drawn by chance"
    cut = max(int(len(frame) * _SHARE), 1)
    found = order[: -2 * cut], order[-2 * cut : -cut], order[-cut:]
    learn, choose, judge = (np.sort(rows) for rows in found)
    return learn, choose, judge, f"{len(judge):,} rows, {how}."
