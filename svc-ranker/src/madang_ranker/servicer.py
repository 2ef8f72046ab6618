"""Proto ↔ domain of svc-ranker."""

from collections.abc import Callable

import grpc

from madang.ranker.v1 import ranker_pb2 as pb
from madang.ranker.v1 import ranker_pb2_grpc
from madang_ranker.explain import Explainer
from madang_ranker.feed import Feed
from madang_ranker.feedback import FeedbackIntake
from madang_runtime.stages import Stages


class RankerServicer(ranker_pb2_grpc.RankerServiceServicer):
    """Implements RankerService."""

    def __init__(
        self,
        feed: Feed,
        feedback: FeedbackIntake,
        explainer: Explainer,
        stages: Callable[[], Stages],
    ) -> None:
        self._explainer = explainer
        self._feed = feed
        self._feedback = feedback
        self._stages = stages

    def Recommend(
        self, request: pb.RecommendRequest, context: grpc.ServicerContext
    ) -> pb.RecommendResponse:
        """See the proto."""
        return self._feed.recommend(request, self._stages())

    def Rank(self, request: pb.RankRequest, context: grpc.ServicerContext) -> pb.RankResponse:
        """See the proto."""
        return self._feed.rank(request, self._stages())

    def RecordFeedback(
        self, request: pb.RecordFeedbackRequest, context: grpc.ServicerContext
    ) -> pb.RecordFeedbackResponse:
        """See the proto."""
        with self._stages().stage("log"):
            return self._feedback.record(request.events)

    def Explain(
        self, request: pb.ExplainRequest, context: grpc.ServicerContext
    ) -> pb.ExplainResponse:
        """See the proto."""
        return self._explainer.explain(request, self._stages())
