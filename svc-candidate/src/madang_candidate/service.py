"""Retrieve, RetrieveSimilar and GetIndexInfo, free of transport."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from madang.candidate.v1 import candidate_pb2 as pb
from madang.common.v1 import place_pb2
from madang.feature.v1 import feature_store_pb2
from madang_candidate.campaigns import AdCampaigns
from madang_candidate.catalogue import Catalogue, counts_by_kind
from madang_candidate.dependencies import Features
from madang_candidate.editing import CAMPAIGNS_TOKEN, ITEMS_TOKEN, LISTS_TOKEN
from madang_candidate.index import ItemIndex
from madang_candidate.query import Floats, Query
from madang_candidate.retrieval import Candidates, Retrieval
from madang_candidate.tower import TowerBundle
from madang_runtime.changelog.follower import Follower
from madang_runtime.errors import DEGRADABLE, Code, MadangError, reason
from madang_runtime.freshness import merge, position
from madang_runtime.freshness import token as token_of
from madang_runtime.models.inputs import InputRows
from madang_runtime.segments import EVERYBODY, SegmentBy
from madang_runtime.stages import Stages
from madang_runtime.times import given_ms, now_ms

_DEFAULT_LIMIT, _DEFAULT_SIMILAR = 500, 20
_RECENT_ACTIONS = 10
_OLD_SECONDS = 5.0  # without a look at the item log, after which answers say so


@dataclass(frozen=True)
class _User:
    """Their feature row, the rows of the items last acted on, what they hid, and their segments."""

    row: InputRows
    recent: list[int | str]
    hidden: list[str]
    segments: list[str]


class CandidateFinder:
    """The domain of the service.

    Args:
        bundle: gives the model version that serves now.
        features: reads the user's row and last actions.
        retrieval: asks the sources.
        segment_by: names the users' segments.
        catalogue: the items as they are now.
        campaigns: which ads may be shown.
        items, lists, campaign_log: keep the catalogue, the segments' lists and the campaigns at
            the state of their logs.
    """

    def __init__(
        self,
        bundle: Callable[[], TowerBundle],
        features: Features,
        retrieval: Retrieval,
        segment_by: SegmentBy,
        catalogue: Catalogue,
        campaigns: AdCampaigns,
        items: Follower,
        lists: Follower,
        campaign_log: Follower,
    ) -> None:
        self._bundle = bundle
        self._features = features
        self._retrieval = retrieval
        self._segment_by = segment_by
        self._catalogue = catalogue
        self._items = items
        self._lists = lists
        self._campaigns = campaigns
        self._campaign_log = campaign_log

    def retrieve(self, request: pb.RetrieveRequest, stages: Stages) -> pb.RetrieveResponse:
        """Answer Retrieve.

        Raises:
            MadangError: PLACE_NOT_SERVED, NOT_READY, NOT_FRESH_YET, FRESHNESS_TOKEN_INVALID, or
                what the feature store refuses.
        """
        bundle, place = self._bundle(), request.place
        index, items_token = self._index(bundle, request.freshness_token, stages)
        deliverable = index.deliverable(place.latitude, place.longitude)
        user, token = self._user(bundle, index, request, stages)
        time_ms = given_ms(request, "request_time", now_ms())
        context = bundle.context(time_ms, place.latitude, place.longitude)
        vector = np.zeros(index.dimension, np.float32)
        if self._personal(request):
            with stages.stage("user_tower"):
                vector = bundle.user_vectors(user.row, context)[0]
        hour = int(context.ints[0, 0])
        allowed = index.allowed(
            deliverable, hour, request.kinds, [*request.exclude_item_ids, *user.hidden]
        )
        ads = self._campaigns.of(index)
        if ads:
            allowed, stale = self._campaigns.allowed(ads, request.user_id, allowed)
            if stale:
                stages.degrade("pacing", stale, "no ads whose campaign has a budget")
        query = Query(
            bundle=bundle,
            index=index,
            user=user.row,
            context=context,
            user_vector=vector,
            recent=user.recent,
            allowed=allowed,
            latitude=place.latitude,
            longitude=place.longitude,
            hour=hour,
            limit=request.limit or _DEFAULT_LIMIT,
            surface=request.surface,
            segments=user.segments,
        )
        with stages.stage("sources"):
            found = self._retrieval.retrieve(query, request.sources)
        for name, error in found.late.items():
            stages.degrade(f"source {name}", error, "candidates of the other sources")
        bids = ads.bids[found.rows] if ads else None
        return _response(found, query, stages, merge(token, items_token), bids)

    def _personal(self, request: pb.RetrieveRequest) -> bool:
        return any(source.personal for source in self._retrieval.asked(request.sources))

    def _index(
        self, bundle: TowerBundle, freshness_token: str, stages: Stages
    ) -> tuple[ItemIndex, str]:
        """The items at the state that a token asks for, or later; and the token of that state."""
        self._items.reach(position(freshness_token, ITEMS_TOKEN))
        self._lists.reach(position(freshness_token, LISTS_TOKEN))
        self._campaign_log.reach(position(freshness_token, CAMPAIGNS_TOKEN))
        at = self._items.position
        if (age := self._items.age) > _OLD_SECONDS:
            unread = MadangError(
                Code.UNAVAILABLE, reason.ERROR_REASON_NOT_FRESH_YET, "the item log can't be read"
            )
            stages.degrade("items", unread, f"items as of {age:.0f} s ago")
        return self._catalogue.index(bundle), token_of(ITEMS_TOKEN, at) if at else ""

    def _user(
        self, bundle: TowerBundle, index: ItemIndex, request: pb.RetrieveRequest, stages: Stages
    ) -> tuple[_User, str]:
        """What is known of the user, and the freshness token."""
        users = [request.user_id]
        profile = [bundle.user_inputs.lookup(users)] if self._personal(request) else []
        lookup = feature_store_pb2.LookupFeaturesRequest(
            lookups=[*profile, *self._segment_by.lookups(users)],
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
            return _User(bundle.user_inputs.defaults(1), [], [], [EVERYBODY]), ""
        recent = answer.recent_actions[0]
        done = (index.row(a.item_id) if a.item_id else a.query for a in recent.actions)
        user = _User(
            bundle.user_inputs.pack(answer.rows[0], 1)
            if profile
            else bundle.user_inputs.defaults(1),
            [action for action in done if action not in (None, "")],
            list(recent.hidden_item_ids),
            self._segment_by.of(answer.rows[len(profile) :], 1)[0],
        )
        return user, answer.serving_info.freshness_token

    def similar(
        self, request: pb.RetrieveSimilarRequest, stages: Stages
    ) -> pb.RetrieveSimilarResponse:
        """Answer RetrieveSimilar. Raises: MadangError ITEM_NOT_FOUND, PLACE_NOT_SERVED."""
        bundle, limit = self._bundle(), request.limit or _DEFAULT_SIMILAR
        index = self._catalogue.index(bundle)
        row = index.row(request.item_id)
        if row is None:
            raise MadangError(
                Code.NOT_FOUND,
                reason.ERROR_REASON_ITEM_NOT_FOUND,
                f"item_id: the index has no item {request.item_id!r}",
                field="item_id",
            )
        place = request.place
        deliverable = (
            index.deliverable(place.latitude, place.longitude)
            if request.HasField("place")
            else None
        )
        vector = index.vectors(np.array([row]))[0]
        allowed, ads = index.existing(deliverable), self._campaigns.of(index)
        if ads:
            allowed = self._campaigns.solvent(ads, allowed)
        with stages.stage("search"):
            rows, scores = index.search(vector, allowed, limit + 1)
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
        index = self._catalogue.index(bundle)
        counts = counts_by_kind(index)
        answer = pb.GetIndexInfoResponse(
            model=bundle.version,
            shops=counts[place_pb2.ITEM_KIND_SHOP],
            ads=counts[place_pb2.ITEM_KIND_AD],
            dimension=index.dimension,
            cells=index.cells,
            h3_resolution=index.trained.resolution,
            sources=[s.name for s in self._retrieval.sources],
            live_items=index.live,
            freshness_token=token_of(ITEMS_TOKEN, self._items.position),
        )
        answer.behind.FromMilliseconds(round(self._items.age * 1000))
        return answer


def _response(
    found: Candidates, query: Query, stages: Stages, token: str, bids: Floats | None
) -> pb.RetrieveResponse:
    index, rows = query.index, found.rows
    return pb.RetrieveResponse(
        item_ids=[index.ids[r] for r in rows.tolist()],
        kinds=index.kinds[rows].tobytes(),
        scores=_packed(found.scores),
        sources=found.sources,
        source_ranks=found.ranks.astype("<u2", copy=False).tobytes(),
        source_scores=_packed(found.source_scores),
        serving_info=stages.serving_info([query.bundle.version], freshness_token=token),
        segments=query.segments,
        bids=b"" if bids is None else _packed(bids),
    )


def _packed(scores: Floats) -> bytes:
    return scores.astype("<f4", copy=False).tobytes()
