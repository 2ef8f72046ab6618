"""Proto ↔ domain of svc-search."""

from collections.abc import Callable

import grpc

from madang.search.v1 import search_pb2 as pb
from madang.search.v1 import search_pb2_grpc
from madang_runtime.stages import Stages
from madang_search.blocks.searching import BlockSearcher
from madang_search.editing import SearchEditor
from madang_search.finder import SearchFinder
from madang_search.keywords.recommending import KeywordRecommender


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    """Implements SearchService."""

    def __init__(
        self,
        finder: SearchFinder,
        editor: SearchEditor,
        keywords: KeywordRecommender,
        blocks: BlockSearcher,
        stages: Callable[[], Stages],
    ) -> None:
        self._finder = finder
        self._editor = editor
        self._keywords = keywords
        self._blocks = blocks
        self._stages = stages

    def Search(self, request: pb.SearchRequest, context: grpc.ServicerContext) -> pb.SearchResponse:
        """See the proto."""
        return self._finder.search(request, self._stages())

    def UpsertDocuments(
        self, request: pb.UpsertDocumentsRequest, context: grpc.ServicerContext
    ) -> pb.UpsertDocumentsResponse:
        """See the proto."""
        return self._editor.upsert(request, self._stages())

    def DeleteDocuments(
        self, request: pb.DeleteDocumentsRequest, context: grpc.ServicerContext
    ) -> pb.DeleteDocumentsResponse:
        """See the proto."""
        return self._editor.delete(request, self._stages())

    def GetCorpusInfo(
        self, request: pb.GetCorpusInfoRequest, context: grpc.ServicerContext
    ) -> pb.GetCorpusInfoResponse:
        """See the proto."""
        return self._finder.info()

    def MatchIntents(
        self, request: pb.MatchIntentsRequest, context: grpc.ServicerContext
    ) -> pb.MatchIntentsResponse:
        """See the proto."""
        return self._finder.match_intents(request, self._stages())

    def UpsertIntents(
        self, request: pb.UpsertIntentsRequest, context: grpc.ServicerContext
    ) -> pb.UpsertIntentsResponse:
        """See the proto."""
        return self._editor.upsert_intents(request, self._stages())

    def ListIntents(
        self, request: pb.ListIntentsRequest, context: grpc.ServicerContext
    ) -> pb.ListIntentsResponse:
        """See the proto."""
        return self._finder.list_intents(request, self._stages())

    def Suggest(
        self, request: pb.SuggestRequest, context: grpc.ServicerContext
    ) -> pb.SuggestResponse:
        """See the proto."""
        return self._finder.suggest(request, self._stages())

    def RecommendKeywords(
        self, request: pb.RecommendKeywordsRequest, context: grpc.ServicerContext
    ) -> pb.RecommendKeywordsResponse:
        """See the proto."""
        return self._keywords.recommend(request, self._stages())

    def SearchBlocks(
        self, request: pb.SearchBlocksRequest, context: grpc.ServicerContext
    ) -> pb.SearchBlocksResponse:
        """See the proto."""
        return self._blocks.search(request, self._stages())
