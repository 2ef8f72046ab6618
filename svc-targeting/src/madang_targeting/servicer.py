"""Proto ↔ domain of svc-targeting."""

from collections.abc import Callable, Iterator

import grpc

from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1 import targeting_pb2_grpc
from madang_runtime.stages import Stages
from madang_targeting.desk import SegmentDesk
from madang_targeting.estimator import Estimator
from madang_targeting.listing import MemberLister
from madang_targeting.outreach import Outreach


class TargetingServicer(targeting_pb2_grpc.TargetingServiceServicer):
    """Implements TargetingService."""

    def __init__(
        self,
        desk: SegmentDesk,
        lister: MemberLister,
        estimator: Estimator,
        outreach: Outreach,
        stages: Callable[[], Stages],
    ) -> None:
        self._desk, self._lister = desk, lister
        self._estimator, self._outreach = estimator, outreach
        self._stages = stages

    def GetAudienceInfo(
        self, request: pb.GetAudienceInfoRequest, context: grpc.ServicerContext
    ) -> pb.GetAudienceInfoResponse:
        """See the proto."""
        return self._estimator.info(self._stages())

    def CreateSegment(
        self, request: pb.CreateSegmentRequest, context: grpc.ServicerContext
    ) -> pb.CreateSegmentResponse:
        """See the proto."""
        return pb.CreateSegmentResponse(operation=self._desk.create(request))

    def GetOperation(
        self, request: pb.GetOperationRequest, context: grpc.ServicerContext
    ) -> pb.GetOperationResponse:
        """See the proto."""
        return pb.GetOperationResponse(operation=self._desk.get(request.segment_id).operation)

    def CancelOperation(
        self, request: pb.CancelOperationRequest, context: grpc.ServicerContext
    ) -> pb.CancelOperationResponse:
        """See the proto."""
        return pb.CancelOperationResponse(operation=self._desk.cancel(request.segment_id))

    def GetSegment(
        self, request: pb.GetSegmentRequest, context: grpc.ServicerContext
    ) -> pb.GetSegmentResponse:
        """See the proto."""
        return pb.GetSegmentResponse(segment=self._desk.get(request.segment_id))

    def ListSegments(
        self, request: pb.ListSegmentsRequest, context: grpc.ServicerContext
    ) -> pb.ListSegmentsResponse:
        """See the proto."""
        return self._desk.page(request)

    def DeleteSegment(
        self, request: pb.DeleteSegmentRequest, context: grpc.ServicerContext
    ) -> pb.DeleteSegmentResponse:
        """See the proto."""
        self._desk.delete(request.segment_id)
        return pb.DeleteSegmentResponse()

    def ListMembers(
        self, request: pb.ListMembersRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ListMembersResponse]:
        """See the proto."""
        return self._lister.stream(request)

    def EstimateAudience(
        self, request: pb.EstimateAudienceRequest, context: grpc.ServicerContext
    ) -> pb.EstimateAudienceResponse:
        """See the proto."""
        return self._estimator.estimate(request, self._stages())

    def CheckCaps(
        self, request: pb.CheckCapsRequest, context: grpc.ServicerContext
    ) -> pb.CheckCapsResponse:
        """See the proto."""
        with self._stages().stage("caps"):
            return self._outreach.check(request)

    def RecordSends(
        self, request: pb.RecordSendsRequest, context: grpc.ServicerContext
    ) -> pb.RecordSendsResponse:
        """See the proto."""
        with self._stages().stage("caps"):
            return self._outreach.record(request)

    def RecordResults(
        self, request: pb.RecordResultsRequest, context: grpc.ServicerContext
    ) -> pb.RecordResultsResponse:
        """See the proto."""
        self._outreach.results(request)
        return pb.RecordResultsResponse()

    def ListResults(
        self, request: pb.ListResultsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ListResultsResponse]:
        """See the proto."""
        return self._outreach.list_results(request)
