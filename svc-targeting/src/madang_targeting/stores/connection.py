"""A connection to Valkey or Redis whose writes are on disk when they are answered."""

from collections.abc import Callable
from typing import Any

import redis

from madang_runtime.changelog.errors import guarded, not_synced


class Connection:
    """What all stores of the service share.

    Args:
        url: redis:// or rediss://. The server must keep an append-only file.
        timeout: seconds to connect or wait for a reply.
        synced: wait until writes are on disk (WAITAOF), for a server whose `appendfsync` is not
            `always`.
    """

    def __init__(self, url: str, timeout: float, *, synced: bool = False) -> None:
        self.client: Any = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout
        )
        self._timeout_ms = round(timeout * 1000)
        self._synced = synced

    def read(self, queue: Callable[[Any], object]) -> list[Any]:
        """The replies to commands that are queued on a pipeline, in a round trip.

        Raises:
            MadangError: STORE_UNAVAILABLE.
        """
        pipe = self.client.pipeline(transaction=False)
        queue(pipe)
        replies: list[Any] = guarded(pipe.execute)
        return replies

    def write(self, queue: Callable[[Any], object]) -> list[Any]:
        """The same for what changes anything.

        Raises:
            MadangError: STORE_UNAVAILABLE; it may have been written all the same.
        """
        pipe = self.client.pipeline(transaction=False)
        queue(pipe)
        if self._synced:  # on the connection that wrote
            pipe.execute_command("WAITAOF", 1, 0, self._timeout_ms)
        replies: list[Any] = guarded(pipe.execute)
        if self._synced and not replies.pop()[0]:
            raise not_synced()
        return replies

    def close(self) -> None:
        """Close connections."""
        self.client.close()
