"""Valkey or Redis."""

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import hiredis
import redis

from madang_featurestore.stores.base import (
    DEDUPLICATION_TTL_MS,
    HIDDEN_TTL_MS,
    KEEP_HIDDEN,
    KEEP_RECENT,
    RECENT_TTL_MS,
    Event,
    Keys,
    Read,
)
from madang_featurestore.windows import SLOTS
from madang_runtime.changelog.errors import AWAY, unavailable
from madang_runtime.times import now_ms

T = TypeVar("T")

_SEQUENCE, _EPOCH, _VIEWS = "fs:sequence", "fs:epoch", "fs:views"

# KEYS: deduplication key, last actions, hidden items, one key a packed ring value.
# ARGV: deduplication ms, event time, payload, actions kept, their ms, hidden item, hidden items
# kept, their ms, slots, then for each ring
# key: its ms, number of increments, and each increment as offset, slot bytes, bucket, number of
# counters, counters.
_RECORD = """
if not redis.call('SET', KEYS[1], 1, 'NX', 'PX', ARGV[1]) then return 0 end
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -ARGV[4] - 1)
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
if ARGV[6] ~= '' then
  redis.call('ZADD', KEYS[3], 'GT', ARGV[2], ARGV[6])
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -ARGV[7] - 1)
  redis.call('PEXPIRE', KEYS[3], ARGV[8])
end
local slots, a = tonumber(ARGV[9]), 10
local function take() a = a + 1; return tonumber(ARGV[a - 1]) end
for k = 4, #KEYS do
  local keep, increments = take(), take()
  for _ = 1, increments do
    local offset, size, bucket, n = take(), take(), take(), take()
    local at = offset + bucket % slots * size
    local slot = redis.call('GETRANGE', KEYS[k], at, at + size - 1)
    if #slot < size then slot = slot .. string.rep('\\0', size - #slot) end
    local was = struct.unpack('<I4', slot)
    if was < bucket then slot = struct.pack('<I4', bucket) .. string.rep('\\0', size - 4) end
    for _ = 1, n do
      local c = 4 + take() * 4
      if was <= bucket then
        local count = struct.unpack('<I4', slot, c + 1)
        slot = slot:sub(1, c) .. struct.pack('<I4', count + 1) .. slot:sub(c + 5)
      end
    end
    if was <= bucket then redis.call('SETRANGE', KEYS[k], at, slot) end
  end
  redis.call('PEXPIRE', KEYS[k], keep)
end
return 1
"""

# KEYS: definitions, epoch. ARGV: name, definition, expected ("" for none).
_PUT_VIEW = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('INCR', KEYS[2])
return 1
"""


class RedisStore:
    """Implements `RowStore`.

    Reads go through redis-py's connections but are packed by hiredis and read as one reply,
    since redis-py's own command path costs more than the server does.

    Args:
        url: redis:// or rediss://.
        timeout: seconds to connect or wait for a reply.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._client = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout
        )
        self._pool: Any = self._client.connection_pool
        self._local = threading.local()
        self._record = self._client.register_script(_RECORD)
        self._put_view = self._client.register_script(_PUT_VIEW)

    def read(self, groups: Sequence[Keys], users: Sequence[str] = (), since_ms: int = 0) -> Read:
        """See `RowStore.read`."""
        oldest = now_ms() - HIDDEN_TTL_MS
        by_time = ("+inf", since_ms, "BYSCORE", "REV", "LIMIT", 0, KEEP_RECENT)
        recents = [_pack("ZRANGE", f"a:{user}", *by_time) for user in users]
        hides = [_pack("ZRANGE", f"h:{user}", oldest, "+inf", "BYSCORE") for user in users]
        packed = _pack_mget([Keys("", [_SEQUENCE, _EPOCH]), *groups]) + b"".join(recents + hides)
        replies = _guard(lambda: self._exchange(packed, 1 + 2 * len(users)))
        sequence, epoch, *values = replies[0]
        recent, hidden = replies[1 : 1 + len(users)], replies[1 + len(users) :]
        return Read(int(sequence or 0), int(epoch or 0), values, recent, hidden)

    def _exchange(self, packed: bytes, replies: int) -> list[Any]:
        """Send commands that may be repeated and read their replies; twice if the connection was
        stale, as all are after the server restarted."""
        connection = self._connection()
        for attempt in (1, 2):
            try:
                connection.send_packed_command([packed])
                return [connection.read_response() for _ in range(replies)]
            except redis.ConnectionError:
                connection.disconnect()
                if attempt == 2:
                    raise
            except BaseException:
                connection.disconnect()  # replies may be left in it
                raise
        raise AssertionError("the loop returns or raises")

    def _connection(self) -> Any:
        """This thread's connection: borrowing one from the pool at each read costs more."""
        if not hasattr(self._local, "connection"):
            self._local.connection = self._pool.make_connection()
        return self._local.connection

    def write(self, rows: Mapping[str, bytes], keep_ms: int | None) -> int:
        """See `RowStore.write`."""
        pipe = self._client.pipeline(transaction=True)
        if keep_ms is None:
            pipe.mset(dict(rows))
        else:
            for key, value in rows.items():
                pipe.set(key, value, px=max(keep_ms, 1))
        pipe.incr(_SEQUENCE)
        return int(_guard(pipe.execute)[-1])

    def record(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """See `RowStore.record`."""
        pipe = self._client.pipeline(transaction=True)
        for event in events:
            user = event.user_id
            keys = [f"e:{event.event_id}", f"a:{user}", f"h:{user}", *event.counters]
            arguments: list[str | bytes | int] = [
                DEDUPLICATION_TTL_MS,
                event.time_ms,
                event.payload,
                KEEP_RECENT,
                RECENT_TTL_MS,
                event.hides,
                KEEP_HIDDEN,
                HIDDEN_TTL_MS,
                SLOTS,
            ]
            for keep_ms, increments in event.counters.values():
                arguments += [keep_ms, len(increments)]
                for i in increments:
                    counters = len(i.counters)
                    arguments += [i.offset, i.slot_bytes, i.bucket, counters, *i.counters]
            self._record(keys, arguments, client=pipe)
        pipe.incr(_SEQUENCE)
        *recorded, sequence = _guard(pipe.execute)
        return [bool(r) for r in recorded], int(sequence)

    def views(self) -> tuple[int, dict[str, bytes]]:
        """See `RowStore.views`."""
        pipe = self._client.pipeline(transaction=True)
        pipe.get(_EPOCH)
        pipe.hgetall(_VIEWS)
        epoch, stored = _guard(pipe.execute)
        return int(epoch or 0), {name.decode(): value for name, value in stored.items()}

    def put_view(self, name: str, definition: bytes, expected: bytes | None) -> bool:
        """See `RowStore.put_view`."""
        return bool(
            _guard(lambda: self._put_view([_VIEWS, _EPOCH], [name, definition, expected or b""]))
        )

    def close(self) -> None:
        """Close the pool."""
        self._client.close()


def _pack_mget(groups: Sequence[Keys]) -> bytes:
    """MGET in RESP. Joined here because hiredis formats the length of each key by printf."""
    count = 1 + sum(len(ids) for _, ids in groups)
    command = f"*{count}\r\n$4\r\nMGET" + "".join(map(_bulk, groups)) + "\r\n"
    if command.isascii():
        return command.encode()
    return _pack("MGET", *(prefix + i for prefix, ids in groups for i in ids))


def _pack(*command: str | int) -> bytes:
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]


def _bulk(keys: Keys) -> str:
    """RESP bulk strings of ASCII keys."""
    prefix, ids = keys
    heads = {n: f"\r\n${len(prefix) + n}\r\n{prefix}" for n in set(map(len, ids))}
    if len(heads) == 1:
        (head,) = heads.values()
        return head + head.join(ids)
    return "".join(
        chain.from_iterable(zip(map(heads.__getitem__, map(len, ids)), ids, strict=True))
    )


def _guard(call: Callable[[], T]) -> T:
    try:
        return call()
    except AWAY as error:
        raise unavailable(error) from error
