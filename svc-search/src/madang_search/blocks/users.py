"""What is known of who asks: what they just did, and what the ranker expects them to click."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang.common.v1 import serving_info_pb2
from madang.feature.v1 import feature_store_pb2
from madang.ranker.v1 import ranker_pb2
from madang.search.v1 import search_pb2 as pb
from madang_runtime.dependency import Dependency
from madang_runtime.errors import DEGRADABLE, Code, MadangError
from madang_runtime.stages import Stages
from madang_search.recent import Features, recent_actions

Rank = Dependency[ranker_pb2.RankRequest, ranker_pb2.RankResponse]


# Blocks are whole without a user, so a ranker without a model costs them nothing else.
_WITHOUT_RANKER = DEGRADABLE | {Code.FAILED_PRECONDITION}


@dataclass(frozen=True)
class User:
    """What is known of who asks.

    Attributes:
        clicks: P(click) of each document, [n].
        models: that tell so.
        recent: what they did within the hour, the latest first.
    """

    clicks: NDArray[np.float32]
    models: Sequence[serving_info_pb2.ModelVersion]
    recent: Sequence[feature_store_pb2.Action]


class Users:
    """Asks the other services about users.

    Args:
        features: the feature store.
        rank: of svc-ranker.
    """

    def __init__(self, features: Features, rank: Rank) -> None:
        self._features = features
        self._rank = rank

    def know(
        self, request: pb.SearchBlocksRequest, time_ms: int, ids: Sequence[str], stages: Stages
    ) -> User | None:
        """Who asks, before some documents; None where nobody says, or the ranker is away.

        Raises:
            MadangError: what the other services refuse.
        """
        if not request.user_id:
            return None
        asked = ranker_pb2.RankRequest(
            user_id=request.user_id,
            place=request.place,
            item_ids=ids,
            freshness_token=request.freshness_token,
        )
        asked.request_time.FromMilliseconds(time_ms)
        try:
            answer = stages.call(self._rank, asked)
        except MadangError as error:
            if error.code not in _WITHOUT_RANKER:
                raise
            stages.degrade("ranker", error, "ordered as for anybody")
            return None
        clicks = np.frombuffer(answer.click_probabilities, "<f4")
        return User(clicks, answer.serving_info.models, self._recent(request, stages))

    def _recent(
        self, request: pb.SearchBlocksRequest, stages: Stages
    ) -> Sequence[feature_store_pb2.Action]:
        lookup = feature_store_pb2.LookupFeaturesRequest(
            recent_actions=recent_actions(request.user_id),
            freshness_token=request.freshness_token,
        )
        try:
            return stages.call(self._features, lookup).recent_actions[0].actions
        except MadangError as error:
            if error.code not in DEGRADABLE:
                raise
            stages.degrade("featurestore", error, "without what was just done")
            return ()
