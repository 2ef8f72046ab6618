"""Caps in memory, for tests and small runs."""

import threading

import numpy as np

from madang_targeting.caps import Bools, Caps, Sends


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
                own[:] = [s for s in own if s[2] > sends.time - caps.keep_seconds()]
                if may and all(s[0] != sends.campaign_id for s in own):
                    own.append((sends.campaign_id, sends.channel, sends.time))
            return found

    def _may(self, caps: Caps, sends: Sends, user: str) -> bool:
        own = self._sent.get(user, [])
        if any(s[0] == sends.campaign_id for s in own):
            return True
        return all(
            sum(
                cap.channel in ("", channel) and time > sends.time - cap.seconds
                for _, channel, time in own
            )
            < cap.most
            for cap in caps.on(sends.channel)
        )
