"""The demo's order: when it arrives, drawn in the terminal, and how that changes on its way."""

import time
import urllib.request
from collections.abc import Mapping

import grpc
import numpy as np
from google.protobuf import timestamp_pb2
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from madang.common.v1 import place_pb2
from madang.eta.v1 import eta_pb2 as pb
from madang.eta.v1 import eta_pb2_grpc
from madang_eta.kinds import load_kinds

_TIMEOUT = 5.0
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ROWS = 6
_WIDEST = 72
_ROWS_METRIC, _SECONDS_METRIC = "madang_eta_list_rows", "madang_eta_list_seconds"


class Order:
    """An order that the demo follows.

    Args:
        channel: of the gateway.
        shop_id: where it comes from.
        place: where it goes.
        order_time: when it is placed.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        shop_id: str,
        place: place_pb2.Place,
        order_time: timestamp_pb2.Timestamp,
    ) -> None:
        self._eta = eta_pb2_grpc.EtaServiceStub(channel)
        self._request = pb.PredictRequest(shop_id=shop_id, place=place, order_time=order_time)

    def predict(self, token: str = "") -> pb.PredictResponse:
        """When it arrives."""
        self._request.freshness_token = token
        return self._eta.Predict(self._request, timeout=_TIMEOUT)

    def ended(self, stage: str, minutes: int) -> pb.PredictResponse:
        """The stage has ended after minutes: what remains."""
        event = self._request.events.add(stage=stage)
        before = self._request.order_time.ToMilliseconds()
        if len(self._request.events) > 1:
            before = self._request.events[-2].time.ToMilliseconds()
        event.time.FromMilliseconds(before + minutes * 60_000)
        self._request.as_of.CopyFrom(event.time)
        return self._eta.Predict(self._request, timeout=_TIMEOUT)

    def buffer(self, minutes: int, reason: str) -> str:
        """Somebody adds minutes to the shop's arrivals for an hour; returns the freshness token."""
        buffer = pb.TimeBuffer(
            scope=pb.BufferScope(shop_id=self._request.shop_id),
            minutes=minutes,
            reason=reason,
            author="demo",
            removed=not minutes,
        )
        buffer.expire_time.FromMilliseconds(int((time.time() + 3600) * 1000))
        answer = self._eta.SetTimeBuffer(pb.SetTimeBufferRequest(buffer=buffer), timeout=_TIMEOUT)
        return answer.freshness_token


def draw_arrival(answer: pb.PredictResponse, console: Console) -> None:
    """The probability of each minute; the window that users are shown stands out."""
    pmf = np.frombuffer(answer.probabilities, "<f4")
    below = np.cumsum(pmf)
    last = min(int(np.searchsorted(below, 0.985)) + 2, len(pmf), _WIDEST)
    heights = pmf[:last] / max(pmf[:last].max(), 1e-9) * _ROWS
    shown = range(answer.window.start_minute, answer.window.end_minute)
    for row in range(_ROWS - 1, -1, -1):
        line = ""
        for minute, height in enumerate(heights.tolist()):
            block = _BLOCKS[int(np.clip(round((height - row) * 8), 0, 8))]
            line += f"[magenta]{block}[/]" if minute in shown else block
        console.print("    " + line, highlight=False)
    axis = "".join(f"{minute:<10}" for minute in range(0, last, 10))
    console.print("    " + axis[:_WIDEST].rstrip(), highlight=False)
    console.print(summary(answer))


def summary(answer: pb.PredictResponse) -> str:
    """In one line."""
    window, sure = answer.window, answer.sure_window
    early, middle, late = answer.quantile_minutes
    return (
        f"  [bold magenta]{window.start_minute}–{window.end_minute} min[/] "
        f"({window.probability:.0%}); {sure.start_minute}–{sure.end_minute} "
        f"({sure.probability:.0%}); quantiles 10 % {early:.0f}, 50 % {middle:.0f}, "
        f"90 % {late:.0f}"
    )


def refreshed(metrics: Mapping[str, str]) -> tuple[int, float]:
    """Rows of all lists, and the seconds that they took; 0 until all are made."""
    with urllib.request.urlopen(metrics["refresher"], timeout=_TIMEOUT) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    found = {f.name: [s.value for s in f.samples] for f in families}
    rows, seconds = found.get(_ROWS_METRIC, []), found.get(_SECONDS_METRIC, [])
    whole = len(seconds) == len(load_kinds(None))
    return (int(sum(rows)), sum(seconds)) if whole else (0, 0.0)
