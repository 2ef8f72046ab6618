"""Calls any RPC from JSON, by the server's own reflection."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from madang_gateway.services import SERVICE_HEADER, SERVICES


class CallError(Exception):
    """The RPC can't be found, or its JSON does not fit."""


@dataclass(frozen=True)
class Target:
    """An RPC: the mesh's service, and the gRPC service and method."""

    service: str
    full_name: str
    method: str


def find_rpc(name: str) -> Target:
    """Find `Recommend`, `ranker.Recommend` or `madang.ranker.v1.RankerService/Recommend`.

    Raises:
        CallError: no service fits.
    """
    owner, _, method = name.replace("/", ".").rpartition(".")
    for service, full_name in SERVICES.items():
        if owner in (service, full_name, full_name.rpartition(".")[2]):
            return Target(service, full_name, method)
    raise CallError(f"{name!r}: give SERVICE.METHOD, the service one of {', '.join(SERVICES)}")


class _OneService(grpc.StreamStreamClientInterceptor):
    """Tells the gateway whose reflection is asked for."""

    def __init__(self, service: str) -> None:
        self._service = service

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        metadata = [*(details.metadata or ()), (SERVICE_HEADER, self._service)]
        return continuation(details._replace(metadata=metadata), requests)


def call(gateway: str, target: Target, request_json: str, timeout: float) -> Iterator[str]:
    """Call an RPC through the gateway; its answer as JSON, or each of its answers.

    Raises:
        CallError: the method does not exist, or the JSON does not fit its request.
        grpc.RpcError: the RPC failed.
    """
    with grpc.insecure_channel(gateway) as channel:
        reflecting = grpc.intercept_channel(channel, _OneService(target.service))
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(reflecting))
        method = _method(pool, target)
        try:
            request = json_format.Parse(
                request_json, GetMessageClass(method.input_type)(), descriptor_pool=pool
            )
        except json_format.ParseError as error:
            raise CallError(
                f"the JSON does not fit {method.input_type.full_name}: {error}"
            ) from error
        path = f"/{target.full_name}/{target.method}"
        answer_class = GetMessageClass(method.output_type)
        answers: Iterable[Any]
        if method.client_streaming:
            stub = channel.stream_unary(
                path, type(request).SerializeToString, answer_class.FromString
            )
            answers = [stub(iter([request]), timeout=timeout)]
        elif method.server_streaming:
            streamed = channel.unary_stream(
                path, type(request).SerializeToString, answer_class.FromString
            )
            answers = streamed(request, timeout=timeout)
        else:
            unary = channel.unary_unary(
                path, type(request).SerializeToString, answer_class.FromString
            )
            answers = [unary(request, timeout=timeout)]
        for answer in answers:
            yield json_format.MessageToJson(answer, ensure_ascii=False, descriptor_pool=pool)


def _method(pool: DescriptorPool, target: Target) -> MethodDescriptor:
    service = pool.FindServiceByName(target.full_name)
    if target.method not in service.methods_by_name:
        known = ", ".join(service.methods_by_name)
        raise CallError(f"{target.full_name} has no {target.method!r}; it has {known}")
    return service.methods_by_name[target.method]
