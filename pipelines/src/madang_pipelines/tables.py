"""The canonical tables. Every source fills them, and every pipeline starts from them.

All times are milliseconds since the epoch (UTC), all places WGS 84 degrees, all prices in the
data's own currency. A `period` is a stretch of the data: features are made from the periods before
the one that they are used in, so that none looks ahead. The last period is held out for evaluation.
"""

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from madang_runtime.models.context import Clock

SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    # One row a user. Codes are 0 where nothing is known; latitude and longitude are the home's.
    "users": {
        "user_id": pl.String(),
        "age_band": pl.Int64(),
        "gender": pl.Int64(),
        "home_district": pl.Int64(),
        "latitude": pl.Float64(),
        "longitude": pl.Float64(),
    },
    # One row an item: shops (kind 1) and ads (kind 2, `shop_id` names the shop that pays).
    # `price` is null where there is none; bit h of `open_hours` says open in local hour h;
    # `radius_km` is how far it delivers, 0 for everywhere; bids and budgets are per click and day.
    "items": {
        "item_id": pl.String(),
        "kind": pl.Int64(),
        "name": pl.String(),
        "name_en": pl.String(),
        "category": pl.Int64(),
        "category_name": pl.String(),
        "district": pl.Int64(),
        "price": pl.Float64(),
        "latitude": pl.Float64(),
        "longitude": pl.Float64(),
        "open_hours": pl.Int64(),
        "radius_km": pl.Float64(),
        "shop_id": pl.String(),
        "bid": pl.Float64(),
        "daily_budget": pl.Float64(),
        "menu": pl.List(pl.String()),
    },
    # One row a visit of the feed, with the place that the order would go to.
    "sessions": {
        "session_id": pl.Int64(),
        "user_id": pl.String(),
        "time": pl.Int64(),
        "latitude": pl.Float64(),
        "longitude": pl.Float64(),
        "period": pl.Int64(),
    },
    # One row an item shown in a session, from position 0, and what the user did with it.
    "impressions": {
        "session_id": pl.Int64(),
        "item_id": pl.String(),
        "position": pl.Int64(),
        "clicked": pl.Boolean(),
        "ordered": pl.Boolean(),
        "hidden": pl.Boolean(),
    },
    # One row an action. `type` is "click" or "order"; a check-in counts as an order.
    "actions": {
        "user_id": pl.String(),
        "item_id": pl.String(),
        "type": pl.String(),
        "time": pl.Int64(),
        "period": pl.Int64(),
    },
    # One row a search, and the shop that was ordered from after it; "" where none was. Data without
    # searches has none.
    "searches": {
        "user_id": pl.String(),
        "query": pl.String(),
        "time": pl.Int64(),
        "item_id": pl.String(),
        "period": pl.Int64(),
    },
    # One row an order that was delivered, with the minutes that its stages took (null where that is
    # not known), and what was known when it was placed: orders that waited for couriers and
    # couriers that were free around the shop, orders in its kitchen, rain in mm an hour, degrees
    # Celsius. `service` is the kind of service. Data without deliveries has none.
    "orders": {
        "order_id": pl.String(),
        "user_id": pl.String(),
        "shop_id": pl.String(),
        "service": pl.String(),
        "category": pl.String(),
        "time": pl.Int64(),
        "period": pl.Int64(),
        "origin_latitude": pl.Float64(),
        "origin_longitude": pl.Float64(),
        "latitude": pl.Float64(),
        "longitude": pl.Float64(),
        "open_orders": pl.Float64(),
        "free_couriers": pl.Float64(),
        "cooking": pl.Float64(),
        "rain": pl.Float64(),
        "temperature": pl.Float64(),
        "dispatch": pl.Float64(),
        "pickup": pl.Float64(),
        "delivery": pl.Float64(),
    },
    # One row a campaign, in the order in which they were sent. `group` is what it was about, a
    # `category_name` of items; `period` is when it was sent: features are from before. Data without
    # campaigns has none.
    "campaigns": {
        "campaign_id": pl.String(),
        "group": pl.String(),
        "channel": pl.String(),
        "period": pl.Int64(),
    },
    # One row a campaign and user, in the campaigns' order: whether they were told or held out by
    # chance, whether they opened it, and whether they ordered, told or not.
    "sends": {
        "campaign_id": pl.String(),
        "user_id": pl.String(),
        "told": pl.Boolean(),
        "clicked": pl.Boolean(),
        "ordered": pl.Boolean(),
    },
}
_OPTIONAL = ("searches", "orders", "campaigns", "sends")


@dataclass
class Rejected:
    """Rows of one file or table that were set aside."""

    source: str
    read: int = 0
    rows: list[tuple[int, str]] = field(default_factory=list)

    def reject(self, line: int, why: str) -> None:
        """Set a row aside by its line number, counted from 1."""
        self.rows.append((line, why))

    def reasons(self) -> dict[str, int]:
        """How many rows each reason set aside."""
        counts: dict[str, int] = {}
        for _, why in self.rows:
            counts[why] = counts.get(why, 0) + 1
        return counts


@dataclass
class Tables:
    """A data set.

    Attributes:
        name: what it is called in reports.
        frames: the tables by name, as SCHEMAS says.
        clock: how local time follows from place.
        quality: what was set aside while reading.
        periods: number of periods; the last is held out.
        real_impressions: whether users saw the impressions, or they hold only what users chose.
        ordered: whether it is known in which order users chose.
    """

    name: str
    frames: dict[str, pl.DataFrame]
    clock: Clock
    periods: int
    real_impressions: bool = True
    ordered: bool = True
    quality: list[Rejected] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in _OPTIONAL:
            self.frames.setdefault(name, pl.DataFrame(schema=SCHEMAS[name]))
        for name, schema in SCHEMAS.items():
            self.frames[name] = self.frames[name].select(
                pl.col(column).cast(dtype) for column, dtype in schema.items()
            )

    @property
    def test_period(self) -> int:
        """The held-out period."""
        return self.periods - 1

    def save(self, folder: Path) -> None:
        """Write one Parquet file a table, and the rows set aside as JSON lines."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in self.frames.items():
            frame.write_parquet(folder / f"{name}.parquet")
        rejected = pl.DataFrame(
            [(q.source, line, why) for q in self.quality for line, why in q.rows],
            schema={"source": pl.String(), "line": pl.Int64(), "reason": pl.String()},
            orient="row",
        )
        rejected.write_ndjson(folder / "set_aside.jsonl")
