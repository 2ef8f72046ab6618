"""Connects to Milvus when it is needed first."""

import threading

import grpc
from pymilvus import MilvusClient, MilvusException

from madang_search.milvus.collection import MilvusCollection, milvus_away
from madang_search.settings import EncoderSettings


class MilvusConnection:
    """The server that settings name. Any thread may use it."""

    def __init__(self, settings: EncoderSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client: MilvusClient | None = None

    def collection(self, name: str, consistency: str = "Bounded") -> MilvusCollection:
        """A collection, there or not. Raises: MadangError STORE_UNAVAILABLE."""
        timeout = self._settings.milvus_timeout_seconds
        return MilvusCollection(self._connected(), name, timeout, consistency)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.close()

    def _connected(self) -> MilvusClient:
        settings = self._settings
        with self._lock:
            if self._client is None:
                try:
                    self._client = MilvusClient(
                        uri=settings.milvus_url,
                        token=settings.milvus_token.get_secret_value(),
                        timeout=settings.milvus_timeout_seconds,
                    )
                except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
                    raise milvus_away(error) from error
            return self._client
