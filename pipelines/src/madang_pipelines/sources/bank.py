"""Phone calls of a bank, as the bank marketing set has them: who subscribed after a call.

The length of the call is left out: nobody knows it before, and it all but says the answer.
"""

import zipfile
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

FILE = "bank-additional-full.csv"


def load_bank(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[int]]:
    """Inputs of each call, whether it was a success, and which columns are codes.

    Args:
        path: of the zip file.
    """
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(f"/{FILE}"))
        text = archive.read(name)
    frame = pl.read_csv(text, separator=";", infer_schema_length=None).drop("duration")
    success = (frame["y"] == "yes").to_numpy()
    frame = frame.drop("y")
    codes = [i for i, dtype in enumerate(frame.dtypes) if dtype == pl.String]
    numbers = frame.with_columns(
        pl.col(pl.String).rank("dense").cast(pl.Float64) - 1,
        pl.col("pdays").replace(999, None).cast(pl.Float64),  # 999: never called before
    )
    return numbers.cast(pl.Float64).to_numpy(), success, codes
