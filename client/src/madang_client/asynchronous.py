"""Around every call of the async client."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from grpc import aio

from madang_client.details import completed
from madang_client.errors import MadangError

_Metadata = tuple[tuple[str, str], ...]


def interceptors(metadata: _Metadata) -> Sequence[aio.ClientInterceptor]:
    """They complete calls and raise `MadangError`. grpcio wants one a kind of call."""
    return [_UnaryUnary(metadata), _StreamUnary(metadata), _UnaryStream(metadata)]


class _Interceptor:
    def __init__(self, metadata: _Metadata) -> None:
        self._metadata = metadata

    async def _answer(self, continuation: Any, details: Any, sent: Any, request: Any) -> Any:
        call = await continuation(completed(details, request, self._metadata), sent)
        try:
            await call
        except aio.AioRpcError as error:
            raise MadangError(error) from error
        return call


class _UnaryUnary(_Interceptor, aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await self._answer(continuation, details, request, request)


class _StreamUnary(_Interceptor, aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await self._answer(continuation, details, requests, None)


class _UnaryStream(_Interceptor, aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return _answers(await continuation(completed(details, request, self._metadata), request))


async def _answers(call: Any) -> AsyncIterator[Any]:
    try:
        async for answer in call:
            yield answer
    except grpc.RpcError as error:
        raise MadangError(error) from error
