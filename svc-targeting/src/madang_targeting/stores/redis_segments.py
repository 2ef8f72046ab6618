"""Segments in Valkey or Redis: a hash each, changed by a script that knows its version."""

from typing import Any

from madang.targeting.v1.segment_record_pb2 import SegmentRecord
from madang_targeting.segment_store import OPEN, Kept, next_version
from madang_targeting.stores.connection import Connection

# The tag keeps all on one node of a cluster, so that scripts reach them.
_PREFIX = "{targeting}:"
_ALL, _OPEN = f"{_PREFIX}segments", f"{_PREFIX}open"

# KEYS: record, members, all, open. ARGV: id, version seen, version now, payload, when it was asked
# for or "" when nobody need work on it, members.
_PUT = """
if tonumber(redis.call('HGET', KEYS[1], 'version') or '0') ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'record', ARGV[4])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
if ARGV[5] ~= '' then
  redis.call('ZADD', KEYS[4], ARGV[5], ARGV[1])
else
  redis.call('ZREM', KEYS[4], ARGV[1])
end
if ARGV[6] then redis.call('SET', KEYS[2], ARGV[6]) end
return 1
"""


class RedisSegmentStore:
    """Implements `SegmentStore`.

    Args:
        connection: to the store.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._put = connection.client.register_script(_PUT)

    def get(self, segment_id: str) -> Kept | None:
        """See `SegmentStore.get`."""
        found = self._records([segment_id])
        return found[0] if found else None

    def put(self, record: SegmentRecord, seen: int, members: bytes | None = None) -> bool:
        """See `SegmentStore.put`."""
        operation = record.segment.operation
        arguments: list[Any] = [
            record.segment.segment_id,
            seen,
            next_version(seen),
            record.SerializeToString(),
            operation.create_time.ToMilliseconds() if operation.state in OPEN else "",
        ]
        arguments += [] if members is None else [members]
        keys = [*_keys(record.segment.segment_id), _ALL, _OPEN]
        (done,) = self._connection.write(lambda pipe: self._put(keys, arguments, client=pipe))
        return bool(done)

    def delete(self, segment_id: str) -> bool:
        """See `SegmentStore.delete`."""

        def queue(pipe: Any) -> None:
            pipe.delete(*_keys(segment_id))
            pipe.zrem(_ALL, segment_id)
            pipe.zrem(_OPEN, segment_id)

        return bool(self._connection.write(queue)[1])

    def page(self, after: str, limit: int) -> list[Kept]:
        """See `SegmentStore.page`."""
        low = f"({after}" if after else "-"
        (names,) = self._connection.read(lambda pipe: pipe.zrangebylex(_ALL, low, "+", 0, limit))
        return self._records([name.decode() for name in names])

    def open_ids(self) -> list[str]:
        """See `SegmentStore.open_ids`."""
        (names,) = self._connection.read(lambda pipe: pipe.zrange(_OPEN, 0, -1))
        return [name.decode() for name in names]

    def members(self, segment_id: str) -> bytes | None:
        """See `SegmentStore.members`."""
        (found,) = self._connection.read(lambda pipe: pipe.get(_keys(segment_id)[1]))
        packed: bytes | None = found
        return packed

    def close(self) -> None:
        """Close connections."""
        self._connection.close()

    def _records(self, names: list[str]) -> list[Kept]:
        if not names:
            return []
        found = self._connection.read(
            lambda pipe: [pipe.hmget(_keys(name)[0], "record", "version") for name in names]
        )
        return [Kept(SegmentRecord.FromString(r), int(v)) for r, v in found if r is not None]


def _keys(segment_id: str) -> tuple[str, str]:
    return f"{_PREFIX}segment:{segment_id}", f"{_PREFIX}members:{segment_id}"
