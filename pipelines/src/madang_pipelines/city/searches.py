"""What people of the city typed before they ordered."""

import numpy as np
import polars as pl

from madang_pipelines.city.names import CATEGORIES, DISTRICTS, WISHES

_SEARCHED = 0.35
"""Share of orders that a search led to."""
_BEFORE_MS = 120_000
# How a search is worded: the kind of shop in Korean or English, something that means it, what is on
# the menu, the shop's name, the kind with the district, a wish that several kinds of shops answer.
_WORDED = (0.18, 0.07, 0.24, 0.24, 0.1, 0.07, 0.1)


def searches(items: pl.DataFrame, actions: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The table `searches`: one row a search, in the order of time."""
    rng = np.random.default_rng([seed, 2])  # searches change nothing else
    orders = actions.filter(pl.col("type") == "order").sort("time", "user_id", "item_id")
    orders = orders.filter(pl.Series(rng.random(len(orders)) < _SEARCHED))
    sold = orders.select("item_id").join(items, "item_id", maintain_order="left")
    worded = rng.choice(len(_WORDED), len(orders), p=_WORDED)
    draws = rng.random((len(orders), 2))
    queries = [
        _query(int(how), category - 1, name, district - 1, draw)
        for how, category, name, district, draw in zip(
            worded, sold["category"], sold["name"], sold["district"], draws.tolist(), strict=True
        )
    ]
    return orders.select(
        "user_id",
        pl.Series("query", queries, pl.String),
        pl.col("time") - _BEFORE_MS,
        sold["shop_id"].replace("", None).fill_null(sold["item_id"]).alias("item_id"),
        "period",
    )


def _query(how: int, category: int, name: str, district: int, draw: list[float]) -> str:
    kind = CATEGORIES[category]
    wishes = [wish for wish, kinds in WISHES if not kinds or kind.korean in kinds]
    texts = (
        kind.korean,
        kind.english.lower(),
        kind.asked[int(draw[0] * len(kind.asked))],
        kind.menu[int(draw[1] * len(kind.menu))],
        name,
        f"{DISTRICTS[district][0]} {kind.korean}",
        wishes[int(draw[0] * len(wishes))],
    )
    return texts[how]
