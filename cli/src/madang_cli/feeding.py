"""A user's home feed in the demo, and how it changes with what they do."""

import time
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import polars as pl
from rich.console import Console

from madang.common.v1 import place_pb2
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang_cli.mesh.mesh import MeshInfo
from madang_cli.mesh.processes import ProcessFailedError
from madang_cli.show import Catalogue, print_feed, print_moves, print_why
from madang_pipelines.tables import Tables

_TIMEOUT = 5.0


def show_feed(
    info: MeshInfo,
    tables: Tables,
    catalogue: Catalogue,
    console: Console,
    heading: Callable[[str], None],
) -> ranker_pb2.RecommendResponse:
    """Show someone's feed and, under a heading of its own, how feedback changes it; returns the
    feed."""
    request = feed_request(someone(tables))
    user, place = request.user_id, request.place
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
        ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        for _ in range(20):  # connections and memory settle
            ranker.Recommend(request, timeout=_TIMEOUT)
        answer = ranker.Recommend(request, timeout=_TIMEOUT)
        print_feed(answer, place, catalogue, console)
        heading("the loop")
        _loop(ranker, request, catalogue, console)
    return answer


def feed_request(session: dict[str, Any]) -> ranker_pb2.RecommendRequest:
    """The feed of a session."""
    request = ranker_pb2.RecommendRequest(
        user_id=session["user_id"],
        place=place_pb2.Place(latitude=session["latitude"], longitude=session["longitude"]),
        page_size=10,
    )
    request.request_time.FromMilliseconds(session["time"])
    return request


def _loop(
    ranker: ranker_pb2_grpc.RankerServiceStub,
    request: ranker_pb2.RecommendRequest,
    catalogue: Catalogue,
    console: Console,
) -> None:
    """The user opens something and hides something; the next feed is another."""
    request.page_size = 100
    before = ranker.Recommend(request, timeout=_TIMEOUT)
    opened, hidden = before.items[len(before.items) // 2], before.items[0]
    events = [
        ranker_pb2.FeedbackEvent(
            event_id=uuid.uuid4().hex,
            type=kind,
            user_id=request.user_id,
            item_id=item.item_id,
            request_id=before.request_id,
        )
        for kind, item in (
            (ranker_pb2.FEEDBACK_TYPE_CLICK, opened),
            (ranker_pb2.FEEDBACK_TYPE_HIDE, hidden),
        )
    ]
    ranker.RecordFeedback(ranker_pb2.RecordFeedbackRequest(events=events), timeout=_TIMEOUT)
    started = time.perf_counter()
    after = before
    while hidden.item_id in (i.item_id for i in after.items) or not _reacts(after):
        after = ranker.Recommend(request, timeout=_TIMEOUT)
        if time.perf_counter() - started > _TIMEOUT:
            raise ProcessFailedError("feedback did not reach the feed")
    console.print(
        f"They open {catalogue.name(opened.item_id)} ({catalogue.category(opened.item_id)}) and "
        f"hide {catalogue.name(hidden.item_id)}.\n{(time.perf_counter() - started) * 1000:.0f} ms "
        "later the feed no longer has what they hid, and these rose:"
    )
    rose = print_moves(before, after, catalogue, console)
    item = rose[0] if rose else after.items[0].item_id
    print_why(explained(ranker, after.request_id, item), catalogue, console)


def explained(
    ranker: ranker_pb2_grpc.RankerServiceStub, request_id: str, item_id: str
) -> ranker_pb2.ExplainResponse:
    """Explain a page that was just shown: pages are kept off the request's path."""
    request = ranker_pb2.ExplainRequest(request_id=request_id, item_id=item_id)
    until = time.monotonic() + _TIMEOUT
    while True:
        try:
            return ranker.Explain(request, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND or time.monotonic() > until:
                raise
            time.sleep(0.1)


def _reacts(answer: ranker_pb2.RecommendResponse) -> bool:
    return any(s.source == "reactive" for item in answer.items for s in item.reasons)


def someone(tables: Tables) -> dict[str, Any]:
    """A held-out session, if there is one in the evening of a user with a history."""
    sessions = tables.frames["sessions"].filter(pl.col("period") == tables.test_period)
    orders = (
        tables.frames["actions"]
        .filter((pl.col("period") < tables.test_period) & (pl.col("type") == "order"))
        .group_by("user_id")
        .len("orders")
    )
    hours = tables.clock.local_hours(sessions["time"].to_numpy(), sessions["longitude"].to_numpy())
    known = sessions.with_columns(hour=pl.Series(hours % 24)).join(
        orders, "user_id", maintain_order="left"
    )
    wanted = 2 * pl.col("orders").is_between(8, 60) + (pl.col("hour") == 19)
    return known.sort(wanted, descending=True, maintain_order=True).row(0, named=True)
