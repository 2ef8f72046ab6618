"""Proto ↔ domain of svc-candidate."""

from collections.abc import Callable

import grpc

from madang.candidate.v1 import candidate_pb2 as pb
from madang.candidate.v1 import candidate_pb2_grpc
from madang_candidate.editing import CatalogueEditor
from madang_candidate.service import CandidateFinder
from madang_runtime.stages import Stages


class CandidateServicer(candidate_pb2_grpc.CandidateServiceServicer):
    """Implements CandidateService."""

    def __init__(
        self, finder: CandidateFinder, editor: CatalogueEditor, stages: Callable[[], Stages]
    ) -> None:
        self._finder = finder
        self._editor = editor
        self._stages = stages

    def Retrieve(
        self, request: pb.RetrieveRequest, context: grpc.ServicerContext
    ) -> pb.RetrieveResponse:
        """See the proto."""
        return self._finder.retrieve(request, self._stages())

    def RetrieveSimilar(
        self, request: pb.RetrieveSimilarRequest, context: grpc.ServicerContext
    ) -> pb.RetrieveSimilarResponse:
        """See the proto."""
        return self._finder.similar(request, self._stages())

    def UpsertItems(
        self, request: pb.UpsertItemsRequest, context: grpc.ServicerContext
    ) -> pb.UpsertItemsResponse:
        """See the proto."""
        with self._stages().stage("log"):
            return self._editor.upsert(request)

    def DeleteItems(
        self, request: pb.DeleteItemsRequest, context: grpc.ServicerContext
    ) -> pb.DeleteItemsResponse:
        """See the proto."""
        with self._stages().stage("log"):
            return self._editor.delete(request)

    def UpsertLists(
        self, request: pb.UpsertListsRequest, context: grpc.ServicerContext
    ) -> pb.UpsertListsResponse:
        """See the proto."""
        with self._stages().stage("log"):
            return self._editor.upsert_lists(request)

    def UpsertCampaigns(
        self, request: pb.UpsertCampaignsRequest, context: grpc.ServicerContext
    ) -> pb.UpsertCampaignsResponse:
        """See the proto."""
        with self._stages().stage("log"):
            return self._editor.upsert_campaigns(request)

    def GetIndexInfo(
        self, request: pb.GetIndexInfoRequest, context: grpc.ServicerContext
    ) -> pb.GetIndexInfoResponse:
        """See the proto."""
        return self._finder.info()
