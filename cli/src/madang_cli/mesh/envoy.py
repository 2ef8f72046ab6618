"""The gateway's configuration.

Routes and clusters are files that Envoy watches: writing them anew (by rename) changes weights and
adds canaries without a restart.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

SERVICES = {
    "featurestore": "madang.feature.v1.FeatureStoreService",
    "candidate": "madang.candidate.v1.CandidateService",
    "ranker": "madang.ranker.v1.RankerService",
}
# Reflection, health and channelz are served by every service; this header says whose is meant.
SERVICE_HEADER = "x-madang-service"
_SHARED_PREFIX = "/grpc."
_TYPE = "type.googleapis.com/envoy"


@dataclass(frozen=True)
class Upstream:
    """Where a service runs.

    Attributes:
        stable: host:port of the stable build.
        canary: host:port of the canary, "" for none.
        canary_percent: share of users that the canary serves, 0 to 100.
    """

    stable: str
    canary: str = ""
    canary_percent: int = 0


def route_table(upstreams: Mapping[str, Upstream]) -> dict[str, Any]:
    """The RDS file: one weighted, user-sticky route a service."""
    routes = [
        _route(name, {"prefix": f"/{SERVICES[name]}/"}, upstream)
        for name, upstream in upstreams.items()
    ]
    routes += [
        _route(name, {"prefix": _SHARED_PREFIX, "headers": [_exactly(name)]}, upstream)
        for name, upstream in upstreams.items()
    ]
    hosts = {
        "name": "mesh",
        "domains": ["*"],
        "routes": routes,
        "typed_per_filter_config": {
            "envoy.filters.http.cors": {
                "@type": f"{_TYPE}.extensions.filters.http.cors.v3.CorsPolicy",
                "allow_origin_string_match": [
                    {"safe_regex": {"regex": r"https?://localhost(:\d+)?"}}
                ],
                "allow_methods": "GET, POST, OPTIONS",
                "allow_headers": "content-type, x-grpc-web, x-user-agent, grpc-timeout, "
                "x-madang-user",
                "expose_headers": "grpc-status, grpc-message, grpc-status-details-bin",
            }
        },
    }
    table = {
        "@type": f"{_TYPE}.config.route.v3.RouteConfiguration",
        "name": "mesh",
        "virtual_hosts": [hosts],
    }
    return {"resources": [table]}


def _exactly(name: str) -> dict[str, Any]:
    return {"name": SERVICE_HEADER, "string_match": {"exact": name}}


def _route(name: str, match: dict[str, Any], upstream: Upstream) -> dict[str, Any]:
    percent = upstream.canary_percent if upstream.canary else 0
    # The user's hash is salted with the service, or the same users would meet every canary.
    salted = {"pattern": {"regex": "^(.*)$"}, "substitution": rf"{name}:\1"}
    return {
        "match": match,
        "route": {
            "weighted_clusters": {
                "use_hash_policy": True,
                "clusters": [
                    {"name": f"{name}-stable", "weight": 100 - percent},
                    *([{"name": f"{name}-canary", "weight": percent}] if upstream.canary else []),
                ],
            },
            "hash_policy": [{"header": {"header_name": "x-madang-user", "regex_rewrite": salted}}],
            "timeout": "0s",
            "max_stream_duration": {"grpc_timeout_header_max": "600s"},
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset-before-request",
                "num_retries": 1,
            },
        },
    }


def cluster_table(upstreams: Mapping[str, Upstream]) -> dict[str, Any]:
    """The CDS file: a stable and maybe a canary cluster a service."""
    clusters = []
    for name, upstream in upstreams.items():
        clusters.append(_cluster(f"{name}-stable", upstream.stable))
        if upstream.canary:
            clusters.append(_cluster(f"{name}-canary", upstream.canary))
    return {"resources": clusters}


def _cluster(name: str, address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    endpoint = {
        "endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    }
    return {
        "@type": f"{_TYPE}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                # One connection leads to one worker: few streams on each make Envoy open more.
                "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 4}},
            }
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_requests": 4096,
                    "max_pending_requests": 4096,
                    "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 3},
                }
            ]
        },
        "outlier_detection": {
            "consecutive_gateway_failure": 5,
            "base_ejection_time": "2s",
            "max_ejection_percent": 50,
        },
    }


def bootstrap(
    folder: Path, port: int, admin_port: int, otlp: str, sampling_ratio: float
) -> dict[str, Any]:
    """The start-up file: one listener, and where routes and clusters are watched.

    Args:
        folder: holds `rds.json` and `cds.json`.
        port, admin_port: on loopback.
        otlp: host:port that takes Envoy's spans.
        sampling_ratio: share of traces begun here that are kept.
    """
    descriptors = files("madang") / "descriptors.binpb"
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "mesh",
        "codec_type": "AUTO",
        "generate_request_id": True,
        "rds": {"route_config_name": "mesh", "config_source": _watched(folder / "rds.json")},
        "tracing": {
            "spawn_upstream_span": False,
            "random_sampling": {"value": 100 * sampling_ratio},
            "provider": {
                "name": "envoy.tracers.opentelemetry",
                "typed_config": {
                    "@type": f"{_TYPE}.config.trace.v3.OpenTelemetryConfig",
                    "service_name": "madang-gateway",
                    "grpc_service": {
                        "envoy_grpc": {"cluster_name": "otlp"},
                        "timeout": "1s",
                    },
                },
            },
        },
        "http_filters": [
            _filter("envoy.filters.http.grpc_web", "grpc_web.v3.GrpcWeb"),
            _filter("envoy.filters.http.cors", "cors.v3.Cors"),
            _filter(
                "envoy.filters.http.grpc_json_transcoder",
                "grpc_json_transcoder.v3.GrpcJsonTranscoder",
                proto_descriptor=str(descriptors),
                services=list(SERVICES.values()),
                convert_grpc_status=True,
                print_options={"add_whitespace": True},
                request_validation_options={"reject_unknown_method": False},
            ),
            _filter("envoy.filters.http.router", "router.v3.Router"),
        ],
    }
    listener = {
        "name": "mesh",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }
    return {
        "node": {"id": "gateway", "cluster": "madang"},
        "admin": {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}
        },
        "dynamic_resources": {"cds_config": _watched(folder / "cds.json")},
        "static_resources": {
            "listeners": [listener],
            "clusters": [_static(_cluster("otlp", otlp))],
        },
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {"tracing.opentelemetry.flush_interval_ms": 500},
                }
            ]
        },
    }


def _static(cluster: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in cluster.items() if k != "@type"}


def _watched(path: Path) -> dict[str, Any]:
    return {
        "resource_api_version": "V3",
        "path_config_source": {
            "path": str(path),
            "watched_directory": {"path": str(path.parent)},
        },
    }


def _filter(name: str, message: str, **config: Any) -> dict[str, Any]:
    return {
        "name": name,
        "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.{message}", **config},
    }


def write_clusters(folder: Path, upstreams: Mapping[str, Upstream]) -> None:
    """Write the CDS file by rename."""
    _write(folder / "cds.json", cluster_table(upstreams))


def write_routes(folder: Path, upstreams: Mapping[str, Upstream]) -> None:
    """Write the RDS file by rename. Its clusters must be known, or its calls fail meanwhile."""
    _write(folder / "rds.json", route_table(upstreams))


def _write(path: Path, table: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(table, indent=1))
    part.rename(path)
