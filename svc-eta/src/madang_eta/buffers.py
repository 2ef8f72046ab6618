"""Time buffers: minutes that people add to arrivals, such as those of an area in a snow storm."""

import contextlib
import secrets
import time
from collections.abc import Mapping
from typing import NamedTuple

import h3

from madang.eta.v1 import eta_pb2 as pb
from madang_eta.kinds import Kind, not_found
from madang_runtime.changelog.compacted import CompactedLog
from madang_runtime.changelog.follower import Follower
from madang_runtime.errors import MadangError, invalid
from madang_runtime.freshness import position, token
from madang_runtime.times import given_ms, now_ms

BUFFERS, BUFFERS_TOKEN = "eta-buffers", "eb1"
"""The compacted log of buffers, and its part of a freshness token."""
_KEPT_CHANGES = 50
_FINEST, _COARSEST = 10, 3
_LONGEST_MS = 30 * 86_400_000
_KEPT_MS = 90 * 86_400_000
_BUFFER, _CHANGE = "buffer", "change"
"""What the log's keys begin with: buffer/SCOPE, and change/WHEN/SCOPE."""


def scope_key(service: str, area: str = "", shop_id: str = "") -> str:
    """What a scope's buffer is kept under."""
    return f"{service}/{area}/{shop_id}"


class _Kept(NamedTuple):
    """What is known of the log; replaced as a whole, never changed.

    Attributes:
        buffers: by scope.
        history: by scope, of each change the log's key and what was set, newest first.
    """

    buffers: Mapping[str, pb.TimeBuffer]
    history: Mapping[str, list[tuple[str, pb.TimeBuffer]]]


class TimeBuffers:
    """The log in memory; fed by a `Follower`, read by any thread."""

    def __init__(self) -> None:
        self.kept = _Kept({}, {})

    def apply(self, changed: Mapping[str, bytes | None], anew: bool) -> None:
        """Take payloads by key; None removes one."""
        buffers = {} if anew else dict(self.kept.buffers)
        history = {} if anew else {key: dict(h) for key, h in self.kept.history.items()}
        for key, payload in changed.items():
            part, _, scope = key.partition("/")
            own = buffers
            if part == _CHANGE:
                scope = scope.partition("/")[2]
                own = history.setdefault(scope, {})
            name = key if part == _CHANGE else scope
            own.pop(name, None)
            if payload is not None:
                own[name] = pb.TimeBuffer.FromString(payload)
        ordered = {key: sorted(h.items(), reverse=True, key=_name) for key, h in history.items()}
        self.kept = _Kept(buffers, {key: h for key, h in ordered.items() if h})

    def any(self) -> bool:
        """Whether there is any buffer, expired or not."""
        return bool(self.kept.buffers)

    def minutes(self, service: str, shop_id: str, cell: str, when: int) -> int:
        """Minutes to add to an order.

        Args:
            service: the kind of service.
            shop_id: "" where it is not known.
            cell: H3 cell of resolution 10 in which it is picked up; "" where that is not known.
            when: it is placed, milliseconds since the epoch.
        """
        buffers = self.kept.buffers
        places = [("", shop_id)] if shop_id else []
        if cell:
            finest = range(_FINEST, _COARSEST - 1, -1)
            places += [(h3.cell_to_parent(cell, resolution), "") for resolution in finest]
        for area, shop in (*places, ("", "")):
            for name in (service, ""):
                found = buffers.get(scope_key(name, area, shop))
                if found and found.expire_time.ToMilliseconds() > when:
                    return found.minutes
        return 0


def _name(change: tuple[str, pb.TimeBuffer]) -> str:
    return change[0]


class BufferDesk:
    """The domain of GetTimeBuffer and SetTimeBuffer.

    Args:
        log: the compacted log.
        buffers: what this replica knows of it; `follower` keeps it at the log's state.
        services: kinds of service that there are.
    """

    def __init__(
        self,
        log: CompactedLog,
        buffers: TimeBuffers,
        follower: Follower,
        services: Mapping[str, Kind],
    ) -> None:
        self._log, self._buffers, self._follower = log, buffers, follower
        self._services = services

    def get(self, request: pb.GetTimeBufferRequest) -> pb.GetTimeBufferResponse:
        """Answer GetTimeBuffer.

        Raises:
            MadangError: FIELD_INVALID, ETA_SERVICE_NOT_FOUND, NOT_FRESH_YET.
        """
        key = self._key(request.scope, "scope")
        self._follower.reach(position(request.freshness_token, BUFFERS_TOKEN))
        kept = self._buffers.kept
        found = kept.buffers.get(key)
        if found and found.expire_time.ToMilliseconds() <= now_ms():
            found = None
        changes = [change for _, change in kept.history.get(key, [])]
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
        changes: dict[str, bytes | None] = dict.fromkeys(self._outdated(key, now))
        changes[f"{_BUFFER}/{key}"] = None if given.removed else packed
        stamp = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        changes[f"{_CHANGE}/{stamp}/{key}"] = packed
        at = self._log.write(changes)
        with contextlib.suppress(MadangError):  # it is written, and will be followed
            self._follower.reach(at)
        return pb.SetTimeBufferResponse(buffer=stored, freshness_token=token(BUFFERS_TOKEN, at))

    def _key(self, scope: pb.BufferScope, field: str) -> str:
        if scope.service and scope.service not in self._services:
            raise not_found(scope.service, self._services)
        return key_of(scope, field)

    def _outdated(self, key: str, now: int) -> list[str]:
        """Keys of the log that go with the next change: buffers that have expired, changes of the
        scope beyond those that are kept, and of any scope those of long ago."""
        kept = self._buffers.kept
        found = [
            f"{_BUFFER}/{scope}"
            for scope, buffer in kept.buffers.items()
            if buffer.expire_time.ToMilliseconds() <= now
        ]
        found += [name for name, _ in kept.history.get(key, [])[_KEPT_CHANGES - 1 :]]
        for history in kept.history.values():
            found += [n for n, c in history if c.set_time.ToMilliseconds() < now - _KEPT_MS]
        return list(dict.fromkeys(found))


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
