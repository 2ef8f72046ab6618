"""Deadlines, retries, headers and errors of calls, against a server that notes what it gets."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from madang.feature.v1 import feature_store_pb2 as f
from madang.feature.v1 import feature_store_pb2_grpc
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang.targeting.v1 import targeting_pb2, targeting_pb2_grpc
from madang_client import AsyncMadang, Madang, MadangError, apages, pages
from madang_runtime.errors import Code, invalid, reason
from madang_runtime.errors import MadangError as ServerError
from madang_runtime.handlers import abort


class Ranker(ranker_pb2_grpc.RankerServiceServicer):
    """Fails `failures` times before it answers."""

    def __init__(self):
        self.failures, self.seen = 0, []

    def Recommend(self, request, context):
        self.seen.append((context.time_remaining(), dict(context.invocation_metadata())))
        if len(self.seen) <= self.failures:
            context.abort(grpc.StatusCode.UNAVAILABLE, "nobody is here")
        if request.page_size > 100:
            abort(context, invalid("page_size", "is 101, must be at most 100"))
        return ranker_pb2.RecommendResponse(request_id=request.user_id)

    def RecordFeedback(self, request, context):
        self.seen.append((context.time_remaining(), {}))
        error = ServerError(
            Code.RESOURCE_EXHAUSTED, reason.ERROR_REASON_OVERLOADED, "too much", retry_after=0.25
        )
        abort(context, error)


class Targeting(targeting_pb2_grpc.TargetingServiceServicer):
    """Three pages, and a stream that breaks."""

    def ListSegments(self, request, context):
        at = int(request.page_token or 0)
        segment = targeting_pb2.Segment(segment_id=f"s{at}")
        token = str(at + 1) if at < 2 else ""
        return targeting_pb2.ListSegmentsResponse(segments=[segment], next_page_token=token)

    def ListMembers(self, request, context):
        yield targeting_pb2.ListMembersResponse(user_ids=["u1"])
        abort(context, invalid("segment_id", "is gone"))


class Features(feature_store_pb2_grpc.FeatureStoreServiceServicer):
    """Counts a stream's messages."""

    def StreamWriteFeatures(self, requests, context):
        rows = sum(1 for _ in requests)
        if rows > 2:
            abort(context, invalid("write", "is too much"))
        return f.StreamWriteFeaturesResponse(rows_written=rows)


@pytest.fixture
def ranker():
    return Ranker()


@pytest.fixture
def address(ranker):
    server = grpc.server(ThreadPoolExecutor(4))
    ranker_pb2_grpc.add_RankerServiceServicer_to_server(ranker, server)
    targeting_pb2_grpc.add_TargetingServiceServicer_to_server(Targeting(), server)
    feature_store_pb2_grpc.add_FeatureStoreServiceServicer_to_server(Features(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


def blocking(address, call):
    with Madang(address, metadata=(("authorization", "Bearer x"),)) as madang:
        return call(madang)


def awaited(address, call):
    async def run():
        async with AsyncMadang(address, metadata=(("authorization", "Bearer x"),)) as madang:
            return await call(madang)

    return asyncio.run(run())


both = pytest.mark.parametrize("calling", [blocking, awaited])


def request(**fields):
    return ranker_pb2.RecommendRequest(user_id="u7", **fields)


@both
def test_a_call_carries_a_deadline_the_user_and_metadata(address, ranker, calling):
    answer = calling(address, lambda m: m.ranker.Recommend(request()))
    assert answer.request_id == "u7"
    left, metadata = ranker.seen[0]
    assert 0.5 < left <= 1.01  # gRPC sends hundredths of a second, rounded up
    assert metadata["x-madang-user"] == "u7"
    assert metadata["authorization"] == "Bearer x"


@both
def test_what_a_caller_gives_is_kept(address, ranker, calling):
    header = (("x-madang-user", "someone"),)
    calling(address, lambda m: m.ranker.Recommend(request(), timeout=9, metadata=header))
    left, metadata = ranker.seen[0]
    assert left > 8
    assert metadata["x-madang-user"] == "someone"


@both
def test_a_call_that_found_nobody_is_tried_again(address, ranker, calling):
    ranker.failures = 2
    assert calling(address, lambda m: m.ranker.Recommend(request())).request_id == "u7"
    assert len(ranker.seen) == 3


@both
def test_it_is_not_tried_for_ever(address, ranker, calling):
    ranker.failures = 9
    with pytest.raises(MadangError, match="UNAVAILABLE: nobody is here") as caught:
        calling(address, lambda m: m.ranker.Recommend(request()))
    assert (len(ranker.seen), caught.value.reason) == (4, "")


@both
def test_an_error_says_why_and_is_final(address, ranker, calling):
    with pytest.raises(MadangError) as caught:
        calling(address, lambda m: m.ranker.Recommend(request(page_size=101)))
    error = caught.value
    assert (error.code(), error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert error.about == {"field": "page_size"}
    assert error.retry_after is None
    assert str(error) == ("INVALID_ARGUMENT FIELD_INVALID: page_size: is 101, must be at most 100")
    assert len(ranker.seen) == 1


@both
def test_overload_says_when_to_come_again(address, ranker, calling):
    with pytest.raises(MadangError) as caught:
        calling(address, lambda m: m.ranker.RecordFeedback(ranker_pb2.RecordFeedbackRequest()))
    assert caught.value.retry_after == 0.25
    assert ranker.seen[0][0] > 1  # a write has longer


@both
def test_an_error_is_one_of_grpcs_too(address, ranker, calling):
    with pytest.raises(grpc.RpcError):
        calling(address, lambda m: m.ranker.Recommend(request(page_size=101)))


def test_nobody_there_at_all():
    with pytest.raises(MadangError) as caught:
        blocking("127.0.0.1:1", lambda m: m.ranker.Recommend(request(), timeout=0.5))
    assert caught.value.status in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )


def test_a_future_is_grpcs_own(address):
    with Madang(address) as madang:
        assert madang.ranker.Recommend.future(request()).result().request_id == "u7"


def test_pages_are_read_to_the_last(address):
    async def all_pages(madang):
        asked = targeting_pb2.ListSegmentsRequest()
        return [p async for p in apages(madang.targeting.ListSegments, asked)]

    with Madang(address) as madang:
        found = list(pages(madang.targeting.ListSegments, targeting_pb2.ListSegmentsRequest()))
    assert [p.segments[0].segment_id for p in found] == ["s0", "s1", "s2"]
    assert awaited(address, all_pages) == found


def test_a_stream_gives_what_came_and_then_its_error(address):
    got = []
    members = targeting_pb2.ListMembersRequest(segment_id="s")

    async def read(madang):
        async for page in madang.targeting.ListMembers(members):
            got.append(page)  # noqa: PERF401 (an extension would lose what came before the error)

    with Madang(address) as madang, pytest.raises(MadangError, match="is gone"):
        got.extend(madang.targeting.ListMembers(members))
    with pytest.raises(MadangError, match="is gone"):
        awaited(address, read)
    assert [list(p.user_ids) for p in got] == [["u1"]] * 2


@both
def test_a_stream_is_written(address, calling):
    def writes(n):
        return iter([f.StreamWriteFeaturesRequest()] * n)

    assert calling(address, lambda m: m.features.StreamWriteFeatures(writes(2))).rows_written == 2
    with pytest.raises(MadangError, match="too much"):
        calling(address, lambda m: m.features.StreamWriteFeatures(writes(3)))
