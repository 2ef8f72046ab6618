"""RecommendKeywords, free of transport."""

from collections.abc import Callable, Sequence

import numpy as np

from madang.feature.v1 import feature_store_pb2
from madang.search.v1 import search_pb2 as pb
from madang_runtime.columns import from_tensor
from madang_runtime.errors import DEGRADABLE, Code, MadangError
from madang_runtime.stages import Stages
from madang_search.bundle import SearchBundle
from madang_search.keywords.model import KeywordModel, Step, keyword_text
from madang_search.known import nearest_known
from madang_search.recent import Features, recent_actions
from madang_search.suggesting import PhraseBook

VIEW, FEATURE = "user_keywords", "keywords"
_DEFAULT = 10

_Known = tuple[Sequence[int], Sequence[feature_store_pb2.Action], str]


class KeywordRecommender:
    """The domain of RecommendKeywords.

    Args:
        model: gives the keywords' version that serves; may raise MadangError that there is none.
        bundle: gives the encoder's.
        phrases: what can be suggested, for where there is no version.
        features: the feature store.
    """

    def __init__(
        self,
        model: Callable[[], KeywordModel],
        bundle: Callable[[], SearchBundle],
        phrases: Callable[[], PhraseBook],
        features: Features,
    ) -> None:
        self._model = model
        self._bundle = bundle
        self._phrases = phrases
        self._features = features

    def recommend(
        self, request: pb.RecommendKeywordsRequest, stages: Stages
    ) -> pb.RecommendKeywordsResponse:
        """Answer RecommendKeywords.

        Raises:
            MadangError: NOT_READY, or what the feature store refuses.
        """
        bundle, limit = self._bundle(), request.limit or _DEFAULT
        try:
            model = self._model()
        except MadangError as error:
            stages.degrade("keywords", error, "the most popular phrases")
            popular = self._phrases().suggest("", limit)
            return pb.RecommendKeywordsResponse(
                keywords=[pb.Keyword(text=one.text) for one in popular],
                list=pb.KEYWORD_LIST_POPULAR,
                serving_info=stages.serving_info([bundle.version]),
            )
        codes, actions, token = self._known(request, stages)
        with stages.stage("steps"):
            steps = [s for action in reversed(actions) if (s := self._step(bundle, model, action))]
        if steps:
            with stages.stage("sequence"):
                scores = model.probabilities(steps)
            # What was just searched for need not be recommended.
            order = np.argsort(-scores, kind="stable").tolist()
            done = {keyword_text(action.query) for action in actions if action.query}
            rows = [row for row in order if model.keywords[row] not in done]
            kind = pb.KEYWORD_LIST_REAL_TIME
        elif rows := model.rows(codes):
            scores, kind = np.zeros_like(model.shares), pb.KEYWORD_LIST_BATCH
        else:
            rows, scores = [*range(len(model.keywords))], model.shares
            kind = pb.KEYWORD_LIST_POPULAR
        return pb.RecommendKeywordsResponse(
            keywords=[
                pb.Keyword(text=model.keywords[row], score=scores[row]) for row in rows[:limit]
            ],
            list=kind,
            actions=len(steps),
            serving_info=stages.serving_info(
                [model.version, bundle.version], freshness_token=token
            ),
        )

    def _known(self, request: pb.RecommendKeywordsRequest, stages: Stages) -> _Known:
        """The user's own list, their last actions, the newest first, and the freshness token."""
        if not request.user_id:
            return (), (), ""
        lookup = feature_store_pb2.LookupFeaturesRequest(
            lookups=[
                feature_store_pb2.ViewLookup(
                    view=VIEW, features=[FEATURE], entity_ids=[request.user_id]
                )
            ],
            recent_actions=recent_actions(request.user_id),
            freshness_token=request.freshness_token,
        )
        try:
            answer = stages.call(self._features, lookup)
        except MadangError as error:
            if error.code not in DEGRADABLE and error.code is not Code.NOT_FOUND:
                raise
            stages.degrade("featurestore", error, "keywords as for a newcomer")
            return (), (), ""
        codes = from_tensor(answer.rows[0].blocks[0].values)[0].tolist()
        return codes, answer.recent_actions[0].actions, answer.serving_info.freshness_token

    def _step(
        self, bundle: SearchBundle, model: KeywordModel, action: feature_store_pb2.Action
    ) -> Step | None:
        """An action as the model reads it; a search for no keyword is one for the nearest."""
        if action.type != feature_store_pb2.ACTION_TYPE_SEARCH:
            node = model.item_node(action.item_id)
            return None if node is None else Step(action.type, node)
        text = keyword_text(action.query)
        row = model.row(text)
        if row is None:
            row = nearest_known(text, model, bundle, bundle.tuning.near)
        return None if row is None else Step(action.type, 1 + row)
