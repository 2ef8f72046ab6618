"""The CDS file: a stable and maybe a canary cluster a service."""

from ipaddress import ip_address
from typing import Any

from madang_gateway.config import GatewayConfig
from madang_gateway.envoy import TYPE, address, typed
from madang_gateway.services import SERVICES


def cluster_table(config: GatewayConfig) -> dict[str, Any]:
    """The clusters of all upstreams."""
    resources = []
    for name, upstream in config.upstreams.items():
        for side, at in (("stable", upstream.stable), ("canary", upstream.canary)):
            if at:
                made = cluster(f"{name}-{side}", at, config)
                if upstream.health_port:
                    made = _asked(made, SERVICES[name], upstream.health_port)
                resources.append({"@type": f"{TYPE}.config.cluster.v3.Cluster", **made})
    return {"resources": resources}


def cluster(name: str, at: str, config: GatewayConfig) -> dict[str, Any]:
    """The addresses behind a host:port, over HTTP/2."""
    host, _, port = at.rpartition(":")
    endpoint = {"address": address(host, int(port))}
    http2 = typed(
        "extensions.upstreams.http.v3.HttpProtocolOptions",
        # One connection leads to one worker: few streams on each make Envoy open more.
        explicit_http_config={"http2_protocol_options": {"max_concurrent_streams": 4}},
    )
    limits = {
        "max_requests": 4096,
        "max_pending_requests": 4096,
        "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 3},
    }
    return {
        "name": name,
        **_discovery(host, config),
        "connect_timeout": "0.25s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
        "circuit_breakers": {"thresholds": [limits]},
        "outlier_detection": {
            "consecutive_gateway_failure": 5,
            "base_ejection_time": "2s",
            "max_ejection_percent": 50,
        },
    }


def _discovery(host: str, config: GatewayConfig) -> dict[str, Any]:
    try:
        ip_address(host)
    except ValueError:
        resolved = typed(
            "extensions.clusters.dns.v3.DnsCluster",
            dns_refresh_rate=f"{config.dns_refresh_seconds}s",
            dns_lookup_family="V4_PREFERRED",
        )
        return {"cluster_type": {"name": "envoy.clusters.dns", "typed_config": resolved}}
    return {"type": "STATIC"}


def _asked(made: dict[str, Any], service: str, port: int) -> dict[str, Any]:
    """A cluster of which only those get calls that say at a port of theirs that they serve.

    An address that the name has no more is kept for as long as it serves: names lag behind, and a
    pod that stops says so itself. When none serves, the call goes to any of them, and the caller
    hears from it why.
    """
    for locality in made["load_assignment"]["endpoints"]:
        for host in locality["lb_endpoints"]:
            host["endpoint"]["health_check_config"] = {"port_value": port}
    check = {
        # By its name: an address may by now be another service's.
        "grpc_health_check": {"service_name": service},
        "timeout": "1s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
    }
    anyone = {"healthy_panic_threshold": {"value": 1}}
    return {**made, "health_checks": [check], "common_lb_config": anyone}
