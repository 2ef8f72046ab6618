"""`madang demo --data`: every service that files have something for, on those files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import polars as pl
from google.protobuf import timestamp_pb2
from rich.console import Console
from rich.table import Table

from madang.common.v1 import place_pb2
from madang.eta.v1 import eta_pb2, eta_pb2_grpc
from madang.targeting.v1 import targeting_pb2 as tpb
from madang.targeting.v1 import targeting_pb2_grpc
from madang_cli.arrival import draw_arrival
from madang_cli.demo import started
from madang_cli.feeding import show_feed
from madang_cli.mesh.mesh import MeshInfo, wait_for
from madang_cli.outreach import draw_curve, made_segment
from madang_cli.own_data import print_report
from madang_cli.searching import SearchBox
from madang_cli.show import Catalogue, headings, print_segment, steps
from madang_cli.traces import draw_trace
from madang_cli.workspace import Workspace
from madang_pipelines.imports.importing import import_tables
from madang_pipelines.imports.mapping import Mapping as DataMapping
from madang_pipelines.imports.mapping import MappingError
from madang_pipelines.imports.ready import open_mappings
from madang_pipelines.own.clicks import ClickPlan
from madang_pipelines.own.orders import OrderPlan, held_out_orders
from madang_pipelines.own.searches import SearchPlan
from madang_pipelines.own.training import Plans, services_for
from madang_pipelines.own.visits import RECIPE, VisitPlan, visit_tables
from madang_pipelines.tables import Tables
from madang_runtime.columns import block
from madang_search.train import Schedule

_TIMEOUT = 10.0
_ORDERS = 6
_SHARE = 0.1
_ORDER = ("candidate", "ranker", "eta", "targeting", "search")
_QUICK = Plans(
    visits=VisitPlan(replace(RECIPE, dcn=replace(RECIPE.dcn, epochs=1)), judged=1200),
    clicks=ClickPlan(shrinks=(1e-2,), least=(1,), members=1),
    orders=OrderPlan(tries=OrderPlan().tries[:1], members=2),
    searches=SearchPlan(
        Schedule(epochs=1, batch=32, learning_rate=2e-4, forget=0.1),
        Schedule(epochs=1, batch=32, forget=0.2),
        seeds=(0,),
    ),
)
"""A demo is not waited for as long as a training: one pass, and nothing is chosen by trying it."""


def run_own_demo(path: Path, home: Path, console: Console) -> None:
    """Train every service that a mapping, or those that a folder fits, have tables for; start the
    mesh, use it, and take it down again.

    Raises:
        MappingError: nothing is there that a service learns from.
    """
    chosen = choose(open_mappings(path))
    if not chosen:
        raise MappingError(f"{path} has no table that a service learns from")
    workspace, heading = Workspace(home), headings(console)
    workspace.clear()
    heading("data and models")
    for service, mappings in chosen.items():
        with steps(console) as report:
            reports = workspace.train_own(service, mappings[0], _QUICK, report)
            workspace.add_documents(mappings[1:])
        for one in reports:
            print_report(one, console)
    tables = _tables(chosen["candidate"][0], workspace) if "candidate" in chosen else None

    heading("the mesh")
    with started(workspace, console) as mesh:
        trace_id = ""
        if tables:
            heading("a home feed")
            catalogue = Catalogue(home / "data")
            answer = show_feed(mesh.info, tables, catalogue, console, heading)
            trace_id = answer.serving_info.trace_id
        if "eta" in chosen:
            heading("when it arrives")
            _arrivals(mesh.info, chosen["eta"][0], console)
        if "search" in chosen:
            heading("search")
            _search(mesh.info, chosen["search"], console)
        if "targeting" in chosen:
            heading("whom to tell")
            _segment(mesh.info, console)
        if trace_id:
            heading("the feed's request, traced")
            draw_trace(mesh.info.traces, trace_id, console)
    console.print("\nEverything is stopped. Next: [bold]madang up[/], see the README.")


def choose(found: Sequence[DataMapping]) -> dict[str, list[DataMapping]]:
    """The mappings that each service learns from: of several the one with the most tables; for
    search those behind it, too, as more to be found. The home feed's ranker comes with candidate.
    """
    chosen: dict[str, list[DataMapping]] = {}
    for service in _ORDER:
        own = [m for m in found if service in services_for(m)]
        if service == "search":
            own = [m for m in own if {"documents", "pairs"} & m.tables().keys()] or own[:1]
            own.sort(key=lambda m: "pairs" in m.tables(), reverse=True)
        else:
            own.sort(key=lambda m: len(m.tables()), reverse=True)
        if own and not (service == "ranker" and "candidate" in chosen):
            chosen[service] = own if service == "search" else own[:1]
    return chosen


def _tables(mapping: DataMapping, workspace: Workspace) -> Tables:
    """Canonical tables of what users chose, kept as the catalogue reads them."""
    imported = import_tables(mapping, ("interactions", "items"))
    tables = visit_tables(mapping.name, imported, mapping.utc_offset_hours)
    tables.save(workspace.home / "data")
    return tables


def _arrivals(info: MeshInfo, mapping: DataMapping, console: Console) -> None:
    """Orders that were not learned from: what was expected of each, and what it took."""
    orders, numbers = held_out_orders(import_tables(mapping, ("orders",))["orders"], _ORDERS)
    shown = Table(box=None, pad_edge=False, padding=(0, 2))
    for name in ("order", "km", "shown", "80 %", "median", "took"):
        shown.add_column(name, justify="left" if name == "order" else "right")
    with grpc.insecure_channel(info.gateway) as channel:
        eta = eta_pb2_grpc.EtaServiceStub(channel)
        for at, order in enumerate(orders.iter_rows(named=True)):
            answer = eta.Predict(_asked(order, numbers), timeout=_TIMEOUT)
            if not at:
                console.print(f"[bold]{mapping.name}, order {order['order_id']}[/]: minutes")
                draw_arrival(answer, console)
            window, sure = answer.window, answer.sure_window
            within = sure.start_minute <= order["took"] < sure.end_minute
            shown.add_row(
                order["order_id"],
                f"{order['distance_km']:.0f}",
                f"{window.start_minute}–{window.end_minute}",
                f"{sure.start_minute}–{sure.end_minute}",
                f"{answer.quantile_minutes[1]:.0f}",
                f"[{'green' if within else 'yellow'}]{order['took']:.0f}[/]",
            )
    console.print("Orders that were not learned from:")
    console.print(shown)


def _asked(order: Mapping[str, Any], numbers: Sequence[str]) -> eta_pb2.PredictRequest:
    """What is known of an order when it is placed."""

    def place(latitude: str, longitude: str) -> place_pb2.Place | None:
        if order[latitude] is None or order[longitude] is None:
            return None
        return place_pb2.Place(latitude=order[latitude], longitude=order[longitude])

    when = timestamp_pb2.Timestamp()
    when.FromMilliseconds(order["time"])
    known = [name for name in numbers if order[name] is not None]
    values = np.array([[order[name] for name in known]], np.float32)
    return eta_pb2.PredictRequest(
        service=order["service"],
        shop_id=order.get("shop_id") or "",
        courier_id=order.get("courier_id") or "",
        user_id=order.get("user_id") or "",
        origin=place("origin_latitude", "origin_longitude"),
        place=place("latitude", "longitude") or place_pb2.Place(),
        distance_km=order["distance_km"],
        order_time=when,
        numbers=block(known, values) if known else None,
    )


def _search(info: MeshInfo, mappings: Sequence[DataMapping], console: Console) -> None:
    """Type the most popular title, and search by queries that come with the data."""
    queries = [q for mapping in mappings for q in _queries(mapping)][:4]
    with grpc.insecure_channel(info.gateway) as channel:
        box = SearchBox(channel)
        # Phrases to suggest are gathered now and then, and documents have just come.
        if wait_for(lambda: bool(box.popular(1)), 30):
            box.type(console)
        box.find(console, queries or box.popular(3))


def _queries(mapping: DataMapping) -> list[str]:
    """Some that were held out where there are such."""
    if "pairs" in mapping.tables():
        frame = import_tables(mapping, ("pairs",))["pairs"].frame
        frame = frame.filter((pl.col("part") == "test") | (frame["part"] != "test").all())
        return frame["query"].unique(maintain_order=True).head(2).to_list()
    if "queries" in mapping.tables():
        return import_tables(mapping, ("queries",))["queries"].frame["text"].head(1).to_list()
    return []


def _segment(info: MeshInfo, console: Console) -> None:
    """The tenth of the audience that most should respond, by the first channel and campaign."""
    with grpc.insecure_channel(info.gateway) as channel:
        targeting = targeting_pb2_grpc.TargetingServiceStub(channel)
        known = targeting.GetAudienceInfo(tpb.GetAudienceInfoRequest(), timeout=_TIMEOUT)
        spec = tpb.SegmentSpec(
            channel=known.channels[0],
            reference_campaign_ids=[known.campaigns[0].campaign_id],
            goal=tpb.OUTCOME_CLICK,
            size=max(int(known.audience_size * _SHARE), 1),
        )
        console.print(
            f"{known.audience_size:,} users; the {spec.size:,} of them who most should respond to "
            f"a message by {spec.channel}:"
        )
        with steps(console) as report:
            result = made_segment(targeting, "demo", spec, report)
    draw_curve(result, console)
    print_segment(result, console)
