"""The RDS file: one weighted, user-sticky route a service."""

from typing import Any

from madang_gateway.config import GatewayConfig, Upstream
from madang_gateway.envoy import TYPE, typed
from madang_gateway.services import SERVICE_HEADER, SERVICES, USER_HEADER

_SHARED_PREFIX = "/grpc."


def route_table(config: GatewayConfig) -> dict[str, Any]:
    """The routes to all upstreams."""
    routes = [
        _route(name, {"prefix": f"/{SERVICES[name]}/"}, upstream)
        for name, upstream in config.upstreams.items()
    ]
    routes += [
        _route(name, {"prefix": _SHARED_PREFIX, "headers": [_exactly(name)]}, upstream)
        for name, upstream in config.upstreams.items()
    ]
    cors = typed(
        "extensions.filters.http.cors.v3.CorsPolicy",
        allow_origin_string_match=[{"safe_regex": {"regex": r}} for r in config.cors_origins],
        allow_methods="GET, POST, OPTIONS",
        allow_headers=f"content-type, x-grpc-web, x-user-agent, grpc-timeout, {USER_HEADER}",
        expose_headers="grpc-status, grpc-message, grpc-status-details-bin",
    )
    hosts = {
        "name": "mesh",
        "domains": ["*"],
        "routes": routes,
        "typed_per_filter_config": {"envoy.filters.http.cors": cors},
    }
    table = {
        "@type": f"{TYPE}.config.route.v3.RouteConfiguration",
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
            "hash_policy": [{"header": {"header_name": USER_HEADER, "regex_rewrite": salted}}],
            "timeout": "0s",
            "max_stream_duration": {"grpc_timeout_header_max": "600s"},
            # Only what no service has begun to work on, and on another address if there is one.
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset-before-request",
                "num_retries": 2,
                "retry_host_predicate": [
                    {
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": typed(
                            "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                        ),
                    }
                ],
                "host_selection_retry_max_attempts": 3,
            },
        },
    }
