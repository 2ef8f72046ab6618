"""Settings that every service has. Each service subclasses this with its own prefix."""

from pydantic import Field
from pydantic_settings import BaseSettings


class ServiceSettings(BaseSettings):
    """Read from the environment; a service's prefix is `MADANG_<SERVICE>_`."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(50051, ge=0, le=65535, description="gRPC port; 0 takes a free one.")
    arm: str = Field("stable", description="Experiment arm that answers name: stable or canary.")
    workers: int = Field(1, ge=1, le=64, description="Processes that share the port.")
    threads: int = Field(8, ge=1, le=256, description="Threads that run handlers.")
    streams: int = Field(8, ge=1, le=256, description="Streams served at once, a thread each.")
    metrics_port: int = Field(0, ge=0, le=65535, description="Prometheus port; 0 turns it off.")
    health_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Plaintext port of the health service alone, from before models are loaded, "
        "for probes; 0: only on the gRPC port.",
    )
    gateway: str = Field("127.0.0.1:8080", description="host:port of the gateway to the mesh.")
    model_registry: str = Field(
        "file://./run/models", description="fsspec URL of the model registry."
    )
    model_poll_seconds: float = Field(
        2.0, gt=0, description="How often a model's alias is looked at for a new version."
    )
    otlp_endpoint: str = Field("", description="host:port of an OTLP/gRPC receiver; empty: none.")
    sampling_ratio: float = Field(
        0.1, ge=0, le=1, description="Share of traces begun here that are kept; a caller's wins."
    )
    max_waiting: int = Field(
        256, ge=1, description="Requests running or waiting before new ones are refused."
    )
    max_queue_seconds: float = Field(
        0.5, gt=0, description="A request that waited longer for a thread is refused."
    )
    default_deadline_seconds: float = Field(
        5.0, gt=0, description="Deadline of a call that brings none; the cap of one that does."
    )
    drain_seconds: float = Field(
        0.0, ge=0, description="Time between NOT_SERVING and refusing calls, for endpoint lag."
    )
    grace_seconds: float = Field(
        6.0, ge=0, description="Time for running calls to end; at least the longest deadline."
    )
    max_message_bytes: int = Field(
        16 * 2**20, ge=2**16, description="Largest gRPC message sent or accepted."
    )
    log_level: str = Field("INFO", description="Level of the JSON log on standard error.")
