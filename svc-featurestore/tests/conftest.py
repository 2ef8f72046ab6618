"""Stores to test against: in memory, and a real Valkey."""

import pytest
import redis

from madang_featurestore.stores.memory import MemoryStore
from madang_featurestore.stores.redis import RedisStore


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
