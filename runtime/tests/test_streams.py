"""Streamed answers of a real server: errors, spans, a slow or lost reader, places."""

import threading
import time

import grpc
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1 import targeting_pb2_grpc
from madang_runtime.clients import from_rpc_error, open_channel
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.scope import SCOPE
from madang_runtime.server import ServiceHost
from madang_runtime.settings import ServiceSettings

METHOD = "madang.targeting.v1.TargetingService/ListMembers"


class Servicer(targeting_pb2_grpc.TargetingServiceServicer):
    """Does what the segment's name says."""

    def __init__(self) -> None:
        self.sent, self.closed = 0, threading.Event()
        self.remaining = 0.0

    def GetSegment(self, request, context):
        return pb.GetSegmentResponse()

    def ListMembers(self, request, context):
        self.remaining = SCOPE.get().remaining
        if request.segment_id == "none":
            raise MadangError(Code.NOT_FOUND, reason.ERROR_REASON_SEGMENT_NOT_FOUND, "none")
        try:
            for i in range(int(request.segment_id)):
                if i == 3 and request.page_token == "bug":
                    raise ZeroDivisionError
                self.sent += 1
                yield pb.ListMembersResponse(user_ids=["x" * 1000] * 100, page_token=str(i))
        finally:
            self.closed.set()


@pytest.fixture
def running():
    """A host with the servicer, a stub, and the spans it makes."""
    settings = ServiceSettings(
        port=0, threads=2, streams=2, max_queue_seconds=0.2, default_deadline_seconds=1
    )
    host, spans = ServiceHost("test", settings), InMemorySpanExporter()
    host._provider.add_span_processor(SimpleSpanProcessor(spans))
    servicer = Servicer()
    host.register(targeting_pb2_grpc.add_TargetingServiceServicer_to_server, servicer)
    with open_channel(f"127.0.0.1:{host.start()}") as channel:
        yield host, servicer, targeting_pb2_grpc.TargetingServiceStub(channel), spans
    host.stop()


def members(stub, name, token="", **options):
    return stub.ListMembers(pb.ListMembersRequest(segment_id=name, page_token=token), **options)


def failed(stream):
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    return from_rpc_error(caught.value)


def counted(host, code):
    text = generate_latest(host.metrics.registry).decode()
    name = f'madang_rpc_duration_seconds_count{{code="{code}",method="ListMembers"}}'
    return next((float(x.split()[-1]) for x in text.splitlines() if x.startswith(name)), 0.0)


def test_a_stream_is_one_span_and_one_call(running):
    host, servicer, stub, spans = running
    metadata = (("traceparent", f"00-{'1' * 32}-{'2' * 16}-01"),)
    assert len(list(members(stub, "5", metadata=metadata))) == 5
    (span,) = spans.get_finished_spans()
    assert (span.name, f"{span.context.trace_id:032x}") == (METHOD, "1" * 32)
    assert counted(host, "OK") == 1
    assert servicer.remaining > 1e6, "a stream may take longer than a call"
    assert len(list(members(stub, "5", timeout=5))) == 5
    assert servicer.remaining < 10


def test_errors_before_and_within_a_stream_have_their_reasons(running):
    host, _, stub, _ = running
    assert failed(members(stub, "none")).reason_name == "SEGMENT_NOT_FOUND"
    assert failed(members(stub, "")).about == {"field": "segment_id"}
    came = []
    with pytest.raises(grpc.RpcError) as caught:
        came.extend(members(stub, "9", "bug"))
    assert from_rpc_error(caught.value).reason_name == "INTERNAL"
    assert [counted(host, c) for c in ("NOT_FOUND", "INVALID_ARGUMENT", "INTERNAL")] == [1, 1, 1]


def test_a_reader_that_leaves_ends_the_stream(running):
    host, servicer, stub, _ = running
    stream = members(stub, "100000")
    next(stream)
    stream.cancel()
    assert servicer.closed.wait(5)
    assert servicer.sent < 100_000
    until = time.monotonic() + 5
    while not counted(host, "CANCELLED") and time.monotonic() < until:
        time.sleep(0.05)
    assert counted(host, "CANCELLED") == 1


def test_a_reader_that_sleeps_loses_its_place(running):
    _, servicer, stub, _ = running
    stream = members(stub, "100000")
    next(stream)
    assert servicer.closed.wait(5), "after the default deadline"
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() == grpc.StatusCode.CANCELLED


def test_streams_take_no_thread_from_calls(running):
    _, _, stub, _ = running
    held = [members(stub, "100000") for _ in range(2)]
    for stream in held:
        next(stream)
    assert stub.GetSegment(pb.GetSegmentRequest(segment_id="a"), timeout=1)
    refused = failed(members(stub, "1", timeout=5))
    assert refused.reason_name == "OVERLOADED"
    for stream in held:
        stream.cancel()
