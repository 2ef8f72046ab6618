"""The users that segments are made of: a version of a Parquet file, a row a user."""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.models.registry import ModelRegistry

AUDIENCE, USERS = "audience", "users.parquet"
"""Its name in the registry, and the file."""
USER_ID = "user_id"
_SAMPLE, _SAMPLED_GROUPS = 20_000, 8
_KEPT = 3


class Sample(NamedTuple):
    """Some of an audience.

    Attributes:
        ids: of n users.
        inputs: shape [n, columns].
    """

    ids: list[str]
    inputs: NDArray[np.float32]


class Audience:
    """One version.

    Args:
        version: its name.
        path: of the file: USER_ID, and a column a number that models read.
    """

    def __init__(self, version: str, path: Path) -> None:
        self.version, self.path = version, path
        self.size: int = pq.ParquetFile(path).metadata.num_rows
        self._lock = threading.Lock()
        self._ids: pa.Array | None = None

    def ids(self, rows: NDArray[np.integer]) -> list[str]:
        """Who rows are."""
        found: list[str] = self._all_ids().take(pa.array(rows)).to_pylist()
        return found

    def rows(self, user_ids: Sequence[str]) -> NDArray[np.int64]:
        """The rows of users, without those that it lacks."""
        return _rows(pa.array(list(user_ids), pa.large_string()), self._all_ids())

    def rows_of(self, other: "Audience", rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """The rows here of another version's rows."""
        if other.version == self.version:
            return rows.astype(np.int64)
        return _rows(other._all_ids().take(pa.array(rows)), self._all_ids())

    def sample(self, columns: Sequence[str]) -> Sample:
        """Users from all over the file, some 20,000 or all that there are."""
        file = pq.ParquetFile(self.path)
        last = file.num_row_groups - 1
        groups = np.unique(np.linspace(0, last, _SAMPLED_GROUPS).astype(int)).tolist()
        rows = sum(file.metadata.row_group(group).num_rows for group in groups)
        ids: list[str] = []
        inputs = []
        for group in groups:
            table = file.read_row_group(group, [USER_ID, *columns])
            table = table.take(np.arange(0, len(table), max(rows // _SAMPLE, 1)))
            ids += table[USER_ID].to_pylist()
            inputs.append(np.stack([table[c].to_numpy().astype(np.float32) for c in columns], 1))
        return Sample(ids, np.concatenate(inputs))

    def _all_ids(self) -> pa.Array:
        with self._lock:
            if self._ids is None:
                column = pq.read_table(self.path, columns=[USER_ID])[USER_ID]
                self._ids = column.cast(pa.large_string()).combine_chunks()
            return self._ids


def _rows(wanted: pa.Array, ids: pa.Array) -> NDArray[np.int64]:
    found = pc.index_in(wanted, value_set=ids).drop_null()
    rows: NDArray[np.int64] = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return rows


class Audiences:
    """Versions of the audience, the last few of them open; copies go when nobody reads them.

    Args:
        registry: where they are.
        folder: that they are copied to, when the registry is elsewhere.
    """

    def __init__(self, registry: ModelRegistry, folder: Path) -> None:
        self._registry, self._folder = registry, folder
        self._open: WeakValueDictionary[str, Audience] = WeakValueDictionary()
        self._recent: deque[Audience] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def get(self, version: str) -> Audience:
        """A version.

        Raises:
            MadangError: MODEL_NOT_FOUND, MODEL_CORRUPT; STORE_UNAVAILABLE when the registry does
                not answer.
        """
        with self._lock:
            found = self._open.get(version)
        if found is None:
            try:
                path = self._registry.fetch(AUDIENCE, version, USERS, self._folder)
                found = Audience(version, path)
            except OSError as error:
                raise MadangError(
                    Code.UNAVAILABLE,
                    reason.ERROR_REASON_STORE_UNAVAILABLE,
                    f"the registry does not answer: {error}",
                    retry_after=1.0,
                ) from error
        with self._lock:
            if version not in self._open:
                self._open[version] = found
                if found.path.is_relative_to(self._folder):
                    weakref.finalize(found, found.path.unlink, missing_ok=True)
            found = self._open[version]  # somebody may have been faster
            if found not in self._recent:
                self._recent.append(found)
        return found


GetAudience = Callable[[str], Audience]
