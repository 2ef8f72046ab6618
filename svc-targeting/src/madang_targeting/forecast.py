"""What telling users would bring, as callers are told."""

from collections.abc import Sequence

from madang.targeting.v1 import targeting_pb2 as pb
from madang_targeting.calibration import foretold
from madang_targeting.curve import Cut

CURVE_POINTS = 40


def curve_point(cut: Cut, goal: "pb.Outcome.ValueType", spread: Sequence[float]) -> pb.CurvePoint:
    """What telling whom a cut takes would bring; `spread` between campaigns, the goal's first."""
    rates = [
        _rate(float(expected) / cut.size if cut.size else 0.0, cut.size, own)
        for expected, own in zip(cut.expected, spread, strict=True)
    ]
    clicks_first = goal == pb.OUTCOME_CLICK
    return pb.CurvePoint(
        size=round(cut.size),
        click_rate=rates[0 if clicks_first else 1],
        order_rate=rates[1 if clicks_first else 0],
    )


def _rate(expected: float, users: float, spread: float) -> pb.Rate:
    within = foretold(expected, users, spread)
    return pb.Rate(expected=expected, low=within.low, high=within.high)
