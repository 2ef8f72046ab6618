"""Recommend and Rank: retrieve, hydrate, score, order."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from google.protobuf import timestamp_pb2

from madang.candidate.v1 import candidate_pb2
from madang.common.v1 import place_pb2
from madang.common.v1.place_pb2 import Place
from madang.feature.v1 import feature_store_pb2
from madang.ranker.v1 import ranker_pb2 as pb
from madang.ranker.v1.decision_pb2 import Decision
from madang_ranker.bandit.layer import BanditLayer
from madang_ranker.decisions import decision_of
from madang_ranker.dependencies import Candidates, Features
from madang_ranker.listing import Listing
from madang_ranker.paging import Page, next_token, parse_page
from madang_ranker.proposed import Floats, Proposed
from madang_ranker.reasons import Reasons
from madang_ranker.scoring import DcnScorer, ScoreRequest, Scores
from madang_ranker.shedding import candidates_under
from madang_ranker.surfaces import DEFAULT, Surface, find_surface
from madang_runtime.errors import DEGRADABLE, MadangError
from madang_runtime.freshness import merge
from madang_runtime.models.inputs import InputRows
from madang_runtime.scope import SCOPE
from madang_runtime.segments import EVERYBODY
from madang_runtime.stages import Stages
from madang_runtime.times import given_ms, now_ms

_DEFAULT_PAGE = 20
Items = Sequence[pb.RecommendedItem]


class Feed:
    """The domain of the service.

    Args:
        scorer: gives the model version that serves now.
        candidates, features: the services that it calls.
        surfaces: the configured surfaces by name.
        bandit: tries items in lists.
        note: is told every page that is shown.
        add_arrivals: says when items would arrive; None: nobody knows.
    """

    def __init__(
        self,
        scorer: Callable[[], DcnScorer],
        candidates: Candidates,
        features: Features,
        surfaces: Mapping[str, Surface],
        bandit: BanditLayer,
        note: Callable[[Decision], None],
        add_arrivals: Callable[[Items, Place, int, Stages], None] | None,
    ) -> None:
        self._add_arrivals = add_arrivals
        self._scorer = scorer
        self._candidates = candidates
        self._features = features
        self._surfaces = surfaces
        self._bandit = bandit
        self._note = note

    def recommend(self, request: pb.RecommendRequest, stages: Stages) -> pb.RecommendResponse:
        """Answer Recommend.

        Raises:
            MadangError: PAGE_TOKEN_INVALID, SURFACE_NOT_FOUND, PLACE_NOT_SERVED, NOT_READY.
        """
        surface, scorer = find_surface(self._surfaces, request.surface), self._scorer()
        page = parse_page(request, now_ms())
        size = request.page_size or _DEFAULT_PAGE
        if not page.candidates:
            kept = candidates_under(SCOPE.get().pressure, size, surface, stages)
            page = replace(page, candidates=kept)
        proposed = self._propose(request, page, surface, scorer, stages)
        listing, token = self._list(request, page, surface, scorer, proposed, stages)
        part = slice(page.offset, page.offset + size)
        following = replace(page, offset=part.stop)
        more = part.stop < len(listing.order)
        items = listing.items(part)
        if items and surface.arrivals and self._add_arrivals:
            self._add_arrivals(items, request.place, page.time_ms, stages)
        answer = pb.RecommendResponse(
            items=items,
            next_page_token=next_token(request, following) if more else "",
            serving_info=stages.serving_info(
                [scorer.version] if surface.model else [], freshness_token=token
            ),
            request_id=secrets.token_hex(16),
        )
        if answer.items:
            decision = decision_of(request, answer, listing, part, surface)
            decision.request_time.FromMilliseconds(page.time_ms)
            self._note(decision)
        return answer

    def _list(
        self,
        request: pb.RecommendRequest,
        page: Page,
        surface: Surface,
        scorer: DcnScorer,
        proposed: Proposed,
        stages: Stages,
    ) -> tuple[Listing, str]:
        """Score and order what is proposed; and the freshness token of items and features."""
        inputs, scores, token = None, None, ""
        if surface.model and proposed.item_ids:
            inputs, scores, token = self._scored(request, page, scorer, proposed, stages)
        utility = proposed.order
        if scores:
            utility = surface.utility(scores, proposed.bids)
            utility += np.float32(surface.reactive_weight) * proposed.reactive
        order = np.argsort(-utility, kind="stable")
        tried = self._bandit.merge(
            request.surface or DEFAULT,
            surface.bandit,
            request.user_id,
            page.time_ms,
            proposed,
            order,
        )
        order = tried.list.order if tried else order
        token = merge(proposed.freshness_token, token)
        return Listing(proposed, inputs, scores, utility, order, tried), token

    def _scored(
        self,
        request: pb.RecommendRequest,
        page: Page,
        scorer: DcnScorer,
        proposed: Proposed,
        stages: Stages,
    ) -> tuple[ScoreRequest | None, Scores | None, str]:
        """The model's inputs and scores, None without features; and the freshness token."""
        try:
            user, items, token = self._hydrate(
                scorer, request.user_id, proposed.item_ids, request.freshness_token, stages
            )
        except MadangError as error:
            _degradable(error)
            stages.degrade("featurestore", error, "ordered as retrieved, not scored")
            return None, None, ""
        context = scorer.context(page.time_ms, request.place.latitude, request.place.longitude)
        inputs = ScoreRequest(user, context, items)
        with stages.stage("score"):
            return inputs, scorer.score(inputs), token

    def _propose(
        self,
        request: pb.RecommendRequest,
        page: Page,
        surface: Surface,
        scorer: DcnScorer,
        stages: Stages,
    ) -> Proposed:
        request_time = timestamp_pb2.Timestamp()
        request_time.FromMilliseconds(page.time_ms)
        retrieve = candidate_pb2.RetrieveRequest(
            user_id=request.user_id,
            place=request.place,
            request_time=request_time,
            limit=page.candidates,
            surface=(request.surface or DEFAULT) if surface.bandit else "",
            kinds=surface.kind_values,
            sources=surface.sources,
            exclude_item_ids=request.exclude_item_ids,
            freshness_token=request.freshness_token,
        )
        try:
            answer = stages.call(self._candidates, retrieve)
        except MadangError as error:
            _degradable(error)
            stages.degrade("candidate", error, "popular items of the area")
            return self._fallback(request, surface, scorer)
        stages.adopt(answer.serving_info)
        return Proposed(
            list(answer.item_ids),
            answer.kinds,
            np.frombuffer(answer.scores, "<f4"),
            Reasons.of(answer),
            answer.segments[0] if answer.segments else EVERYBODY,
            answer.serving_info.freshness_token,
            np.frombuffer(answer.bids, "<f4") if answer.bids else None,
        )

    @staticmethod
    def _fallback(request: pb.RecommendRequest, surface: Surface, scorer: DcnScorer) -> Proposed:
        """Popular shops; nothing on a surface that shows no shops."""
        shop = place_pb2.ITEM_KIND_SHOP
        excluded = set(request.exclude_item_ids)
        found = scorer.fallback.items(request.place.latitude, request.place.longitude)
        wanted = not surface.kinds or shop in surface.kind_values
        ids = [i for i in found if i not in excluded] if wanted else []
        order = np.float32(1) / np.arange(1, len(ids) + 1, dtype=np.float32)
        shops = bytes([shop]) * len(ids)
        return Proposed(ids, shops, order, Reasons.fallback(len(ids)))

    def rank(self, request: pb.RankRequest, stages: Stages) -> pb.RankResponse:
        """Answer Rank.

        Raises:
            MadangError: SURFACE_NOT_FOUND, SHAPE_MISMATCH, NOT_FINITE, FEATURE_NOT_FOUND,
                NOT_READY, or the feature store's: without features there is nothing to show.
        """
        surface, scorer = find_surface(self._surfaces, request.surface), self._scorer()
        n, token = len(request.item_ids), ""
        user = items = None
        if request.user_features:
            given = list(request.user_features)
            user = scorer.user_inputs.pack_named(given, 1, "user_features")
        if request.item_features:
            given = list(request.item_features)
            items = scorer.item_inputs.pack_named(given, n, "item_features")
        if user is None or items is None:
            wanted = "" if user else request.user_id, [] if items else list(request.item_ids)
            stored_user, stored_items, token = self._hydrate(
                scorer, *wanted, request.freshness_token, stages
            )
            user, items = user or stored_user, items or stored_items
        time_ms = given_ms(request, "request_time", now_ms())
        context = scorer.context(time_ms, request.place.latitude, request.place.longitude)
        with stages.stage("score"):
            scores = scorer.score(ScoreRequest(user, context, items))
        utility = surface.utility(scores)
        return pb.RankResponse(
            order=(-utility).argsort(kind="stable").tolist(),
            scores=_packed(utility),
            click_probabilities=_packed(scores.click),
            conversion_probabilities=_packed(scores.order),
            hide_probabilities=_packed(scores.hide),
            serving_info=stages.serving_info([scorer.version], freshness_token=token),
        )

    def _hydrate(
        self,
        scorer: DcnScorer,
        user_id: str,
        item_ids: list[str],
        freshness_token: str,
        stages: Stages,
    ) -> tuple[InputRows, InputRows, str]:
        """The user's row and the items' rows in one look-up, and the freshness token. Nothing is
        read for a user "" or no items."""
        users = [user_id] if user_id else []
        inputs = ((scorer.user_inputs, users), (scorer.item_inputs, item_ids))
        request = feature_store_pb2.LookupFeaturesRequest(
            lookups=[view.lookup(ids) for view, ids in inputs if ids],
            freshness_token=freshness_token,
        )
        answer = stages.call(self._features, request)
        rows = iter(answer.rows)
        user, items = (
            view.pack(next(rows), len(ids)) if ids else view.defaults(0) for view, ids in inputs
        )
        return user, items, answer.serving_info.freshness_token


def _degradable(error: MadangError) -> None:
    """Let pass only errors that may degrade an answer; any other is raised again."""
    if error.code not in DEGRADABLE:
        raise error


def _packed(values: Floats) -> bytes:
    return values.astype("<f4", copy=False).tobytes()
