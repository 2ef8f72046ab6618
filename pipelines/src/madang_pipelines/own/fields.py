"""Categories and numbers of any data as features: codes by vocabulary, views, rows."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2 as pb
from madang_runtime.columns import block
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.manifest import FeatureRef

Rows = NDArray[np.int64]
Number = TypeVar("Number", np.int64, np.float32)


@dataclass(frozen=True)
class Fields:
    """The columns of one side, the user's or the item's.

    Attributes:
        view: the feature view that they are features of.
        entity: whose it is.
        codes: of each category by column, the values from code 1 on; all others are 0, unknown.
        numbers: further columns.
    """

    view: str
    entity: str
    codes: dict[str, list[str]] = field(default_factory=dict)
    numbers: list[str] = field(default_factory=list)

    @classmethod
    def learn(
        cls, view: str, entity: str, rows: pl.DataFrame, columns: Sequence[str], least: int
    ) -> "Fields":
        """Vocabularies of the rows to learn from: values that are there `least` times, the most
        frequent first."""
        codes, numbers = {}, []
        for column in columns:
            if rows.schema[column] != pl.String:
                numbers.append(column)
                continue
            counts = rows[column].drop_nulls().value_counts(sort=True, name="n")
            counts = counts.sort("n", column, descending=[True, False])
            codes[column] = counts.filter(pl.col("n") >= least)[column].to_list()
        return cls(view, entity, codes, numbers)

    def sizes(self) -> tuple[int, ...]:
        """Codes of each category, 0 included."""
        return tuple(len(values) + 1 for values in self.codes.values())

    def rows(self, frame: pl.DataFrame) -> InputRows:
        """Rows of a table as the model reads them."""
        ints = [
            frame[column].replace_strict(
                values, range(1, len(values) + 1), default=0, return_dtype=pl.Int64
            )
            for column, values in self.codes.items()
        ]
        floats = [frame[c].cast(pl.Float32).fill_null(np.nan) for c in self.numbers]
        return InputRows(
            _matrix(ints, len(frame), np.int64), _matrix(floats, len(frame), np.float32)
        )

    def blocks(self, frame: pl.DataFrame) -> list[tensor_pb2.FeatureBlock]:
        """Rows of a table as Rank takes them: features by the names `view.feature`."""
        rows, names = self.rows(frame), self.names()
        found = []
        for columns, values in ((self.codes, rows.ints), (self.numbers, rows.floats)):
            if columns:
                statuses = np.full(values.shape, tensor_pb2.FEATURE_STATUS_PRESENT, np.uint8)
                statuses[np.isnan(values)] = tensor_pb2.FEATURE_STATUS_NULL
                features = [f"{self.view}.{names[column]}" for column in columns]
                found.append(block(features, np.nan_to_num(values), statuses=statuses.tobytes()))
        return found

    def names(self) -> dict[str, str]:
        """The feature of each column: small letters, digits and _."""
        found: dict[str, str] = {}
        for column in (*self.codes, *self.numbers):
            name = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_") or "field"
            name = f"f_{name}" if name[0].isdigit() else name
            while name in found.values():
                name += "_"
            found[column] = name
        return found

    def features(self) -> list[FeatureRef]:
        """What the model reads of this view, in order."""
        names = self.names()
        ints = [FeatureRef(view=self.view, name=names[c], dtype="INT64") for c in self.codes]
        floats = [FeatureRef(view=self.view, name=names[c], dtype="FLOAT32") for c in self.numbers]
        return ints + floats

    def definition(self) -> pb.FeatureView:
        """The view."""
        names = self.names()
        kinds = {**dict.fromkeys(self.codes, "code"), **dict.fromkeys(self.numbers, "number")}
        dtypes = {"code": tensor_pb2.D_TYPE_INT64, "number": tensor_pb2.D_TYPE_FLOAT32}
        return pb.FeatureView(
            name=self.view,
            entity=self.entity,
            description="Made by madang train from a mapping.",
            features=[
                pb.Feature(
                    name=names[column],
                    dtype=dtypes[kind],
                    description=f"{kind.title()} of {column}.",
                )
                for column, kind in kinds.items()
            ],
        )


def as_json(sides: Sequence[Fields]) -> bytes:
    """Vocabularies, so that others can make the codes: by view, the features of columns, and the
    values of each category in the order of their codes, from 1."""
    found = {
        side.view: {
            "entity": side.entity,
            "features": side.names(),
            "codes": side.codes,
            "numbers": side.numbers,
        }
        for side in sides
    }
    return json.dumps(found, ensure_ascii=False).encode()


def from_json(vocabulary: bytes) -> list[Fields]:
    """What `as_json` wrote."""
    return [
        Fields(view, own["entity"], own["codes"], own["numbers"])
        for view, own in json.loads(vocabulary).items()
    ]


def _matrix(columns: list[pl.Series], n: int, dtype: type[Number]) -> NDArray[Number]:
    if not columns:
        return np.zeros((n, 0), dtype)
    return np.stack([column.to_numpy() for column in columns], axis=1).astype(dtype)
