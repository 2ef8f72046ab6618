"""Replays a day: what versions would have said of its orders when they were placed."""

import numpy as np
import polars as pl

from madang_eta.stage_model import EtaModel
from madang_pipelines.eta.scores import EtaScores, score
from madang_pipelines.eta.training import EtaPlan, local_days, make_examples


def replay(
    orders: pl.DataFrame, models: dict[str, EtaModel], day: int
) -> tuple[int, list[EtaScores]]:
    """Scores of each version on the orders of a day, of one kind of service.

    Args:
        orders: the table `orders`; the days before are what patterns are made of.
        models: by the name to show, all of one kind of service.
        day: from that of the service's first order, 0; or from that of its last, -1.

    Returns:
        how many orders, and the scores.

    Raises:
        ValueError: no order of the service was delivered on that day.
    """
    service = next(iter(models.values())).service
    frame = orders.filter(pl.col("service") == service)
    found: list[EtaScores] = []
    n = 0
    for name, model in models.items():
        layout = model.layout
        plan = EtaPlan(
            service,
            stages=tuple(stage.name for stage in model.stages),
            patterns=layout.patterns,
            numbers=layout.numbers,
            clock=layout.clock,
            shares={},
        )
        examples = make_examples(frame, plan, np.zeros(len(frame), bool), layout=layout)
        days = local_days(examples.orders, layout.clock)
        wanted = day if day >= 0 else int(days.max(initial=-1)) + 1 + day
        rows = np.flatnonzero((days == wanted) & ~np.isnan(examples.minutes).any(1))
        if not len(rows):
            raise ValueError(f"no order of {service!r} was delivered on day {day}")
        n = len(rows)
        minutes = examples.minutes[rows].sum(1)
        found.append(score(name, model.arrivals(examples.inputs[rows]), minutes))
    return n, found
