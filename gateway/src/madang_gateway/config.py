"""What the gateway is told."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from madang_gateway.services import SERVICES


def _known(names: dict[str, "Upstream"]) -> dict[str, "Upstream"]:
    if unknown := sorted(set(names) - set(SERVICES)):
        raise ValueError(f"no service of the mesh: {', '.join(unknown)}")
    return names


Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+:\d{1,5}$")]
Port = Annotated[int, Field(ge=0, le=65535)]


class Part(BaseModel):
    """Unknown keys are refused; nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Upstream(Part):
    """Where a service runs."""

    stable: Address = Field(description="host:port of the stable build.")
    canary: Address | None = Field(None, description="host:port of the canary.")
    canary_percent: int = Field(0, ge=0, le=100, description="Share of users on the canary.")
    health_port: Port = Field(
        0, description="Port of the plaintext health service; 0: the service is not asked."
    )


class Tls(Part):
    """The edge's own listener, with TLS."""

    port: Port
    folder: Path = Field(description="Holds tls.crt and tls.key; watched for new ones.")
    client_ca: Path | None = Field(
        None, description="PEM of who signs clients' certificates; unset: clients need none."
    )


class GatewayConfig(Part):
    """A gateway to these upstreams."""

    upstreams: Annotated[dict[str, Upstream], AfterValidator(_known)]
    host: str = Field("127.0.0.1", description="Address that all but the admin page listen on.")
    port: Port = Field(description="Plaintext gRPC, gRPC-Web and JSON.")
    tls: Tls | None = None
    admin_port: Port = Field(description="Envoy's admin page, on loopback.")
    status_port: Port = Field(0, description="/ready and /stats/prometheus; 0: none.")
    otlp: Address | None = Field(None, description="host:port that takes Envoy's spans.")
    sampling_ratio: float = Field(
        0.1, ge=0, le=1, description="Share of traces begun here that are kept."
    )
    dns_refresh_seconds: float = Field(2.0, gt=0, description="How often names are resolved.")
    cors_origins: tuple[str, ...] = Field(
        (r"https?://localhost(:\d+)?",), description="Regular expressions of browsers' origins."
    )


def load_config(path: Path) -> GatewayConfig:
    """Read a YAML file. Raises: OSError, YAMLError, ValueError (which says where)."""
    return GatewayConfig.model_validate(yaml.safe_load(path.read_text()))
