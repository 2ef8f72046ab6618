"""A row of a quality table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One row of a quality table: means over sessions and half the width of their 95 % interval."""

    name: str
    metrics: dict[str, tuple[float, float]]
