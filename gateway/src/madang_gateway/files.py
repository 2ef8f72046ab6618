"""The folder that Envoy reads: envoy.json at its start, the others whenever they change."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from madang_gateway.clusters import cluster, cluster_table
from madang_gateway.config import GatewayConfig
from madang_gateway.envoy import address, typed
from madang_gateway.listeners import listeners, secret_tables, watched
from madang_gateway.routes import route_table

_MOST_CONNECTIONS = {
    "name": "envoy.resource_monitors.global_downstream_max_connections",
    "typed_config": typed(
        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=50_000,
    ),
}


def bootstrap(config: GatewayConfig, folder: Path) -> dict[str, Any]:
    """The start-up file: listeners, and where routes and clusters are watched."""
    clusters = [_http1(cluster("admin", f"127.0.0.1:{config.admin_port}", config))]
    if config.otlp:
        clusters.append(cluster("otlp", config.otlp, config))
    return {
        "node": {"id": "gateway", "cluster": "madang"},
        "admin": {"address": address("127.0.0.1", config.admin_port)},
        "dynamic_resources": {"cds_config": watched(folder / "cds.json")},
        "static_resources": {"listeners": listeners(config, folder), "clusters": clusters},
        "overload_manager": {"resource_monitors": [_MOST_CONNECTIONS]},
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {"tracing.opentelemetry.flush_interval_ms": 500},
                }
            ]
        },
    }


def _http1(http2: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in http2.items() if k != "typed_extension_protocol_options"}


def write_all(config: GatewayConfig, folder: Path) -> None:
    """Write everything that Envoy needs to start."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptors = (files("madang") / "descriptors.binpb").read_bytes()
    (folder / "descriptors.binpb").write_bytes(descriptors)
    for name, table in secret_tables(config.tls).items() if config.tls else ():
        _write(folder / f"{name}.json", table)
    write_clusters(config, folder)
    write_routes(config, folder)
    _write(folder / "envoy.json", bootstrap(config, folder))


def write_clusters(config: GatewayConfig, folder: Path) -> None:
    """Write the CDS file by rename."""
    _write(folder / "cds.json", cluster_table(config))


def write_routes(config: GatewayConfig, folder: Path) -> None:
    """Write the RDS file by rename. Its clusters must be known, or its calls fail meanwhile."""
    _write(folder / "rds.json", route_table(config))


def _write(path: Path, table: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(table, indent=1))
    part.rename(path)
