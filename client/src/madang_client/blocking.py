"""Around every call of the sync client."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from madang_client.details import completed
from madang_client.errors import MadangError

_Continuation = Callable[[Any, Any], Any]


class Interceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    """Completes calls, and raises `MadangError`."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def intercept_unary_unary(self, continuation: _Continuation, details: Any, request: Any) -> Any:
        return _raised(continuation(completed(details, request, self._metadata), request))

    def intercept_stream_unary(
        self, continuation: _Continuation, details: Any, requests: Any
    ) -> Any:
        return _raised(continuation(completed(details, None, self._metadata), requests))

    def intercept_unary_stream(
        self, continuation: _Continuation, details: Any, request: Any
    ) -> Any:
        return _Answers(continuation(completed(details, request, self._metadata), request))


def _raised(outcome: Any) -> Any:
    """The outcome of a call; that of a future is not there yet."""
    if outcome.done() and isinstance(outcome, grpc.RpcError):
        raise MadangError(outcome) from outcome
    return outcome


class _Answers:
    """A stream of answers, and a `grpc.Call` like the one it is from."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise MadangError(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)
