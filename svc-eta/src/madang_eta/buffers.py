"""Time buffers: minutes that people add to arrivals, such as those of an area in a snow storm."""

import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence

import h3

from madang.eta.v1 import eta_pb2 as pb
from madang_eta.kinds import Kind, not_found
from madang_runtime.changelog.compacted import CompactedLog
from madang_runtime.changelog.follower import Follower
from madang_runtime.changelog.table import LogTable
from madang_runtime.errors import MadangError, invalid
from madang_runtime.freshness import position, token
from madang_runtime.times import given_ms, now_ms

BUFFERS, BUFFERS_TOKEN = "eta-buffers", "eb1"
"""The compacted log of buffers, and its part of a freshness token."""
_KEPT_CHANGES = 50
_FINEST, _COARSEST = 10, 3
_LONGEST_MS = 30 * 86_400_000
Buffers = Mapping[str, pb.TimeBuffer]


def scope_key(service: str, area: str = "", shop_id: str = "") -> str:
    """What a scope's buffer is kept under."""
    return f"buffer/{service}/{area}/{shop_id}"


class TimeBuffers:
    """Finds the buffer that counts.

    Args:
        table: of the log; changes lie beside the buffers.
    """

    def __init__(self, table: LogTable[pb.TimeBuffer]) -> None:
        self._table = table

    def minutes(
        self, service: str, shop_ids: Sequence[str], cells: Sequence[str], now: int
    ) -> list[int]:
        """Minutes to add, a row.

        Args:
            service: the kind of service.
            shop_ids: of each row.
            cells: H3 cell of resolution 10 in which each is picked up; "" where it is not known.
            now: milliseconds since the epoch.
        """
        values = self._table.values
        if not values:
            return [0] * len(shop_ids)
        return [
            self._narrowest(values, service, *row, now) for row in zip(shop_ids, cells, strict=True)
        ]

    @staticmethod
    def _narrowest(values: Buffers, service: str, shop_id: str, cell: str, now: int) -> int:
        places = [("", shop_id)] if shop_id else []
        if cell:
            finest = range(_FINEST, _COARSEST - 1, -1)
            places += [(h3.cell_to_parent(cell, resolution), "") for resolution in finest]
        for area, shop in (*places, ("", "")):
            for name in (service, ""):
                found = values.get(scope_key(name, area, shop))
                if found and found.expire_time.ToMilliseconds() > now:
                    return found.minutes
        return 0


class BufferDesk:
    """The domain of GetTimeBuffer and SetTimeBuffer.

    Args:
        log: the compacted log.
        table: what this replica knows of it; `follower` keeps it at the log's state.
        services: kinds of service that there are.
    """

    def __init__(
        self,
        log: CompactedLog,
        table: LogTable[pb.TimeBuffer],
        follower: Follower,
        services: Mapping[str, Kind],
    ) -> None:
        self._log, self._table, self._follower = log, table, follower
        self._services = services

    def get(self, request: pb.GetTimeBufferRequest) -> pb.GetTimeBufferResponse:
        """Answer GetTimeBuffer.

        Raises:
            MadangError: FIELD_INVALID, ETA_SERVICE_NOT_FOUND, NOT_FRESH_YET.
        """
        key = self._key(request.scope, "scope")
        self._follower.reach(position(request.freshness_token, BUFFERS_TOKEN))
        found = self._table.get(key)
        if found and found.expire_time.ToMilliseconds() <= now_ms():
            found = None
        changes = [self._table.values[name] for name in self._changes(key)]
        return pb.GetTimeBufferResponse(buffer=found, changes=changes)

    def set(self, request: pb.SetTimeBufferRequest) -> pb.SetTimeBufferResponse:
        """Answer SetTimeBuffer: the buffer and its entry in the history are written together.

        Raises:
            MadangError: FIELD_INVALID, ETA_SERVICE_NOT_FOUND, STORE_UNAVAILABLE.
        """
        given, now = request.buffer, now_ms()
        key = self._key(given.scope, "buffer.scope")
        stored = pb.TimeBuffer()
        stored.CopyFrom(given)
        stored.set_time.FromMilliseconds(now)
        if given.removed:
            stored.ClearField("expire_time")
            stored.minutes = 0
        elif not now < given_ms(given, "expire_time", 0, "buffer.") <= now + _LONGEST_MS:
            raise invalid("buffer.expire_time", "must be in the future, within 30 days")
        packed = stored.SerializeToString()
        changes: dict[str, bytes | None] = dict.fromkeys(self._changes(key)[_KEPT_CHANGES - 1 :])
        changes[key] = None if given.removed else packed
        changes[f"change/{time.time_ns():020d}-{secrets.token_hex(4)}/{key}"] = packed
        at = self._log.write(changes)
        with contextlib.suppress(MadangError):  # it is written, and will be followed
            self._follower.reach(at)
        return pb.SetTimeBufferResponse(buffer=stored, freshness_token=token(BUFFERS_TOKEN, at))

    def _key(self, scope: pb.BufferScope, field: str) -> str:
        if scope.service and scope.service not in self._services:
            raise not_found(scope.service, self._services)
        return key_of(scope, field)

    def _changes(self, key: str) -> list[str]:
        """The history of a key, newest first."""
        names = self._table.values
        found = (n for n in names if n.startswith("change/") and n.split("/", 2)[2] == key)
        return sorted(found, reverse=True)


def key_of(scope: pb.BufferScope, field: str) -> str:
    """What a scope's buffer is kept under. Raises: MadangError FIELD_INVALID."""
    area = ""
    if scope.area:
        area = h3.int_to_str(scope.area)
        if not h3.is_valid_cell(area) or not _COARSEST <= h3.get_resolution(area) <= _FINEST:
            raise invalid(f"{field}.area", "must be an H3 cell of resolution 3 to 10, or 0")
        if scope.shop_id:
            raise invalid(f"{field}.shop_id", "is not allowed together with an area")
    return scope_key(scope.service, area, scope.shop_id)
