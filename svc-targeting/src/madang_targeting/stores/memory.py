"""Stores in memory, for tests and small runs."""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from madang.targeting.v1.segment_record_pb2 import SegmentRecord
from madang_targeting.caps import Bools, Caps, Sends
from madang_targeting.results import Event
from madang_targeting.segment_store import OPEN, Kept, next_version


class MemoryCapStore:
    """Implements `CapStore`."""

    def __init__(self) -> None:
        self._sent: dict[str, list[tuple[str, str, int]]] = {}
        self._lock = threading.Lock()

    def allowed(self, caps: Caps, sends: Sends) -> Bools:
        """See `CapStore.allowed`."""
        with self._lock:
            return np.array([self._may(caps, sends, user) for user in sends.user_ids], bool)

    def record(self, caps: Caps, sends: Sends) -> Bools:
        """See `CapStore.record`."""
        with self._lock:
            found = np.array([self._may(caps, sends, user) for user in sends.user_ids], bool)
            for user, may in zip(sends.user_ids, found.tolist(), strict=True):
                own = self._sent.setdefault(user, [])
                oldest = min(sends.time, int(time.time())) - caps.keep_seconds()
                own[:] = [s for s in own if s[2] > oldest]
                if may and all(s[0] != sends.campaign_id for s in own):
                    own.append((sends.campaign_id, sends.channel, sends.time))
            return found

    def _may(self, caps: Caps, sends: Sends, user: str) -> bool:
        own = self._sent.get(user, [])
        if any(s[0] == sends.campaign_id for s in own):
            return True
        return all(
            sum(
                cap.channel in ("", channel) and abs(when - sends.time) < cap.seconds
                for _, channel, when in own
            )
            < cap.most
            for cap in caps.on(sends.channel)
        )


class MemorySegmentStore:
    """Implements `SegmentStore`."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, int]] = {}
        self._members: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, segment_id: str) -> Kept | None:
        """See `SegmentStore.get`."""
        with self._lock:
            found = self._kept.get(segment_id)
        return Kept(SegmentRecord.FromString(found[0]), found[1]) if found else None

    def put(self, record: SegmentRecord, seen: int, members: bytes | None = None) -> bool:
        """See `SegmentStore.put`."""
        name = record.segment.segment_id
        with self._lock:
            if self._kept.get(name, (b"", 0))[1] != seen:
                return False
            self._kept[name] = record.SerializeToString(), next_version(seen)
            if members is not None:
                self._members[name] = members
            return True

    def delete(self, segment_id: str) -> bool:
        """See `SegmentStore.delete`."""
        with self._lock:
            self._members.pop(segment_id, None)
            return self._kept.pop(segment_id, None) is not None

    def page(self, after: str, limit: int) -> list[Kept]:
        """See `SegmentStore.page`."""
        names = sorted(name for name in self._kept if name > after)[:limit]
        return [kept for name in names if (kept := self.get(name))]

    def open_ids(self) -> list[str]:
        """See `SegmentStore.open_ids`."""
        kept = [k.record.segment.operation for name in list(self._kept) if (k := self.get(name))]
        waiting = [o for o in kept if o.state in OPEN]
        return [o.segment_id for o in sorted(waiting, key=lambda o: o.create_time.ToMilliseconds())]

    def members(self, segment_id: str) -> bytes | None:
        """See `SegmentStore.members`."""
        return self._members.get(segment_id)

    def close(self) -> None:
        """Nothing to close."""


class MemoryResultStore:
    """Implements `ResultStore`; nothing is forgotten."""

    def __init__(self) -> None:
        self._users: dict[str, dict[Event, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._channels: dict[str, str] = {}

    def append(
        self, campaign_id: str, event: Event, user_ids: Sequence[str], channel: str = ""
    ) -> None:
        """See `ResultStore.append`."""
        self._users[campaign_id][event].update(user_ids)
        if channel:
            self._channels[campaign_id] = channel

    def channel(self, campaign_id: str) -> str:
        """See `ResultStore.channel`."""
        return self._channels.get(campaign_id, "")

    def read(self, campaign_id: str) -> dict[Event, set[str]]:
        """See `ResultStore.read`."""
        found = self._users.get(campaign_id, {})
        return {event: set(users) for event, users in found.items()}

    def known(self, campaign_ids: Sequence[str]) -> list[bool]:
        """See `ResultStore.known`."""
        return [campaign in self._users for campaign in campaign_ids]

    def close(self) -> None:
        """Nothing to close."""
