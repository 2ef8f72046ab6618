"""Reports on searches, from logs as the services write them."""

import pytest

from madang.common.v1 import serving_info_pb2
from madang.ranker.v1.ranker_pb2 import FeedbackEvent
from madang.search.v1 import search_pb2 as pb
from madang_pipelines.search.query_log import report_searches
from madang_ranker.stores.parquet import feedback_frame
from madang_runtime.archive import ParquetArchive
from madang_search.query_log import Searched, search_frame


def searched(search_id, query, documents, *, ms=10.0, first=1, **answer):
    hits = [pb.SearchHit(document_id=document) for document in documents]
    response = pb.SearchResponse(search_id=search_id, hits=hits, **answer)
    return Searched(pb.SearchRequest(query=query), response, 1_775_300_400_000, first, ms / 1000)


def event(event_id, kind, search_id, item):
    return FeedbackEvent(
        event_id=event_id, type=f"FEEDBACK_TYPE_{kind}", item_id=item, request_id=search_id
    )


@pytest.fixture
def folder(tmp_path):
    degraded = serving_info_pb2.ServingInfo(
        degraded=[serving_info_pb2.Degradation(component="log")]
    )
    rows = [
        searched("a", "치킨 ", "xyz"),
        searched("b", "치킨", "xyz", ms=30),
        searched("c", "치킨", "xyz", ms=500, serving_info=degraded),
        searched("c2", "치킨", "uvw", first=4),
        searched("d", "Pizza", "pq", fallback=pb.FALLBACK_CORRECTED, corrected_query="pizzas"),
        searched("e", "축구", "x", fallback=pb.FALLBACK_POPULAR),
    ]
    ParquetArchive(f"file://{tmp_path}/searches", search_frame).write(rows[:3])
    ParquetArchive(f"file://{tmp_path}/searches", search_frame).write(rows[3:])
    events = [
        event("1", "CLICK", "a", "x"),
        event("1", "CLICK", "a", "x"),  # archived twice
        event("2", "CLICK", "b", "y"),
        event("3", "CONVERSION", "b", "y"),
        event("4", "CLICK", "d", "q"),
        event("5", "CLICK", "d", "not shown"),
        event("6", "CLICK", "c2", "u"),  # of a second page
        event("7", "CLICK", "a page of the home feed", "x"),
    ]
    ParquetArchive(f"file://{tmp_path}/feedback", feedback_frame).write(events)
    return tmp_path


def test_a_report_tells_what_became_of_searches(folder):
    report = report_searches(folder, k=1)
    (all_,) = report.totals.iter_rows(named=True)
    assert all_["searches"] == 5
    assert (all_["unanswered"], all_["corrected"], all_["degraded"]) == (0.2, 0.2, 0.2)
    assert (all_["median"], all_["slowest"]) == (10, 500)
    assert (all_["clicked"], all_["ordered"]) == (0.2, 0), "only first positions count"
    assert all_["reciprocal_rank"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 5)
    chicken, *others = report.queries.iter_rows(named=True)
    assert (chicken["query"], chicken["searches"], chicken["slowest"]) == ("치킨", 3, 500)
    assert chicken["click_entropy"] == pytest.approx(1), "two shops, as often"
    assert [(q["query"], q["click_entropy"]) for q in others] == [("pizza", 0), ("축구", None)]
    deeper = report_searches(folder, k=10).totals.row(0, named=True)
    assert (deeper["clicked"], deeper["ordered"]) == (0.6, 0.2)


def test_without_feedback_nothing_was_clicked(tmp_path):
    ParquetArchive(f"file://{tmp_path}/searches", search_frame).write([searched("a", "q", [])])
    (all_,) = report_searches(tmp_path).totals.iter_rows(named=True)
    assert (all_["searches"], all_["clicked"]) == (1, 0)


def test_without_searches_it_says_so(tmp_path):
    with pytest.raises(ValueError, match="no log in"):
        report_searches(tmp_path)
