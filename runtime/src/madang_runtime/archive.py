"""Logs for training and reports, as Parquet."""

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import IO, Any, Generic, Protocol, TypeVar

import fsspec

Row = TypeVar("Row")


class Frame(Protocol):
    """A table, such as Polars' DataFrame."""

    def write_parquet(self, file: IO[bytes]) -> Any:
        """Write it as one Parquet file."""


class ParquetArchive(Generic[Row]):
    """A folder of any fsspec URL, by date, a file a part.

    Args:
        url: the folder.
        frame: makes the rows of a part.
    """

    def __init__(self, url: str, frame: Callable[[Sequence[Row]], Frame]) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._frame = frame

    def write(self, rows: Sequence[Row]) -> None:
        """Write one part, whole or not at all. Raises: what the file system does."""
        now = datetime.now(UTC)
        folder = f"{self._root}/date={now:%Y-%m-%d}"
        path = f"{folder}/{now:%H%M%S.%f}-{secrets.token_hex(4)}.parquet"
        self._fs.makedirs(folder, exist_ok=True)
        with self._fs.open(f"{path}.part", "wb") as file:
            self._frame(rows).write_parquet(file)
        self._fs.mv(f"{path}.part", path)
