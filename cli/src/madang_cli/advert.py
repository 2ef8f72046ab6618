"""The demo's ads: one is opened until its budget is spent."""

import math
import time
import uuid
from dataclasses import dataclass

import grpc

from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang_cli.mesh.processes import ProcessFailedError
from madang_cli.show import Catalogue

SURFACE = "ads"
_TIMEOUT, _TAKES = 5.0, 30.0


@dataclass(frozen=True)
class Spent:
    """How a budget came to its end.

    Attributes:
        item_id: of the ad.
        clicks: that spent it.
        seconds: from the last of them until a page no longer had the ad.
    """

    item_id: str
    clicks: int
    seconds: float


class AdSlot:
    """The ads that a user is shown.

    Args:
        channel: to the mesh.
        request: for whom, where and when.
        catalogue: knows bids and budgets.
    """

    def __init__(
        self, channel: grpc.Channel, request: ranker_pb2.RecommendRequest, catalogue: Catalogue
    ) -> None:
        self._ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        self._request = ranker_pb2.RecommendRequest()
        self._request.CopyFrom(request)
        self._request.surface = SURFACE
        self._catalogue = catalogue

    def page(self, least: int = 1) -> ranker_pb2.RecommendResponse:
        """A page of at least so many ads: pacing begins with a tenth of all users."""
        until = time.monotonic() + _TAKES
        while True:
            answer = self._ranker.Recommend(self._request, timeout=_TIMEOUT)
            if len(answer.items) >= least:
                return answer
            if time.monotonic() > until:
                raise ProcessFailedError(f"only {len(answer.items)} ads are shown")
            time.sleep(0.2)

    def spend(self, item_id: str) -> Spent:
        """Let users open an ad until its budget is spent and it is gone."""
        clicks = math.ceil(self._catalogue.daily_budget(item_id) / self._catalogue.bid(item_id))
        events = [
            ranker_pb2.FeedbackEvent(
                event_id=uuid.uuid4().hex,
                type=ranker_pb2.FEEDBACK_TYPE_CLICK,
                user_id=f"someone-{n}",
                item_id=item_id,
                surface=SURFACE,
            )
            for n in range(clicks)
        ]
        self._ranker.RecordFeedback(
            ranker_pb2.RecordFeedbackRequest(events=events), timeout=_TIMEOUT
        )
        started = time.perf_counter()
        while item_id in {item.item_id for item in self.page(0).items}:
            if time.perf_counter() - started > _TAKES:
                raise ProcessFailedError(f"{item_id} is still shown")
            time.sleep(0.02)
        return Spent(item_id, clicks, time.perf_counter() - started)
