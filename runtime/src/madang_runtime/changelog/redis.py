"""A log in a stream of Valkey or Redis."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from madang_runtime.changelog.base import REMEMBER_IDS_MS, Count, Entry
from madang_runtime.changelog.errors import AWAY, guarded, log_full, not_synced, unavailable

_PAYLOAD = "p"
_RECLAIM_EVERY = 1.0
_SCANNED = 5000

# KEYS: the stream, one key an id. ARGV: how long ids are remembered (ms), most entries, payloads.
_APPEND = """
if redis.call('XLEN', KEYS[1]) + #KEYS - 1 > tonumber(ARGV[2]) then return false end
local fresh = {}
for i = 2, #KEYS do
  fresh[i - 1] = 0
  if redis.call('SET', KEYS[i], 1, 'NX', 'PX', ARGV[1]) then
    redis.call('XADD', KEYS[1], '*', 'p', ARGV[i + 1])
    fresh[i - 1] = 1
  end
end
return fresh
"""

# KEYS: the stream, the sets of counters. ARGV: the group, how long counters are kept (ms), and of
# each entry: its position, how many counts, those as the index of their set, their name and amount.
_COUNT = """
local at, finished = 3, 0
while at <= #ARGV do
  local position, last = ARGV[at], at + 1 + 3 * ARGV[at + 1]
  if redis.call('XACK', KEYS[1], ARGV[1], position) == 1 then
    finished = finished + 1
    for i = at + 2, last, 3 do
      redis.call('HINCRBY', KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2])
    end
  end
  at = last + 1
end
for i = 2, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
return finished
"""


class RedisChangeLog:
    """Implements `ChangeLog` with a stream and its consumer groups.

    Args:
        url: redis:// or rediss://. The server must keep an append-only file.
        name: of the log.
        timeout: seconds to connect or wait for a reply.
        synced: wait until appended entries are on disk (WAITAOF), for a server whose `appendfsync`
            is not `always`.
        max_entries: entries kept before appending is refused.
        abandoned_after: seconds after which an unfinished entry is given to another consumer.
    """

    def __init__(
        self,
        url: str,
        name: str,
        timeout: float,
        *,
        synced: bool = False,
        max_entries: int = 1_000_000,
        abandoned_after: float = 5.0,
    ) -> None:
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout
        )
        # A consumer's wait must not count as the server's silence.
        self._waiting: Any = redis.Redis.from_url(
            url, socket_timeout=timeout + 5.0, socket_connect_timeout=timeout
        )
        self._stream = f"log:{{{name}}}"  # in a cluster, the ids lie beside the stream
        self._timeout_ms = round(timeout * 1000)
        self._synced = synced
        self._max_entries = max_entries
        self._abandoned_ms = round(abandoned_after * 1000)
        self._append = self._client.register_script(_APPEND)
        self._count = self._client.register_script(_COUNT)
        self._reclaimed = 0.0

    def append(self, entries: Sequence[tuple[str, bytes]]) -> list[bool]:
        """See `ChangeLog.append`."""
        keys = [self._stream, *(f"{self._stream}:id:{entry_id}" for entry_id, _ in entries)]
        payloads = [payload for _, payload in entries]
        pipe = self._client.pipeline(transaction=False)
        self._append(keys, [REMEMBER_IDS_MS, self._max_entries, *payloads], client=pipe)
        if self._synced:
            pipe.execute_command("WAITAOF", 1, 0, self._timeout_ms)
        fresh, *synced = guarded(lambda: pipe.execute(raise_on_error=False))
        if isinstance(fresh, Exception):
            raise unavailable(fresh) if isinstance(fresh, AWAY) else fresh
        if fresh is None:
            raise log_full(self._max_entries)
        if synced and (isinstance(synced[0], Exception) or not synced[0][0]):
            raise not_synced()
        return [bool(f) for f in fresh]

    def take(self, group: str, consumer: str, limit: int, wait: float) -> list[Entry]:
        """See `ChangeLog.take`."""
        return guarded(lambda: self._take(group, consumer, limit, wait))

    def _take(self, group: str, consumer: str, limit: int, wait: float) -> list[Entry]:
        try:
            if time.monotonic() > self._reclaimed + _RECLAIM_EVERY:
                _, left, *_ = self._client.xautoclaim(
                    self._stream, group, consumer, self._abandoned_ms, count=limit
                )
                if left:
                    return _entries(left)
                self._reclaimed = time.monotonic()
            wait_ms = max(1, min(round(wait * 1000), 4000))
            found = self._waiting.xreadgroup(
                group, consumer, {self._stream: ">"}, count=limit, block=wait_ms
            )
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._make(group)
            return []
        return _entries(found[0][1]) if found else []

    def _make(self, group: str) -> None:
        try:
            self._client.xgroup_create(self._stream, group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # another consumer was first
                raise

    def done(self, group: str, positions: Sequence[str]) -> None:
        """See `ChangeLog.done`."""
        if positions:
            guarded(lambda: self._client.xack(self._stream, group, *positions))

    def count(self, group: str, counted: Mapping[str, Sequence[Count]], keep: float) -> int:
        """See `ChangeLog.count`."""
        sets = sorted({count.counters for counts in counted.values() for count in counts})
        index = {counters: i for i, counters in enumerate(sets, 2)}
        arguments: list[str | int] = [group, round(keep * 1000)]
        for position, counts in counted.items():
            arguments += [position, len(counts)]
            for count in counts:
                arguments += [index[count.counters], count.name, count.n]
        keys = [self._stream, *map(self._counters_key, sets)]
        return int(guarded(lambda: self._count(keys, arguments)))

    def counters(self, counters: str) -> dict[str, int]:
        """See `ChangeLog.counters`."""
        # In parts, for the server serves others between them.
        scan = self._client.hscan_iter(self._counters_key(counters), count=_SCANNED)
        return {name.decode(): int(n) for name, n in guarded(lambda: list(scan))}

    def _counters_key(self, counters: str) -> str:
        return f"{self._stream}:counters:{counters}"

    def behind(self, group: str) -> int:
        """See `ChangeLog.behind`."""
        for found in guarded(self._groups):
            if found["name"].decode() == group:
                lag = found["lag"]
                return int(found["pending"]) + int(0 if lag is None else lag)
        return int(guarded(lambda: self._client.xlen(self._stream)))

    def _groups(self) -> list[dict[str, Any]]:
        if not self._client.exists(self._stream):
            return []
        found: list[dict[str, Any]] = self._client.xinfo_groups(self._stream)
        return found

    def forget(self, group: str, idle: float) -> None:
        """See `ChangeLog.forget`."""

        def call() -> None:
            if group.encode() not in (found["name"] for found in self._groups()):
                return
            consumers = self._client.xinfo_consumers(self._stream, group)
            if all(consumer["idle"] >= idle * 1000 for consumer in consumers):
                self._client.xgroup_destroy(self._stream, group)

        guarded(call)

    def trim(self) -> None:
        """See `ChangeLog.trim`."""
        guarded(self._trim)

    def _trim(self) -> None:
        needed = [self._first_needed(found) for found in self._groups()]
        if needed:
            milliseconds, number = min(needed)
            self._client.xtrim(self._stream, minid=f"{milliseconds}-{number}", approximate=False)

    def _first_needed(self, group: dict[str, Any]) -> tuple[int, int]:
        """The first position that a group has not finished."""
        oldest = None
        if group["pending"]:
            oldest = self._client.xpending(self._stream, group["name"])["min"]
        milliseconds, number = map(int, (oldest or group["last-delivered-id"]).split(b"-"))
        return milliseconds, number if oldest else number + 1

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._waiting.close()


def _entries(found: list[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
    return [
        Entry(position.decode(), fields[_PAYLOAD.encode()])
        for position, fields in found
        if fields is not None
    ]
