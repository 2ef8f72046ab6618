"""What Envoy listens on: the mesh, the edge with TLS, and its own status."""

from pathlib import Path
from typing import Any

from madang_gateway.config import GatewayConfig, Tls
from madang_gateway.envoy import address, typed
from madang_gateway.services import SERVICES

_HTTP = "extensions.filters.http"
_MANAGER = "envoy.filters.network.http_connection_manager"


def listeners(config: GatewayConfig, folder: Path) -> list[dict[str, Any]]:
    """All listeners; `folder` holds rds.json, descriptors.binpb and the secrets."""
    made = [_listener("mesh", config.host, config.port, _mesh(config, folder))]
    if config.tls:
        edge = _listener("edge", config.host, config.tls.port, _mesh(config, folder))
        edge["filter_chains"][0]["transport_socket"] = _tls(config.tls, folder)
        made.append(edge)
    if config.status_port:
        made.append(_listener("status", config.host, config.status_port, _status()))
    return made


def _listener(name: str, host: str, port: int, manager: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "address": address(host, port),
        "filter_chains": [{"filters": [{"name": _MANAGER, "typed_config": manager}]}],
    }


def _manager(name: str, **fields: Any) -> dict[str, Any]:
    return typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        codec_type="AUTO",
        **fields,
    )


def _mesh(config: GatewayConfig, folder: Path) -> dict[str, Any]:
    return _manager(
        "mesh",
        generate_request_id=True,
        # Callers are known by certificate or not at all: what they say of themselves is dropped.
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True, "dns": True},
        rds={"route_config_name": "mesh", "config_source": watched(folder / "rds.json")},
        **({"tracing": _tracing(config)} if config.otlp else {}),
        http_filters=[
            _filter("grpc_web", "grpc_web.v3.GrpcWeb"),
            _filter("cors", "cors.v3.Cors"),
            _filter(
                "grpc_json_transcoder",
                "grpc_json_transcoder.v3.GrpcJsonTranscoder",
                proto_descriptor=str(folder / "descriptors.binpb"),
                services=[SERVICES[name] for name in config.upstreams],
                convert_grpc_status=True,
                print_options={"add_whitespace": True},
                request_validation_options={"reject_unknown_method": False},
            ),
            _filter("router", "router.v3.Router"),
        ],
    )


def _tracing(config: GatewayConfig) -> dict[str, Any]:
    receiver = {"envoy_grpc": {"cluster_name": "otlp"}, "timeout": "1s"}
    return {
        "spawn_upstream_span": False,
        "random_sampling": {"value": 100 * config.sampling_ratio},
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": typed(
                "config.trace.v3.OpenTelemetryConfig",
                service_name="madang-gateway",
                grpc_service=receiver,
            ),
        },
    }


def _status() -> dict[str, Any]:
    """Two pages of the admin, and nothing else of it."""
    pages = ("/ready", "/stats/prometheus")
    routes = [{"match": {"path": p}, "route": {"cluster": "admin"}} for p in pages]
    hosts = {"name": "status", "domains": ["*"], "routes": routes}
    return _manager(
        "status",
        route_config={"name": "status", "virtual_hosts": [hosts]},
        http_filters=[_filter("router", "router.v3.Router")],
    )


def _tls(tls: Tls, folder: Path) -> dict[str, Any]:
    common: dict[str, Any] = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [
            {"name": "edge", "sds_config": watched(folder / "edge.json")}
        ],
    }
    if tls.client_ca:
        common["validation_context_sds_secret_config"] = {
            "name": "clients",
            "sds_config": watched(folder / "clients.json"),
        }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context=common,
            require_client_certificate=tls.client_ca is not None,
        ),
    }


def secret_tables(tls: Tls) -> dict[str, dict[str, Any]]:
    """The SDS files by name: certificates that Envoy reads anew when their folder changes."""
    own = {
        "certificate_chain": {"filename": str(tls.folder / "tls.crt")},
        "private_key": {"filename": str(tls.folder / "tls.key")},
        "watched_directory": {"path": str(tls.folder)},
    }
    tables = {"edge": _secret("edge", tls_certificate=own)}
    if tls.client_ca:
        trusted = {
            "trusted_ca": {"filename": str(tls.client_ca)},
            "watched_directory": {"path": str(tls.client_ca.parent)},
        }
        tables["clients"] = _secret("clients", validation_context=trusted)
    return tables


def _secret(name: str, **fields: Any) -> dict[str, Any]:
    message = typed("extensions.transport_sockets.tls.v3.Secret", name=name, **fields)
    return {"resources": [message]}


def watched(path: Path) -> dict[str, Any]:
    """A file that Envoy reads anew when something is renamed in its folder."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {
            "path": str(path),
            "watched_directory": {"path": str(path.parent)},
        },
    }


def _filter(name: str, message: str, **config: Any) -> dict[str, Any]:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": typed(f"{_HTTP}.{message}", **config),
    }
