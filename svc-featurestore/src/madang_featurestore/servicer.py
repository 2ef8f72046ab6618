"""Proto ↔ domain of svc-featurestore."""

from collections.abc import Callable, Iterator

import grpc

from madang.feature.v1 import feature_store_pb2 as pb
from madang.feature.v1 import feature_store_pb2_grpc
from madang_featurestore.catalog import ViewCatalog
from madang_featurestore.features import FeatureStore
from madang_runtime.stages import Stages

_DEFAULT_PAGE = 100


class FeatureStoreServicer(feature_store_pb2_grpc.FeatureStoreServiceServicer):
    """Implements FeatureStoreService."""

    def __init__(
        self, store: FeatureStore, catalog: ViewCatalog, stages: Callable[[], Stages]
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._stages = stages

    def ApplyFeatureView(
        self, request: pb.ApplyFeatureViewRequest, context: grpc.ServicerContext
    ) -> pb.ApplyFeatureViewResponse:
        """See the proto."""
        view, changed = self._catalog.apply(request.view)
        return pb.ApplyFeatureViewResponse(view=view, changed=changed)

    def GetFeatureView(
        self, request: pb.GetFeatureViewRequest, context: grpc.ServicerContext
    ) -> pb.GetFeatureViewResponse:
        """See the proto."""
        return pb.GetFeatureViewResponse(view=self._catalog.reload().find(request.name).definition)

    def ListFeatureViews(
        self, request: pb.ListFeatureViewsRequest, context: grpc.ServicerContext
    ) -> pb.ListFeatureViewsResponse:
        """See the proto. The page token is the last name seen."""
        views = self._catalog.reload().all()
        after = [v.definition for v in views if v.name > request.page_token]
        size = request.page_size or _DEFAULT_PAGE
        page = after[:size]
        more = page[-1].name if len(after) > size else ""
        return pb.ListFeatureViewsResponse(views=page, next_page_token=more)

    def LookupFeatures(
        self, request: pb.LookupFeaturesRequest, context: grpc.ServicerContext
    ) -> pb.LookupFeaturesResponse:
        """See the proto."""
        answer, token = self._store.lookup(request)
        answer.serving_info.CopyFrom(self._stages().serving_info(freshness_token=token))
        return answer

    def WriteFeatures(
        self, request: pb.WriteFeaturesRequest, context: grpc.ServicerContext
    ) -> pb.WriteFeaturesResponse:
        """See the proto."""
        rows, token = self._store.write(request)
        return pb.WriteFeaturesResponse(rows_written=rows, freshness_token=token)

    def StreamWriteFeatures(
        self,
        request_iterator: Iterator[pb.StreamWriteFeaturesRequest],
        context: grpc.ServicerContext,
    ) -> pb.StreamWriteFeaturesResponse:
        """See the proto."""
        summary = pb.StreamWriteFeaturesResponse()
        for request in request_iterator:
            rows, summary.freshness_token = self._store.write(request.write)
            summary.rows_written += rows
        return summary

    def RecordActions(
        self, request: pb.RecordActionsRequest, context: grpc.ServicerContext
    ) -> pb.RecordActionsResponse:
        """See the proto."""
        return self._store.record(request.actions)
