"""A compacted log in Valkey or Redis: a hash of payloads, and a sorted set of who changed when."""

from collections.abc import Mapping
from typing import Any

import redis

from madang_runtime.changelog.compacted import Changes
from madang_runtime.changelog.errors import AWAY, guarded, not_synced, unavailable

# KEYS: payloads, order, position. ARGV: how many are put, those as key and payload, keys to delete.
_WRITE = """
local position = tonumber(redis.call('GET', KEYS[3]) or '0')
local puts = tonumber(ARGV[1])
local function changed(key)
  position = position + 1
  redis.call('ZADD', KEYS[2], position, key)
end
for i = 0, puts - 1 do
  redis.call('HSET', KEYS[1], ARGV[2 + 2 * i], ARGV[3 + 2 * i])
  changed(ARGV[2 + 2 * i])
end
for i = 2 + 2 * puts, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
  changed(ARGV[i])
end
redis.call('SET', KEYS[3], position)
return position
"""

# KEYS as above. ARGV: the position to start after, how many.
_CHANGES = """
local found = redis.call(
  'ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local latest = redis.call('GET', KEYS[3]) or '0'
local keys, payloads, reached = {}, {}, latest
for i = 1, #found, 2 do
  table.insert(keys, found[i])
  table.insert(payloads, redis.call('HGET', KEYS[1], found[i]))
  reached = found[i + 1]
end
local store = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
return {reached, latest, keys, payloads, store}
"""


class RedisCompactedLog:
    """Implements `CompactedLog`.

    Args:
        url: redis:// or rediss://. The server must keep an append-only file.
        name: of the log.
        timeout: seconds to connect or wait for a reply.
        synced: wait until writes are on disk (WAITAOF), for a server whose `appendfsync` is not
            `always`.
    """

    def __init__(self, url: str, name: str, timeout: float, *, synced: bool = False) -> None:
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout
        )
        self._keys = [f"table:{{{name}}}:{part}" for part in ("payloads", "order", "position")]
        self._timeout_ms = round(timeout * 1000)
        self._synced = synced
        self._write = self._client.register_script(_WRITE)
        self._changes = self._client.register_script(_CHANGES)

    def write(self, changes: Mapping[str, bytes | None]) -> int:
        """See `CompactedLog.write`."""
        puts = [part for key, p in changes.items() if p is not None for part in (key, p)]
        deleted = [key for key, payload in changes.items() if payload is None]
        pipe = self._client.pipeline(transaction=False)
        self._write(self._keys, [len(puts) // 2, *puts, *deleted], client=pipe)
        if self._synced:
            pipe.execute_command("WAITAOF", 1, 0, self._timeout_ms)
        position, *synced = guarded(lambda: pipe.execute(raise_on_error=False))
        if isinstance(position, Exception):
            raise unavailable(position) if isinstance(position, AWAY) else position
        if synced and (isinstance(synced[0], Exception) or not synced[0][0]):
            raise not_synced()
        return int(position)

    def changes(self, after: int, limit: int) -> Changes:
        """See `CompactedLog.changes`."""
        found = guarded(lambda: self._changes(self._keys, [after, limit]))
        reached, latest, keys, payloads, store = found
        changed = {key.decode(): payload for key, payload in zip(keys, payloads, strict=True)}
        return Changes(int(float(reached)), int(latest), changed, store.decode())

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
