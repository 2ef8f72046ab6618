"""The client: stubs of all services on one channel."""

from typing import Any, Self

import grpc

from madang.candidate.v1 import candidate_pb2_grpc
from madang.eta.v1 import eta_pb2_grpc
from madang.feature.v1 import feature_store_pb2_grpc
from madang.ranker.v1 import ranker_pb2_grpc
from madang.search.v1 import search_pb2_grpc
from madang.targeting.v1 import targeting_pb2_grpc
from madang_client import asynchronous, blocking
from madang_client.policy import options


class Madang:
    """The services of a mesh, called through its gateway.

    Attributes `ranker`, `search`, `eta`, `targeting`, `candidate` and `features` are generated
    stubs: methods are named as in the protos, and typed. A call without `timeout` gets the deadline
    of its kind, is tried again where nobody was reached, carries the request's `user_id` for
    canaries, and raises `MadangError`.

    Args:
        gateway: `host:port`.
        credentials: for TLS, such as `grpc.ssl_channel_credentials()`; None: plain text.
        metadata: sent with every call, such as an authorization header.
    """

    def __init__(
        self,
        gateway: str,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._channel = (
            grpc.secure_channel(gateway, credentials, options())
            if credentials
            else grpc.insecure_channel(gateway, options())
        )
        channel = grpc.intercept_channel(self._channel, blocking.Interceptor(metadata))
        self.ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        self.search = search_pb2_grpc.SearchServiceStub(channel)
        self.eta = eta_pb2_grpc.EtaServiceStub(channel)
        self.targeting = targeting_pb2_grpc.TargetingServiceStub(channel)
        self.candidate = candidate_pb2_grpc.CandidateServiceStub(channel)
        self.features = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class AsyncMadang:
    """`Madang` for asyncio: methods are awaited, streams iterated with `async for`.

    Make it within a running event loop; arguments as those of `Madang`.
    """

    def __init__(
        self,
        gateway: str,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> None:
        between = asynchronous.interceptors(metadata)
        channel = self._channel = (
            grpc.aio.secure_channel(gateway, credentials, options(), interceptors=between)
            if credentials
            else grpc.aio.insecure_channel(gateway, options(), interceptors=between)
        )
        self.ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        self.search = search_pb2_grpc.SearchServiceStub(channel)
        self.eta = eta_pb2_grpc.EtaServiceStub(channel)
        self.targeting = targeting_pb2_grpc.TargetingServiceStub(channel)
        self.candidate = candidate_pb2_grpc.CandidateServiceStub(channel)
        self.features = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()
