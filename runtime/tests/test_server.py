"""Handlers, admission, deadlines, health, reflection, channelz and telemetry of a real server."""

import json
import logging
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from madang.feature.v1 import feature_store_pb2 as pb
from madang.feature.v1 import feature_store_pb2_grpc
from madang_runtime.clients import Remote, from_rpc_error, open_channel
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.scope import SCOPE, CallScope
from madang_runtime.server import LIVE, ServiceHost
from madang_runtime.settings import ServiceSettings
from madang_runtime.telemetry import JsonFormatter, parent_from

SERVICE = "madang.feature.v1.FeatureStoreService"


class Servicer(feature_store_pb2_grpc.FeatureStoreServiceServicer):
    """Does what the view's name says."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.scopes: list[CallScope] = []

    def GetFeatureView(self, request, context):
        self.scopes.append(SCOPE.get())
        if request.name == "known_error":
            raise MadangError(
                Code.NOT_FOUND, reason.ERROR_REASON_FEATURE_VIEW_NOT_FOUND, "none", view="x"
            )
        if request.name == "bug":
            raise ZeroDivisionError
        if request.name == "slow":
            self.release.wait(5)
        return pb.GetFeatureViewResponse(view={"name": request.name})

    def StreamWriteFeatures(self, request_iterator, context):
        return pb.StreamWriteFeaturesResponse(rows_written=sum(1 for _ in request_iterator))


@pytest.fixture
def running():
    """A host with the servicer, its channel, and the spans it makes."""
    settings = ServiceSettings(
        port=0, threads=2, max_waiting=4, max_queue_seconds=0.2, default_deadline_seconds=2
    )
    host = ServiceHost("test", settings)
    spans = InMemorySpanExporter()
    host._provider.add_span_processor(SimpleSpanProcessor(spans))
    servicer = Servicer()
    host.register(feature_store_pb2_grpc.add_FeatureStoreServiceServicer_to_server, servicer)
    port = host.start()
    with open_channel(f"127.0.0.1:{port}") as channel:
        yield host, servicer, channel, spans
    servicer.release.set()
    host.stop()


def get(channel, name, **options):
    stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    return stub.GetFeatureView(pb.GetFeatureViewRequest(name=name), timeout=5, **options)


def details(
    error: grpc.RpcError,
) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo]:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(info) or detail.Unpack(retry)
    return info, retry


def failed(channel, name, **options) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        get(channel, name, **options)
    return caught.value


def test_errors_carry_reason_and_field(running):
    _, _, channel, _ = running
    error = failed(channel, "known_error")
    info, _ = details(error)
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "FEATURE_VIEW_NOT_FOUND",
        "madang",
        {"view": "x"},
    )
    again = from_rpc_error(error)
    assert (again.code, again.reason_name, again.about) == (
        Code.NOT_FOUND,
        "FEATURE_VIEW_NOT_FOUND",
        {"view": "x"},
    )


def test_a_bug_is_internal_and_says_nothing_of_the_inside(running):
    _, _, channel, _ = running
    error = failed(channel, "bug")
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "ZeroDivision" not in error.details()


def test_limits_are_enforced_on_unary_and_streamed_requests(running):
    _, servicer, channel, _ = running
    assert failed(channel, "").code() == grpc.StatusCode.INVALID_ARGUMENT
    assert not servicer.scopes, "refused before any work"
    stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.StreamWriteFeatures(iter([pb.StreamWriteFeaturesRequest()]), timeout=5)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_deadlines_are_capped_and_given_when_missing(running):
    _, servicer, channel, _ = running
    get(channel, "a")
    stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    stub.GetFeatureView(pb.GetFeatureViewRequest(name="b"))
    stub.GetFeatureView(pb.GetFeatureViewRequest(name="c"), timeout=0.5)
    now = time.monotonic()
    left = [scope.deadline - now for scope in servicer.scopes]
    assert 1 < left[0] <= 2
    assert 1 < left[1] <= 2
    assert left[2] <= 0.51


def test_outgoing_calls_take_the_shorter_of_deadline_and_cap(running):
    host, servicer, channel, _ = running
    stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    remote = Remote(stub.GetFeatureView, "call", 0.2, host.tracer)
    with pytest.raises(MadangError) as caught:
        remote(pb.GetFeatureViewRequest(name="slow"))
    assert caught.value.code == Code.DEADLINE_EXCEEDED
    SCOPE.set(CallScope(time.monotonic() - 1))
    with pytest.raises(MadangError) as caught:
        remote(pb.GetFeatureViewRequest(name="a"))
    assert caught.value.reason == reason.ERROR_REASON_DEADLINE_EXCEEDED
    SCOPE.set(CallScope())
    servicer.release.set()


def test_a_dead_service_is_unavailable(running):
    host, _, _, _ = running
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with open_channel(f"127.0.0.1:{free.getsockname()[1]}") as channel:
            stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
            remote = Remote(stub.GetFeatureView, "call", 1, host.tracer)
            with pytest.raises(MadangError) as caught:
                remote(pb.GetFeatureViewRequest(name="a"))
    assert caught.value.code == Code.UNAVAILABLE


def test_overload_is_refused_with_a_time_to_retry(running):
    _, servicer, channel, _ = running
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(lambda: get(channel, "slow")) for _ in range(12)]
        time.sleep(0.5)
        servicer.release.set()
        errors = [e for c in calls if (e := c.exception())]
    assert errors, "two threads and a short queue can't take twelve"
    assert {e.code() for e in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    info, retry = details(errors[0])
    assert info.reason == "OVERLOADED"
    assert retry.retry_delay.ToMilliseconds() >= 100
    assert get(channel, "a").view.name == "a", "it recovers"


def test_spans_continue_the_callers_trace_and_the_user_travels(running):
    host, servicer, channel, spans = running
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    metadata = (("traceparent", f"00-{trace_id}-{span_id}-01"), ("x-madang-user", "u7"))
    get(channel, "a", metadata=metadata)
    (span,) = spans.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == trace_id
    assert f"{span.parent.span_id:016x}" == span_id
    assert span.name == f"{SERVICE}/GetFeatureView"
    assert servicer.scopes[-1].user == "u7"
    SCOPE.set(CallScope(user="u8"))
    stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    Remote(stub.GetFeatureView, "call", 1, host.tracer)(pb.GetFeatureViewRequest(name="a"))
    SCOPE.set(CallScope())
    assert servicer.scopes[-1].user == "u8"


def test_an_unsampled_caller_is_respected(running):
    _, _, channel, spans = running
    get(channel, "a", metadata=(("traceparent", f"00-{'1' * 32}-{'2' * 16}-00"),))
    assert not spans.get_finished_spans()


@pytest.mark.parametrize("header", ["", "00-zz-11-01", "nonsense", "00-" + "0" * 32])
def test_a_broken_traceparent_is_ignored(header):
    assert parent_from([("traceparent", header)]) is None


def test_text_that_is_not_utf8_is_refused_with_a_reason(running):
    _, _, channel, _ = running
    call = channel.unary_unary(f"/{SERVICE}/GetFeatureView")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\x0a\x02\xff\xfe", timeout=5)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details(caught.value)[0].metadata["field"] == "request"


def test_streams_take_no_thread_from_other_calls_and_are_cancelled_when_silent(running):
    host, _, channel, _ = running
    silent = threading.Event()

    def nothing():
        silent.wait(10)
        yield from ()

    stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    streams = [stub.StreamWriteFeatures.future(nothing()) for _ in range(host.settings.streams)]
    time.sleep(0.3)
    assert get(channel, "a").view.name == "a"
    assert not any(s.done() for s in streams)
    refused = stub.StreamWriteFeatures.future(nothing()).exception()  # waited too long for a place
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert {s.exception().code() for s in streams} == {grpc.StatusCode.CANCELLED}
    silent.set()


def test_a_user_that_is_not_ascii_is_sent_on(running):
    host, servicer, channel, _ = running
    stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    SCOPE.set(CallScope(user="%EB%AF%BC"))
    Remote(stub.GetFeatureView, "call", 1, host.tracer)(pb.GetFeatureViewRequest(name="a"))
    SCOPE.set(CallScope())
    assert servicer.scopes[-1].user == "%EB%AF%BC"


def test_long_messages_are_cut():
    long = MadangError(Code.NOT_FOUND, reason.ERROR_REASON_FEATURE_NOT_FOUND, "x" * 100_000)
    assert len(long.message) < 2000


def test_health_follows_readiness_and_stopping(running):
    host, _, channel, _ = running
    health = health_pb2_grpc.HealthStub(channel)

    def status(service: str = "") -> int:
        return health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status

    serving = health_pb2.HealthCheckResponse
    assert status() == status(SERVICE) == serving.SERVING
    host.set_ready("model", False)
    assert status() == status(SERVICE) == serving.NOT_SERVING
    host.set_ready("model", True)
    assert status() == serving.SERVING


def test_probes_are_answered_from_before_the_models_to_the_end():
    """On a port of their own: alive throughout, ready only while calls are welcome."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host = ServiceHost("test", ServiceSettings(port=0, health_port=port, drain_seconds=1.0))
    serving = health_pb2.HealthCheckResponse.SERVING
    with open_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def says(service: str) -> bool:
            request = health_pb2.HealthCheckRequest(service=service)
            return health.Check(request, timeout=5).status == serving

        host.set_ready("model", False)
        assert (says(LIVE), says("")) == (True, False)
        host.start()
        assert (says(LIVE), says("")) == (True, False)
        host.set_ready("model", True)
        assert (says(LIVE), says("")) == (True, True)
        stopping = threading.Thread(target=host.stop)
        stopping.start()
        time.sleep(0.3)
        assert (says(LIVE), says("")) == (True, False)
        stopping.join()
        with pytest.raises(grpc.RpcError):
            health.Check(health_pb2.HealthCheckRequest(), timeout=1)


def test_reflection_and_channelz_are_served(running):
    _, _, channel, _ = running
    assert SERVICE in ProtoReflectionDescriptorDatabase(channel).get_services()
    servers = channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest())
    assert len(servers.server) >= 1


def test_metrics_count_by_method_and_code(running):
    host, _, channel, _ = running
    get(channel, "a")
    failed(channel, "known_error")
    count = host.metrics.registry.get_sample_value
    for code in ("OK", "NOT_FOUND"):
        labels = {"method": "GetFeatureView", "code": code}
        assert count("madang_rpc_duration_seconds_count", labels) == 1


def test_running_calls_end_before_the_server_does():
    host = ServiceHost("test", ServiceSettings(port=0, grace_seconds=3))
    servicer = Servicer()
    host.register(feature_store_pb2_grpc.add_FeatureStoreServiceServicer_to_server, servicer)
    with open_channel(f"127.0.0.1:{host.start()}") as channel, ThreadPoolExecutor(2) as pool:
        call = pool.submit(lambda: get(channel, "slow"))
        time.sleep(0.3)
        stop = pool.submit(host.stop)
        time.sleep(0.2)
        servicer.release.set()
        assert call.result(5).view.name == "slow"
        stop.result(5)


def test_logs_are_json_with_the_exception():
    try:
        raise ValueError("이유")
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            "x", logging.ERROR, "f", 1, "it %s", ("broke",), sys.exc_info()
        )
    entry = json.loads(JsonFormatter("svc").format(record))
    assert (entry["message"], entry["service"], entry["level"]) == ("it broke", "svc", "ERROR")
    assert "이유" in entry["exception"]


def test_workers_share_one_port_and_end_together(tmp_path):
    program = tmp_path / "serve.py"
    program.write_text(
        textwrap.dedent(
            """
            import os
            from madang.feature.v1 import feature_store_pb2 as pb, feature_store_pb2_grpc
            from madang_runtime.server import run
            from madang_runtime.settings import ServiceSettings

            class Servicer(feature_store_pb2_grpc.FeatureStoreServiceServicer):
                def GetFeatureView(self, request, context):
                    return pb.GetFeatureViewResponse(view={"name": str(os.getpid())})

            def wire(host, settings):
                add = feature_store_pb2_grpc.add_FeatureStoreServiceServicer_to_server
                host.register(add, Servicer())

            run("test", ServiceSettings(), wire)
            """
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"PORT": str(port), "WORKERS": "2", "PATH": "/usr/bin"}
    process = subprocess.Popen([sys.executable, str(program)], env=environment)
    seen = set()
    try:
        until = time.monotonic() + 30
        while len(seen) < 2 and time.monotonic() < until:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                try:
                    seen.add(get(channel, "a", wait_for_ready=True).view.name)
                except grpc.RpcError:
                    time.sleep(0.1)
        assert len(seen) == 2
        assert str(process.pid) not in seen
    finally:
        process.terminate()
        assert process.wait(15) == 0
