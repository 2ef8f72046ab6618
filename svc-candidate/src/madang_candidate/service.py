"""Retrieve, RetrieveSimilar and GetIndexInfo, free of transport."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from madang.candidate.v1 import candidate_pb2 as pb
from madang.common.v1 import place_pb2
from madang.feature.v1 import feature_store_pb2
from madang_candidate.query import Floats, Query, Rows
from madang_candidate.retrieval import Candidates, Retrieval
from madang_candidate.tower import TowerBundle
from madang_runtime.dependency import Dependency
from madang_runtime.errors import DEGRADABLE, Code, MadangError, reason
from madang_runtime.models.inputs import InputRows
from madang_runtime.segments import EVERYBODY, SegmentBy
from madang_runtime.stages import Stages
from madang_runtime.times import given_ms, now_ms

_DEFAULT_LIMIT, _DEFAULT_SIMILAR = 500, 20
_RECENT_ACTIONS = 3


Features = Dependency[
    feature_store_pb2.LookupFeaturesRequest, feature_store_pb2.LookupFeaturesResponse
]


@dataclass(frozen=True)
class _User:
    """Their feature row, the rows of the items last acted on, what they hid, and their segments."""

    row: InputRows
    recent: Rows
    hidden: list[str]
    segments: list[str]


class CandidateFinder:
    """The domain of the service.

    Args:
        bundle: gives the model version that serves now.
        features: reads the user's row and last actions.
        retrieval: asks the sources.
        segment_by: names the users' segments.
    """

    def __init__(
        self,
        bundle: Callable[[], TowerBundle],
        features: Features,
        retrieval: Retrieval,
        segment_by: SegmentBy,
    ) -> None:
        self._bundle = bundle
        self._features = features
        self._retrieval = retrieval
        self._segment_by = segment_by

    def retrieve(self, request: pb.RetrieveRequest, stages: Stages) -> pb.RetrieveResponse:
        """Answer Retrieve.

        Raises:
            MadangError: PLACE_NOT_SERVED, NOT_READY, or what the feature store refuses.
        """
        bundle, place = self._bundle(), request.place
        deliverable = bundle.index.deliverable(place.latitude, place.longitude)
        user, token = self._user(bundle, request, stages)
        time_ms = given_ms(request, "request_time", now_ms())
        context = bundle.context(time_ms, place.latitude, place.longitude)
        with stages.stage("user_tower"):
            vector = bundle.user_vector(user.row, context)
        hour = int(context.ints[0, 0])
        query = Query(
            bundle=bundle,
            user=user.row,
            user_vector=vector,
            recent=user.recent,
            allowed=bundle.index.allowed(
                deliverable, hour, request.kinds, [*request.exclude_item_ids, *user.hidden]
            ),
            latitude=place.latitude,
            longitude=place.longitude,
            hour=hour,
            limit=request.limit or _DEFAULT_LIMIT,
            surface=request.surface,
            segments=user.segments,
        )
        with stages.stage("sources"):
            found = self._retrieval.retrieve(query)
        for name, error in found.late.items():
            stages.degrade(f"source {name}", error, "candidates of the other sources")
        return _response(found, query, stages, token)

    def _user(
        self, bundle: TowerBundle, request: pb.RetrieveRequest, stages: Stages
    ) -> tuple[_User, str]:
        """What is known of the user, and the freshness token."""
        users = [request.user_id]
        lookup = feature_store_pb2.LookupFeaturesRequest(
            lookups=[bundle.user_inputs.lookup(users), *self._segment_by.lookups(users)],
            recent_actions=feature_store_pb2.RecentActionsLookup(
                user_ids=users, limit=_RECENT_ACTIONS
            ),
            freshness_token=request.freshness_token,
        )
        try:
            answer = stages.call(self._features, lookup)
        except MadangError as error:
            if error.code not in DEGRADABLE:
                raise
            stages.degrade("featurestore", error, "retrieved as for a newcomer")
            return _User(bundle.user_inputs.defaults(1), np.empty(0, np.int64), [], [EVERYBODY]), ""
        # Searches join when svc-search gives their vectors.
        recent = answer.recent_actions[0]
        acted_on = [a.item_id for a in recent.actions if a.item_id]
        user = _User(
            bundle.user_inputs.pack(answer.rows[0], 1),
            bundle.index.rows(acted_on),
            list(recent.hidden_item_ids),
            self._segment_by.of(answer.rows[1:], 1)[0],
        )
        return user, answer.serving_info.freshness_token

    def similar(
        self, request: pb.RetrieveSimilarRequest, stages: Stages
    ) -> pb.RetrieveSimilarResponse:
        """Answer RetrieveSimilar. Raises: MadangError ITEM_NOT_FOUND, PLACE_NOT_SERVED."""
        bundle = self._bundle()
        index, limit = bundle.index, request.limit or _DEFAULT_SIMILAR
        row = index.row(request.item_id)
        if row is None:
            raise MadangError(
                Code.NOT_FOUND,
                reason.ERROR_REASON_ITEM_NOT_FOUND,
                f"item_id: the index has no item {request.item_id!r}",
                field="item_id",
            )
        allowed = (
            index.deliverable(request.place.latitude, request.place.longitude)
            if request.HasField("place")
            else None
        )
        everything = np.arange(len(index), dtype=np.int64)
        with stages.stage("search"):
            rows, scores = index.search(
                index.vectors[row], everything if allowed is None else allowed, limit + 1
            )
        other = rows != row
        rows, scores = rows[other][:limit], scores[other][:limit]
        return pb.RetrieveSimilarResponse(
            item_ids=[index.ids[r] for r in rows.tolist()],
            scores=_packed(scores),
            serving_info=stages.serving_info([bundle.version]),
        )

    def info(self) -> pb.GetIndexInfoResponse:
        """Answer GetIndexInfo."""
        bundle = self._bundle()
        counts = np.bincount(bundle.index.kinds, minlength=3)
        return pb.GetIndexInfoResponse(
            model=bundle.version,
            shops=int(counts[place_pb2.ITEM_KIND_SHOP]),
            ads=int(counts[place_pb2.ITEM_KIND_AD]),
            dimension=bundle.index.vectors.shape[1],
            cells=bundle.index.cells,
            h3_resolution=bundle.index.resolution,
            sources=[s.name for s in self._retrieval.sources],
        )


def _response(found: Candidates, query: Query, stages: Stages, token: str) -> pb.RetrieveResponse:
    bundle, rows = query.bundle, found.rows
    return pb.RetrieveResponse(
        item_ids=[bundle.index.ids[r] for r in rows.tolist()],
        kinds=bundle.index.kinds[rows].tobytes(),
        scores=_packed(found.scores),
        sources=found.sources,
        source_ranks=found.ranks.astype("<u2", copy=False).tobytes(),
        source_scores=_packed(found.source_scores),
        serving_info=stages.serving_info([bundle.version], freshness_token=token),
        segments=query.segments,
    )


def _packed(scores: Floats) -> bytes:
    return scores.astype("<f4", copy=False).tobytes()
