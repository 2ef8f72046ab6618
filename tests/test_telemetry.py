"""Spans and metrics are those of docs/telemetry.yaml; alerts and dashboards use no others."""

import json
import re
import urllib.request
import uuid
from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml
from calls import PLACE, Clients, recommend
from prometheus_client.parser import text_string_to_metric_families

from madang.candidate.v1 import candidate_pb2
from madang.eta.v1 import eta_pb2
from madang.feature.v1 import feature_store_pb2
from madang.ranker.v1 import ranker_pb2
from madang.search.v1 import search_pb2
from madang.targeting.v1 import targeting_pb2
from madang_cli.mesh.mesh import LocalMesh, wait_for
from madang_cli.traces import all_spans
from madang_gateway.services import SERVICES
from madang_runtime.columns import block

ROOT = Path(__file__).parents[1]
KNOWN = yaml.safe_load((ROOT / "docs/telemetry.yaml").read_text())
MONITORING = ROOT / "helm/madang/monitoring"
ALERTS = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
EXPRESSIONS = [
    *(rule["expr"] for rule in ALERTS),
    *(target["expr"] for panel in PANELS for target in panel["targets"]),
]


@pytest.fixture(scope="module")
def driven(mesh: LocalMesh, clients: Clients) -> LocalMesh:
    """The mesh after calls of every kind."""
    user, item = (f"watched-{uuid.uuid4().hex[:8]}" for _ in range(2))
    page = clients.ranker.Recommend(recommend(user), timeout=5)
    ids = [i.item_id for i in page.items]
    rank = ranker_pb2.RankRequest(user_id=user, place=PLACE, item_ids=ids)
    clients.ranker.Rank(rank, timeout=5)
    event = ranker_pb2.FeedbackEvent(
        event_id=item, type=1, user_id=user, item_id=ids[0], request_id=page.request_id
    )
    clients.ranker.RecordFeedback(ranker_pb2.RecordFeedbackRequest(events=[event]), timeout=5)
    clients.eta.Predict(eta_pb2.PredictRequest(shop_id=ids[0], place=PLACE), timeout=5)
    buffer = eta_pb2.TimeBuffer(
        scope=eta_pb2.BufferScope(shop_id=item), reason="watched", author="test", removed=True
    )
    clients.eta.SetTimeBuffer(eta_pb2.SetTimeBufferRequest(buffer=buffer), timeout=5)
    spec = targeting_pb2.SegmentSpec(groups=["치킨"], channel="push", goal=1, size=10)
    create = targeting_pb2.CreateSegmentRequest(segment_id=item, spec=spec)
    clients.targeting.CreateSegment(create, timeout=5)
    estimate = targeting_pb2.EstimateAudienceRequest(groups=["치킨"], channel="push", goal=1)
    clients.targeting.EstimateAudience(estimate, timeout=5)
    document = search_pb2.Document(document_id=item, title=f"골목 {item}")
    put = search_pb2.UpsertDocumentsRequest(documents=[document])
    seen_by = clients.search.UpsertDocuments(put, timeout=5).freshness_token
    query = search_pb2.SearchRequest(query="골목", freshness_token=seen_by, user_id=user)
    clients.search.Search(query, timeout=5)
    action = feature_store_pb2.Action(event_id=item, user_id=user, type=2, item_id="s00001")
    acted = feature_store_pb2.RecordActionsRequest(actions=[action])
    acted_token = clients.features.RecordActions(acted, timeout=5).freshness_token
    keywords = search_pb2.RecommendKeywordsRequest(user_id=user, freshness_token=acted_token)
    clients.search.RecommendKeywords(keywords, timeout=5)
    wish = search_pb2.SearchBlocksRequest(query="맛집", user_id=user, place=PLACE)
    clients.search.SearchBlocks(wish, timeout=5)
    clients.search.Suggest(search_pb2.SuggestRequest(prefix="골"), timeout=5)
    gone = search_pb2.DeleteDocumentsRequest(document_ids=[item])
    clients.search.DeleteDocuments(gone, timeout=5)
    explain = ranker_pb2.ExplainRequest(request_id=page.request_id)
    assert wait_for(lambda: answers(lambda: clients.ranker.Explain(explain, timeout=5)))
    similar = candidate_pb2.RetrieveSimilarRequest(item_id=ids[0])
    clients.candidate.RetrieveSimilar(similar, timeout=5)
    view = feature_store_pb2.FeatureView(
        name=item.replace("-", "_"), entity="item", features=[{"name": "a", "dtype": 1}]
    )
    apply = feature_store_pb2.ApplyFeatureViewRequest(view=view)
    clients.features.ApplyFeatureView(apply, timeout=5)
    upsert = candidate_pb2.UpsertItemsRequest(
        items=[candidate_pb2.Item(item_id=item, kind=1, place=PLACE)],
        features=[block(["item_profile.category"], np.array([[1]]))],
    )
    token = clients.candidate.UpsertItems(upsert, timeout=5).freshness_token
    seen = candidate_pb2.RetrieveRequest(user_id=user, place=PLACE, freshness_token=token)
    clients.candidate.Retrieve(seen, timeout=5)
    clients.candidate.DeleteItems(candidate_pb2.DeleteItemsRequest(item_ids=[item]), timeout=5)
    return mesh


def answers(call) -> bool:
    try:
        call()
    except grpc.RpcError:
        return False
    return True


def test_spans_are_those_of_the_file(driven):
    known = {f"{service} {name}" for service, names in KNOWN["spans"].items() for name in names}

    def sent() -> set[str]:
        found = set()
        for span in all_spans(Path(driven.info.traces)):
            service = span.service.removeprefix("madang-")
            if span.name.partition("/")[0] != SERVICES.get(service):
                found.add(f"{service} {span.name}")
        return found

    wait_for(lambda: sent() >= known, 10)
    assert sent() == known


def test_metrics_are_those_of_the_file(driven):
    known = KNOWN["metrics"]
    of_trouble = {"madang_model_load_failures", "madang_degradations", "madang_records_dropped"}
    of_trouble |= {name for name in known if "shadow" in name}

    def families():
        parts = (*SERVICES, *driven.info.background)
        return [f for part in parts for f in scraped(driven.info.metrics[part])]

    def labels() -> dict[str, set[str]]:
        return {f.name: {*s.labels} - {"le"} for f in families() for s in f.samples}

    assert {f.name: f.type for f in families()} == {n: m["type"] for n, m in known.items()}
    assert wait_for(lambda: labels().keys() >= known.keys() - of_trouble)
    for name, used in labels().items():
        assert used == set(known[name]["labels"]), name


def test_the_gateways_metrics_are_there(driven):
    families = scraped(driven.info.metrics["gateway"])
    for name, metric in KNOWN["gateway_metrics"].items():
        samples = [
            s for f in families if (f.name, f.type) == (name, metric["type"]) for s in f.samples
        ]
        assert any(s.labels.keys() >= set(metric["labels"]) for s in samples), name


def scraped(url: str):
    with urllib.request.urlopen(url, timeout=5) as page:
        return list(text_string_to_metric_families(page.read().decode()))


def test_alerts_and_dashboards_use_no_other_names():
    names = set()
    for name, metric in (KNOWN["metrics"] | KNOWN["gateway_metrics"]).items():
        ends = {"histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
        ours = name.startswith("madang_")
        names |= {name + e for e in ends.get(metric["type"], ("_total",) if ours else ("",))}
    for expression in EXPRESSIONS:
        used = set(re.findall(r"\b(?:madang|envoy)_[a-z_]+\b(?![\w=]*\"?[=~])", expression))
        used -= {label for label in used if label.startswith("envoy_cluster_name")}
        labels = {"envoy_cluster_name", "envoy_response_code", "envoy_http_conn_manager_prefix"}
        assert used - labels
        assert used - labels <= names, expression


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_runbook(rule):
    name = rule["alert"]
    assert rule["annotations"]["runbook_url"] == f"RUNBOOKS/{name}.md"
    page = (ROOT / f"docs/runbooks/{name}.md").read_text()
    for part in (f"# {name}", "**Harm.**", "**Look.**", "**Do.**"):
        assert part in page
    assert rule["labels"]["severity"] in ("critical", "warning")
