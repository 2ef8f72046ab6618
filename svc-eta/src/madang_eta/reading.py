"""What the feature store knows of orders, in one look-up for any number of them."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from madang.feature.v1 import feature_store_pb2
from madang_eta.layout import AREA_RESOLUTION, AREA_VIEW, Layout
from madang_eta.orders import Coded, Ints, Orders
from madang_eta.patterns import VIEW, keys
from madang_runtime.freshness import merge
from madang_runtime.models.inputs import ViewInputs

LookUp = Callable[
    [feature_store_pb2.LookupFeaturesRequest], feature_store_pb2.LookupFeaturesResponse
]
Rows = NDArray[np.float32]
_AT_ONCE, _AT_MOST, _LOOKUPS = 10_000, 20_000, 16
"""Entities of a look-up and of a request, and look-ups of a request."""


class _Wanted(NamedTuple):
    """Rows of a view: distinct entities, and which of them each order reads, shape [keys, n]."""

    inputs: ViewInputs
    entities: list[str]
    codes: Ints


class OrderReader:
    """Reads what a model's layout names.

    Args:
        layout: of the model.
        service: whose patterns are read.
    """

    def __init__(self, layout: Layout, service: str) -> None:
        self._layout, self._service = layout, service
        self._patterns = ViewInputs(VIEW, layout.pattern_features())
        self._live = [
            ViewInputs(view, list(layout.live))
            for view in dict.fromkeys(ref.view for ref in layout.live)
        ]

    def read(self, orders: Orders, look_up: LookUp, token: str = "") -> tuple[Rows, str]:
        """The model's input of n orders, and the store's freshness token.

        Raises:
            MadangError: the feature store's.
        """
        (inputs,), token = read_all([(self, orders)], look_up, token)
        return inputs, token

    def without_store(self, orders: Orders) -> Rows:
        """The model's input as far as the orders themselves say."""
        wanted = self.wanted(orders)
        return self.inputs(orders, wanted, [_nothing(w) for w in wanted])

    def inputs(self, orders: Orders, wanted: list[_Wanted], rows: list[Rows]) -> Rows:
        """The model's input from the rows of what is wanted."""
        read = [matrix[w.codes] for matrix, w in zip(rows, wanted, strict=True)]
        live = np.concatenate([m[0] for m in read[1:]] or [np.empty((len(orders), 0))], axis=1)
        return self._layout.columns(orders, read[0].transpose(1, 0, 2), live)

    def wanted(self, orders: Orders) -> list[_Wanted]:
        """The patterns' keys, then those of each live view."""
        hours = self._layout.local_hours(orders)
        patterns = [keys(p, self._service, orders, hours) for p in self._layout.patterns]
        found = [_wanted(self._patterns, patterns, len(orders))]
        return found + [_wanted(v, [live_keys(v.view, orders)], len(orders)) for v in self._live]


def read_all(
    parts: Sequence[tuple[OrderReader, Orders]], look_up: LookUp, token: str = ""
) -> tuple[list[Rows], str]:
    """The inputs of several models, each of its own orders, in one look-up; and the store's
    freshness token.

    Raises:
        MadangError: the feature store's.
    """
    wanted = [reader.wanted(orders) for reader, orders in parts]
    rows, token = _look_up([w for own in wanted for w in own], look_up, token)
    left, found = iter(rows), []
    for (reader, orders), own in zip(parts, wanted, strict=True):
        found.append(reader.inputs(orders, own, list(islice(left, len(own)))))
    return found, token


def _nothing(wanted: _Wanted) -> Rows:
    return wanted.inputs.defaults(len(wanted.entities)).floats.copy()


def _look_up(wanted: list[_Wanted], look_up: LookUp, token: str) -> tuple[list[Rows], str]:
    """The rows of all entities, NaN where there is nothing, in as few calls as the store's limits
    allow: one, unless there are thousands."""
    rows, tokens = [_nothing(w) for w in wanted], [token]
    parts = []
    for number, w in enumerate(wanted):
        known = np.flatnonzero([bool(name) for name in w.entities])
        parts += [(number, known[at : at + _AT_ONCE]) for at in range(0, len(known), _AT_ONCE)]
    while parts:
        request = feature_store_pb2.LookupFeaturesRequest(freshness_token=token)
        asked: list[tuple[int, NDArray[np.intp]]] = []
        size = 0
        while parts and size + len(parts[0][1]) <= _AT_MOST and len(asked) < _LOOKUPS:
            number, at = parts.pop(0)
            w = wanted[number]
            request.lookups.append(w.inputs.lookup([w.entities[i] for i in at.tolist()]))
            asked.append((number, at))
            size += len(at)
        answer = look_up(request)
        tokens.append(answer.serving_info.freshness_token)
        for (number, at), found in zip(asked, answer.rows, strict=True):
            rows[number][at] = wanted[number].inputs.pack(found, len(at)).floats
    return rows, merge(*tokens)


def live_keys(view: str, orders: Orders) -> Coded:
    """Whose live state an order reads: its shop's, or that of the cell where it is picked up."""
    if view == AREA_VIEW:
        return orders.origin.cells(AREA_RESOLUTION)
    return orders.ids.get("shop") or Coded.same("", len(orders))


def _wanted(inputs: ViewInputs, columns: list[Coded], n: int) -> _Wanted:
    starts = np.cumsum([0, *(len(c.values) for c in columns)])
    codes = [c.codes + start for c, start in zip(columns, starts[:-1], strict=True)]
    entities = [value for c in columns for value in c.values]
    return _Wanted(inputs, entities, np.array(codes, np.int64).reshape(len(columns), n))
