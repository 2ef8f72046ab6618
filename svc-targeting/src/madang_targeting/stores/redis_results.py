"""Results in Valkey or Redis: compressed parts of lists, which grow with every call."""

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from madang_targeting.results import Event
from madang_targeting.stores.connection import Connection

_AT_ONCE = 100


class RedisResultStore:
    """Implements `ResultStore`.

    Args:
        connection: to the store.
        keep_seconds: after a campaign's last result it is forgotten.
    """

    def __init__(self, connection: Connection, keep_seconds: int) -> None:
        self._connection, self._keep = connection, keep_seconds

    def append(
        self, campaign_id: str, event: Event, user_ids: Sequence[str], channel: str = ""
    ) -> None:
        """See `ResultStore.append`."""
        packed = zlib.compress(json.dumps([event, list(user_ids)]).encode(), 1)
        key = _key(campaign_id)

        def queue(pipe: Any) -> None:
            pipe.rpush(key, packed)
            pipe.expire(key, self._keep)
            if channel:
                pipe.set(_channel_key(campaign_id), channel, ex=self._keep)

        self._connection.write(queue)

    def read(self, campaign_id: str) -> dict[Event, set[str]]:
        """See `ResultStore.read`."""
        found: dict[Event, set[str]] = {}
        for part in self._parts(_key(campaign_id)):
            event, user_ids = json.loads(zlib.decompress(part))
            found.setdefault(Event(event), set()).update(user_ids)
        return found

    def _parts(self, key: str) -> Iterator[bytes]:
        at = 0
        while True:
            last = at + _AT_ONCE - 1
            (parts,) = self._connection.read(lambda pipe: pipe.lrange(key, at, last))  # noqa: B023
            yield from parts
            if len(parts) < _AT_ONCE:
                return
            at += _AT_ONCE

    def channel(self, campaign_id: str) -> str:
        """See `ResultStore.channel`."""
        (found,) = self._connection.read(lambda pipe: pipe.get(_channel_key(campaign_id)))
        return found.decode() if found else ""

    def known(self, campaign_ids: Sequence[str]) -> list[bool]:
        """See `ResultStore.known`."""
        if not campaign_ids:
            return []
        found = self._connection.read(
            lambda pipe: [pipe.exists(_key(campaign)) for campaign in campaign_ids]
        )
        return [bool(n) for n in found]

    def close(self) -> None:
        """Close connections."""
        self._connection.close()


def _key(campaign_id: str) -> str:
    return f"results:{campaign_id}"


def _channel_key(campaign_id: str) -> str:
    return f"results-channel:{campaign_id}"
