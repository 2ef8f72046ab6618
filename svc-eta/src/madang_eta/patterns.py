"""Patterns: how orders of the same shop, cell or hour have deviated from what distance explains.

A pattern is a key of an order, such as "shop", "place8" (the H3 cell of resolution 8 it goes to) or
"origin7+hour". Of each key the feature view `eta_pattern` holds means over past orders, shrunk
towards 0 where there were few (Micci-Barreca, "A preprocessing scheme for high-cardinality
categorical attributes", 2001). Training makes its own rows without the order itself, or without
anything of its day or later, so that none knows its answer.
"""

import re

import numpy as np

from madang_eta.orders import Coded, Ints, Orders

VIEW = "eta_pattern"
MAX_STAGES = 4
_CELLS = re.compile(r"(origin|place)(\d{1,2})")


def check_pattern(pattern: str) -> str:
    """The pattern itself. Raises: ValueError when a part is not known."""
    for part in pattern.split("+"):
        if part not in ("shop", "courier", "user", "category", "hour", "slot"):
            found = _CELLS.fullmatch(part)
            if not found or int(found[2]) > 12:
                raise ValueError(f"{part!r} in pattern {pattern!r} is none that there is")
    return pattern


def keys(pattern: str, service: str, orders: Orders, hours: Ints) -> Coded:
    """The key of each order under a pattern, as the view's entity ids; "" where it has none.

    Args:
        pattern: such as "origin7+hour".
        service: the kind of service, whose patterns are its own.
        orders: n orders.
        hours: local hours since the epoch, shape [n].
    """
    parts = [_part(part, orders, hours) for part in pattern.split("+")]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.with_(part)
    named = [f"{service}/{pattern}/{value}" if value else "" for value in joined.values]
    return Coded(named, joined.codes)


def _part(part: str, orders: Orders, hours: Ints) -> Coded:
    if part == "hour":
        return Coded([str(h) for h in range(24)], hours % 24)
    if part == "slot":  # three hours of a weekday or of a weekend's day; day 0 was a Thursday
        weekend = np.isin(hours // 24 % 7, (2, 3))
        return Coded([str(s) for s in range(16)], weekend * 8 + hours % 24 // 3)
    if cells := _CELLS.fullmatch(part):
        points = orders.origin if cells[1] == "origin" else orders.place
        return points.cells(int(cells[2]))
    return orders.ids.get(part) or Coded.same("", len(orders))
