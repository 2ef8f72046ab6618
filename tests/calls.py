"""Requests and errors, as tests write them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from madang.candidate.v1 import candidate_pb2_grpc
from madang.eta.v1 import eta_pb2_grpc
from madang.feature.v1 import feature_store_pb2_grpc
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang.search.v1 import search_pb2_grpc
from madang.targeting.v1 import targeting_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh, wait_for
from madang_cli.traces import Span, is_whole, read_spans
from madang_cli.workspace import Workspace
from madang_pipelines.publish import publish
from madang_runtime.clients import from_rpc_error

PLACE = {"latitude": 37.4959, "longitude": 127.0664}
EVENING = {"seconds": 1_775_300_400}  # 4 April 2026, 20:00 in Seoul
NOT_LOOPED = ("search", "eta", "targeting")  # services that no feedback goes through
NEVER_SERVED = {"latitude": 0.0, "longitude": -30.0}


def recommend(user: str = "u00001", **fields: Any) -> ranker_pb2.RecommendRequest:
    """A request for a home feed in the evening."""
    given = {"user_id": user, "place": PLACE, "request_time": EVENING, **fields}
    return ranker_pb2.RecommendRequest(**given)


def refused(rpc: Any, request: Any, **options: Any) -> str:
    """Call, and return "CODE REASON field" of the error that must come."""
    with pytest.raises(grpc.RpcError) as caught:
        rpc(request, **{"timeout": 5, **options})
    error = from_rpc_error(caught.value)
    return f"{error.code.value} {error.reason_name} {error.about.get('field', '')}".strip()


def degraded(answer: Any) -> set[str]:
    """The degraded components of an answer."""
    return {d.component for d in answer.serving_info.degraded}


@dataclass
class Clients:
    """Stubs of all services on one channel."""

    channel: grpc.Channel

    def __post_init__(self) -> None:
        self.features = feature_store_pb2_grpc.FeatureStoreServiceStub(self.channel)
        self.candidate = candidate_pb2_grpc.CandidateServiceStub(self.channel)
        self.eta = eta_pb2_grpc.EtaServiceStub(self.channel)
        self.ranker = ranker_pb2_grpc.RankerServiceStub(self.channel)
        self.search = search_pb2_grpc.SearchServiceStub(self.channel)
        self.targeting = targeting_pb2_grpc.TargetingServiceStub(self.channel)


def serve(mesh: LocalMesh, workspace: Workspace) -> None:
    """Publish features and wait until the mesh serves."""
    publish(workspace.features, mesh.info.gateway)
    mesh.wait_serving()


def spans_of(mesh: LocalMesh, trace_id: str, leaves: int) -> list[Span]:
    """The spans of a trace, once it is whole and ends in so many leaves.

    Each process sends its spans when it likes, so a trace can look whole before its last branch."""
    path = Path(mesh.info.traces)

    def arrived() -> bool:
        spans = read_spans(path, trace_id)
        return is_whole(spans) and len(spans) - len({s.parent_id for s in spans} - {""}) >= leaves

    wait_for(arrived, 10)
    return read_spans(path, trace_id)
