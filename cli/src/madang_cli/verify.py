"""Calls every service of a mesh through its gateway and looks at the answers."""

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import grpc
import numpy as np

from madang.candidate.v1 import candidate_pb2, candidate_pb2_grpc
from madang.common.v1 import place_pb2, serving_info_pb2
from madang.eta.v1 import eta_pb2, eta_pb2_grpc
from madang.feature.v1 import feature_store_pb2, feature_store_pb2_grpc
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang.search.v1 import search_pb2, search_pb2_grpc
from madang.targeting.v1 import targeting_pb2, targeting_pb2_grpc

_HOPS = {"madang-gateway", "madang-ranker", "madang-candidate", "madang-featurestore"}
_NO_ARRIVALS = "no arrivals on the page, so not asked"
_NO_AUDIENCE = "no model of whom to tell, so not asked"
_TRACE_SECONDS, _KEPT_SECONDS, _WHOLE_SECONDS = 20.0, 3.0, 90.0
Answer = TypeVar("Answer")


class WrongAnswerError(Exception):
    """A service answered, but not with what it should."""


@dataclass(frozen=True)
class Visitor:
    """For whom and where calls are made.

    Attributes:
        user_id: any user; one that nobody knows is served too.
        latitude, longitude: a place that something is delivered to.
    """

    user_id: str
    latitude: float
    longitude: float


@dataclass(frozen=True)
class Finding:
    """What a check saw; `error` is "" when all was right."""

    check: str
    seen: str
    error: str = ""


def verify(
    gateway: str, visitor: Visitor, jaeger: str = "", timeout: float = 5.0
) -> Iterator[Finding]:
    """Run all checks, each whatever the others found. Nothing is written but the pages it asks for.

    Args:
        gateway: host:port.
        visitor: of the calls.
        jaeger: URL of Jaeger's user interface, to look for the trace of a request; "" for none.
        timeout: seconds a call may take.
    """
    with grpc.insecure_channel(gateway) as channel:
        mesh = _Mesh(channel, gateway, visitor, timeout)
        checks: list[tuple[str, Callable[[], str]]] = [
            ("featurestore", mesh.features),
            ("candidate", mesh.candidates),
            ("ranker", mesh.feed),
            ("eta", mesh.arrival),
            ("eta, a page", mesh.arrivals),
            ("ranker, given items", mesh.ranking),
            ("ranker, why", mesh.explanation),
            ("search", mesh.search),
            ("targeting", mesh.audience),
            ("gateway, JSON", mesh.transcoded),
        ]
        if jaeger:
            checks.append(("trace", partial(mesh.trace, jaeger)))
        for name, check in checks:
            try:
                yield Finding(name, check())
            except grpc.RpcError as error:
                yield Finding(name, "", f"{error.code().name}: {error.details()}")
            except (WrongAnswerError, OSError, ValueError) as error:
                yield Finding(name, "", str(error))


class _Mesh:
    def __init__(
        self, channel: grpc.Channel, gateway: str, visitor: Visitor, timeout: float
    ) -> None:
        self._store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
        self._candidate = candidate_pb2_grpc.CandidateServiceStub(channel)
        self._eta = eta_pb2_grpc.EtaServiceStub(channel)
        self._ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        self._search = search_pb2_grpc.SearchServiceStub(channel)
        self._targeting = targeting_pb2_grpc.TargetingServiceStub(channel)
        self._gateway = gateway
        self._user = visitor.user_id
        self._place = place_pb2.Place(latitude=visitor.latitude, longitude=visitor.longitude)
        self._timeout = timeout
        self._trace_id = secrets.token_hex(16)
        self._page = ranker_pb2.RecommendResponse()

    def features(self) -> str:
        listed = self._store.ListFeatureViews(
            feature_store_pb2.ListFeatureViewsRequest(), timeout=self._timeout
        )
        views = [view.name for view in listed.views if view.entity == "user"]
        _expect(views, "there is no feature view of users; publish features first")
        request = feature_store_pb2.LookupFeaturesRequest(
            lookups=[
                feature_store_pb2.ViewLookup(view=view, entity_ids=[self._user]) for view in views
            ]
        )
        answer = self._store.LookupFeatures(request, timeout=self._timeout)
        _expect(len(answer.rows) == len(views), "not every view was answered")
        return f"{len(listed.views)} feature views, {self._user} looked up in {len(views)}"

    def candidates(self) -> str:
        index = self._candidate.GetIndexInfo(
            candidate_pb2.GetIndexInfoRequest(), timeout=self._timeout
        )
        _expect(index.shops + index.ads, "the index is empty")
        request = candidate_pb2.RetrieveRequest(user_id=self._user, place=self._place, limit=50)
        answer = _undegraded(lambda: self._candidate.Retrieve(request, timeout=self._timeout))
        _expect(answer.item_ids, "no candidate; is anything delivered to this place?")
        return f"{len(answer.item_ids)} candidates of {index.shops} shops and {index.ads} ads"

    def feed(self) -> str:
        traced = (("traceparent", f"00-{self._trace_id}-{secrets.token_hex(8)}-01"),)
        request = ranker_pb2.RecommendRequest(user_id=self._user, place=self._place)
        self._page = _undegraded(
            lambda: self._ranker.Recommend(request, timeout=self._timeout, metadata=traced)
        )
        _expect(self._page.items, "an empty page")
        ids = {item.item_id for item in self._page.items}
        _expect(len(ids) == len(self._page.items), "an item is twice on a page")
        model = self._page.serving_info.models[0]
        return f"{len(ids)} items ranked by {model.name} {model.version}"

    def _arrives(self) -> bool:
        """Whether the page shows arrivals: a mesh need not have any."""
        return any(item.HasField("arrival") for item in self._page.items)

    def arrival(self) -> str:
        _expect(self._page.items, "there was no page to order from")
        if not self._arrives():
            return _NO_ARRIVALS
        request = eta_pb2.PredictRequest(shop_id=self._page.items[0].item_id, place=self._place)
        answer = _undegraded(lambda: self._eta.Predict(request, timeout=self._timeout))
        total = np.frombuffer(answer.probabilities, "<f4").sum() + answer.beyond
        _expect(abs(total - 1) < 1e-3, f"probabilities add up to {total}")
        shown, stages = answer.window, len(answer.stages)
        _expect(shown.end_minute > shown.start_minute, "an empty window")
        return (
            f"{answer.service}, {stages} stages: {shown.start_minute}–{shown.end_minute} min with "
            f"{shown.probability:.0%}"
        )

    def arrivals(self) -> str:
        ids = [item.item_id for item in self._page.items]
        _expect(ids, "there was no page")
        if not self._arrives():
            return _NO_ARRIVALS
        request = eta_pb2.PredictBatchRequest(shop_ids=ids, place=self._place)
        answer = _undegraded(lambda: self._eta.PredictBatch(request, timeout=self._timeout))
        known = len(ids) - answer.sources.count(eta_pb2.ETA_SOURCE_NONE)
        _expect(known, "nothing is known of any shop")
        shown = sum(item.HasField("arrival") for item in self._page.items)
        _expect(shown == known, f"the page shows {shown} arrivals of {known}")
        listed = answer.sources.count(eta_pb2.ETA_SOURCE_LIST)
        return f"{known} of {len(ids)} shops, {listed} from the lists"

    def ranking(self) -> str:
        ids = [item.item_id for item in self._page.items]
        _expect(ids, "there was no page to rank again")
        request = ranker_pb2.RankRequest(user_id=self._user, place=self._place, item_ids=ids)
        answer = self._ranker.Rank(request, timeout=self._timeout)
        scores = np.frombuffer(answer.scores, "<f4")
        _expect(sorted(answer.order) == list(range(len(ids))), "not every item was ranked once")
        _expect(bool(np.isfinite(scores).all()), "a score is not finite")
        _expect(bool((np.diff(scores[list(answer.order)]) <= 0).all()), "not the best first")
        return f"{len(ids)} items in order of their scores"

    def explanation(self) -> str:
        _expect(self._page.request_id, "there was no page to explain")
        answer = self._explain(time.monotonic() + _KEPT_SECONDS)
        _expect(answer.user_id == self._user, "the page of another user")
        _expect(answer.terms, "a score without terms")
        return f"the first item's score of {len(answer.terms)} terms"

    def _explain(self, until: float) -> ranker_pb2.ExplainResponse:
        """Explain the page, which is kept a moment after it was shown."""
        request = ranker_pb2.ExplainRequest(request_id=self._page.request_id)
        while True:
            try:
                return self._ranker.Explain(request, timeout=self._timeout)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND or time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def search(self) -> str:
        corpus = self._search.GetCorpusInfo(
            search_pb2.GetCorpusInfoRequest(), timeout=self._timeout
        )
        if not corpus.documents:
            return "no documents are put in"
        suggested = self._search.Suggest(search_pb2.SuggestRequest(), timeout=self._timeout)
        _expect(suggested.suggestions, "there are documents, but no suggestions")
        title = suggested.suggestions[0].text
        request = search_pb2.SearchRequest(query=title)
        answer = _undegraded(lambda: self._search.Search(request, timeout=self._timeout))
        _expect(any(hit.title == title for hit in answer.hits), f"{title!r} is not found")
        return f"{corpus.documents:,} documents; {title!r} is found"

    def audience(self) -> str:
        try:
            info = self._targeting.GetAudienceInfo(
                targeting_pb2.GetAudienceInfoRequest(), timeout=self._timeout
            )
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return _NO_AUDIENCE
        request = targeting_pb2.EstimateAudienceRequest(
            groups=info.groups[:1], channel=info.channels[0], goal=targeting_pb2.OUTCOME_CLICK
        )
        answer = _undegraded(
            lambda: self._targeting.EstimateAudience(request, timeout=self._timeout)
        )
        _expect(answer.curve, "an empty curve of reach and response")
        rates = [point.click_rate.expected for point in answer.curve]
        _expect(rates[0] >= rates[-1] > 0, "the best users should respond most")
        caps = targeting_pb2.CheckCapsRequest(channel=info.channels[0], user_ids=[self._user])
        may = self._targeting.CheckCaps(caps, timeout=self._timeout).allowed_count
        return (
            f"{info.audience_size:,} users, {len(info.groups)} groups, {len(info.channels)} "
            f"channels; {self._user} may {'' if may else 'not '}be told"
        )

    def transcoded(self) -> str:
        place = {"latitude": self._place.latitude, "longitude": self._place.longitude}
        body = {"userId": self._user, "place": place, "pageSize": 3}
        request = urllib.request.Request(
            f"http://{self._gateway}/v1/recommend",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        answer = _json(request, self._timeout)
        _expect(len(answer["items"]) == 3, "not the three items that were asked for")
        return "POST /v1/recommend"

    def trace(self, jaeger: str) -> str:
        until, seen = time.monotonic() + _TRACE_SECONDS, set[str]()
        hops = _HOPS | {"madang-eta"} if self._arrives() else _HOPS
        while time.monotonic() < until and not seen >= hops:
            time.sleep(0.5)
            seen = _services(jaeger, self._trace_id, self._timeout)
        missing = ", ".join(sorted(hops - seen))
        _expect(not missing, f"trace {self._trace_id} has no span of {missing}")
        return f"{self._trace_id} went through {len(seen)} services"


def _services(jaeger: str, trace_id: str, timeout: float) -> set[str]:
    try:
        answer = _json(urllib.request.Request(f"{jaeger}/api/traces/{trace_id}"), timeout)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:  # which it is until the first span is there
            raise
        return set()
    return {
        process["serviceName"]
        for trace in answer.get("data") or ()
        for process in trace["processes"].values()
    }


def _json(request: urllib.request.Request, timeout: float) -> Any:
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def _undegraded(call: Callable[[], Answer]) -> Answer:
    """Call until the answer lacks nothing: the first ones after a start may be slow."""
    until = time.monotonic() + _WHOLE_SECONDS
    while True:
        answer = call()
        info: serving_info_pb2.ServingInfo = answer.serving_info  # type: ignore[attr-defined]
        if not info.degraded:
            return answer
        missing = ", ".join(f"{d.component} ({d.cause})" for d in info.degraded)
        _expect(time.monotonic() < until, f"degraded: {missing}")
        time.sleep(1.0)


def _expect(right: object, otherwise: str) -> None:
    if not right:
        raise WrongAnswerError(otherwise)
