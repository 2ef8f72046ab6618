"""`madang demo`: data → models → mesh → a feed, and its trace."""

import uuid
from pathlib import Path
from typing import Any

import grpc
import polars as pl
from rich.console import Console

from madang.common.v1 import place_pb2
from madang.feature.v1 import feature_store_pb2, feature_store_pb2_grpc
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh, MeshInfo, wait_for
from madang_cli.show import Catalogue, print_data, print_feed, print_quality, steps
from madang_cli.traces import draw, is_whole, read_spans
from madang_cli.workspace import DataSource, Workspace, load
from madang_pipelines.publish import publish
from madang_pipelines.tables import Tables
from madang_pipelines.training import Recipe

_EVALUATED = 1200
_TIMEOUT = 5.0


def run_demo(source: DataSource, home: Path, console: Console) -> None:
    """Run everything in a folder of its own and take it down again."""
    workspace = Workspace(home)
    workspace.clear()
    console.rule("[bold]1 · data and models")
    with steps(console) as report:
        data = load(source, lambda share: report("data", share))
        workspace.train(source, data, Recipe(), report)
        quality = workspace.evaluate(data, _EVALUATED, lambda s: report("evaluation", s))
    print_data(data.tables, console)
    truth = "by the simulator's truth" if data.truth else "where people went next"
    print_quality(quality, f"Held-out period, {truth}", console)

    console.rule("[bold]2 · the mesh")
    with LocalMesh(home, "demo", note=lambda part: console.print(f"  {part} is ready")) as mesh:
        rows = publish(workspace.features, mesh.info.gateway)
        for service in ("candidate", "ranker"):
            mesh.wait_ready(service)
        console.print(f"  {rows:,} feature rows published through the gateway {mesh.info.gateway}")
        console.rule("[bold]3 · a home feed")
        _feed(mesh.info, data.tables, Catalogue(home / "data"), console)
    console.print("\nEverything is stopped. Next: [bold]madang up[/], see the README.")


def _feed(info: MeshInfo, tables: Tables, catalogue: Catalogue, console: Console) -> None:
    session = _someone(tables)
    user = session["user_id"]
    place = place_pb2.Place(latitude=session["latitude"], longitude=session["longitude"])
    past = tables.frames["actions"].filter(
        (pl.col("user_id") == user)
        & (pl.col("type") == "order")
        & (pl.col("period") < tables.test_period)
    )
    favourites = past.group_by("item_id").len().sort("len", "item_id", descending=[True, False])
    names = [catalogue.name(i) for i in favourites["item_id"].head(3).to_list()]
    console.print(
        f"[bold]{user}[/] at {place.latitude:.4f}, {place.longitude:.4f}; {len(past)} orders "
        f"before, most from {', '.join(names)}"
    )
    with grpc.insecure_channel(info.gateway) as channel:
        clicked = favourites["item_id"][0]
        feature_store_pb2_grpc.FeatureStoreServiceStub(channel).RecordActions(
            feature_store_pb2.RecordActionsRequest(
                actions=[
                    feature_store_pb2.Action(
                        event_id=str(uuid.uuid4()),
                        user_id=user,
                        type=feature_store_pb2.ACTION_TYPE_CLICK,
                        item_id=clicked,
                    )
                ]
            ),
            timeout=_TIMEOUT,
        )
        console.print(f"A moment ago they opened {catalogue.name(clicked)}.")
        ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        request = ranker_pb2.RecommendRequest(user_id=user, place=place, page_size=10)
        request.request_time.FromMilliseconds(session["time"])
        for _ in range(20):  # connections and memory settle
            ranker.Recommend(request, timeout=_TIMEOUT)
        answer = ranker.Recommend(request, timeout=_TIMEOUT)
    print_feed(answer, place, catalogue, console)
    console.rule("[bold]4 · the same request, traced")
    draw_trace(info, answer.serving_info.trace_id, console)


def _someone(tables: Tables) -> dict[str, Any]:
    """A held-out session in the evening of a user with a history."""
    sessions = tables.frames["sessions"].filter(pl.col("period") == tables.test_period)
    busy = (
        tables.frames["actions"]
        .filter((pl.col("period") < tables.test_period) & (pl.col("type") == "order"))
        .group_by("user_id")
        .len()
        .filter(pl.col("len").is_between(8, 60))
    )
    hours = tables.clock.local_hours(sessions["time"].to_numpy(), sessions["longitude"].to_numpy())
    evening = sessions.with_columns(hour=pl.Series(hours % 24)).filter(pl.col("hour") == 19)
    return evening.join(busy, "user_id", maintain_order="left").row(0, named=True)


def draw_trace(info: MeshInfo, trace_id: str, console: Console) -> bool:
    """Draw a trace once its spans have arrived; returns whether there are any."""
    path = Path(info.traces)
    # The gateway ends first and last, and keeps its spans for half a second.
    wait_for(lambda: is_whole(read_spans(path, trace_id)), 5)
    if spans := read_spans(path, trace_id):
        draw(spans, console)
    return bool(spans)
