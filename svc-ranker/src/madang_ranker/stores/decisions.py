"""Pages kept for Explain."""

from collections.abc import Sequence
from typing import Any

import redis

from madang.ranker.v1.decision_pb2 import Decision
from madang_runtime.changelog.errors import AWAY, unavailable


class RedisDecisionStore:
    """Implements `DecisionStore` on Valkey or Redis.

    Args:
        url: redis:// or rediss://.
        timeout: seconds to connect or wait for a reply.
        ttl: seconds for which pages are kept.
    """

    def __init__(self, url: str, timeout: float, ttl: float) -> None:
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout
        )
        self._ttl_ms = round(ttl * 1000)

    def keep(self, decisions: Sequence[Decision]) -> None:
        """See `DecisionStore.keep`."""
        pipe = self._client.pipeline(transaction=False)
        for decision in decisions:
            pipe.set(_key(decision.request_id), decision.SerializeToString(), px=self._ttl_ms)
        try:
            pipe.execute()
        except AWAY as error:
            raise unavailable(error) from error

    def find(self, request_id: str) -> Decision | None:
        """See `DecisionStore.find`."""
        try:
            found = self._client.get(_key(request_id))
        except AWAY as error:
            raise unavailable(error) from error
        return Decision.FromString(found) if found else None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _key(request_id: str) -> str:
    return f"decision:{request_id}"
