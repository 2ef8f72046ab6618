"""From tables to the models, patterns and live state of svc-eta."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import h3
import numpy as np
import polars as pl

from madang_candidate.cells import delivery_cells
from madang_eta.kinds import load_kinds
from madang_eta.layout import AREA_RESOLUTION, AREA_VIEW, SHOP_VIEW
from madang_eta.lists import CELL_RESOLUTION
from madang_eta.patterns import VIEW
from madang_eta.shops import Shops
from madang_pipelines.eta.frames import LIVE
from madang_pipelines.eta.training import EtaPlan, train_service
from madang_pipelines.gate import check, load_rules
from madang_pipelines.tables import Tables
from madang_runtime.models.registry import ModelRegistry

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Arrivals:
    """What a training made.

    Attributes:
        versions: the registered version of each model.
        views: rows of feature views to publish, by view: `entity_id` and a column a feature.
    """

    versions: dict[str, str]
    views: dict[str, pl.DataFrame]


def train_arrivals(
    tables: Tables,
    registry: ModelRegistry,
    plan: Callable[[EtaPlan], EtaPlan] = lambda plan: plan,
    progress: Progress = lambda step, share: None,
) -> Arrivals:
    """Train a model of each kind of service on all periods but the last, and make it champion.

    Rows that break a rule are set aside and noted in the tables' quality.

    Raises:
        GateError: too many rows do.
    """
    orders, rejected = check("orders", tables.frames["orders"], load_rules("orders"))
    tables.quality.append(rejected)
    versions, patterns = {}, []
    for service, shops in shops_of(tables, orders).items():
        frame = orders.filter(pl.col("service") == service)
        made = train_service(
            frame,
            plan(EtaPlan(service, clock=tables.clock)),
            (frame["period"] < tables.test_period).to_numpy(),
            shops,
            registry,
            lambda share, service=service: progress(f"arrivals, {service}", share),  # type: ignore[misc]
        )
        versions[f"eta-{service}"] = made.version
        patterns.append(made.patterns)
    return Arrivals(versions, {VIEW: pl.concat(patterns), **live_rows(orders)})


def shops_of(tables: Tables, orders: pl.DataFrame) -> dict[str, Shops]:
    """Shops and their ads by kind of service: that of a shop's last order, else the first that is
    configured and has orders."""
    last = orders.sort("time").group_by("shop_id").agg(pl.col("service").last())
    found = last["service"].unique().to_list()
    configured = [kind for kind in load_kinds(None) if kind in found]
    kinds = configured + sorted(set(found) - set(configured))
    items = (
        tables.frames["items"]
        .with_columns(shop=pl.when(pl.col("shop_id") == "").then("item_id").otherwise("shop_id"))
        .drop("shop_id")
        .join(last, left_on="shop", right_on="shop_id", how="left", maintain_order="left")
        .with_columns(pl.col("service").fill_null(kinds[0]))
    )
    return {kind: _shops(items.filter(pl.col("service") == kind)) for kind in kinds}


def _shops(items: pl.DataFrame) -> Shops:
    degrees = items.select("latitude", "longitude").to_numpy()
    # An ad's estimates are its shop's.
    radius = np.where(items["item_id"] == items["shop"], items["radius_km"].to_numpy(), 0.0)
    cells = delivery_cells(degrees, radius, CELL_RESOLUTION)
    counts = np.diff(cells["cell_starts"])
    return Shops(
        items["item_id"].to_list(),
        items["shop"].to_list(),
        degrees,
        items["category_name"].to_list(),
        cells["cell_items"].astype(np.int64),
        np.repeat(cells["cells"].astype(np.uint64), counts),
    )


def live_rows(orders: pl.DataFrame) -> Mapping[str, pl.DataFrame]:
    """The live state of each area and shop as of its last order."""
    last = orders.sort("time")
    cells = [
        h3.latlng_to_cell(*place, AREA_RESOLUTION)
        for place in last.select("origin_latitude", "origin_longitude").iter_rows()
    ]
    entities = {AREA_VIEW: pl.Series(cells, dtype=pl.String), SHOP_VIEW: last["shop_id"]}
    return {
        view: last.select(
            entities[view].alias("entity_id"), *(pl.col(n).cast(pl.Float32) for n in names)
        )
        .group_by("entity_id", maintain_order=True)
        .last()
        for view, names in LIVE.items()
    }
