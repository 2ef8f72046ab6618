"""Every RPC through the gateway: the good case, and each documented error."""

import time
import uuid

import grpc
import h3
import numpy as np
import pytest
from calls import EVENING, NEVER_SERVED, PLACE, degraded, recommend, refused

from madang.candidate.v1 import candidate_pb2 as c
from madang.common.v1 import tensor_pb2 as t
from madang.feature.v1 import feature_store_pb2 as f
from madang.ranker.v1 import ranker_pb2 as r
from madang_cli.mesh.mesh import wait_for
from madang_pipelines.training import RANKER
from madang_runtime.columns import block

NAN = float("nan")


def name() -> str:
    return f"v{uuid.uuid4().hex[:12]}"


def view(named: str, **fields):
    features = [{"name": "a", "dtype": t.D_TYPE_FLOAT32}, {"name": "b", "dtype": t.D_TYPE_INT64}]
    return f.FeatureView(name=named, entity="item", features=fields.pop("features", features))


def applied(clients) -> str:
    named = name()
    clients.features.ApplyFeatureView(f.ApplyFeatureViewRequest(view=view(named)), timeout=5)
    return named


def row(value: float = 1.0):
    return block(["a"], np.array([[value]], np.float32))


# --- FeatureStore ---------------------------------------------------------------------------


def test_views_are_applied_got_and_listed(clients):
    named = name()
    request = f.ApplyFeatureViewRequest(view=view(named))
    first = clients.features.ApplyFeatureView(request, timeout=5)
    again = clients.features.ApplyFeatureView(request, timeout=5)
    assert (first.changed, again.changed) == (True, False)
    got = clients.features.GetFeatureView(f.GetFeatureViewRequest(name=named), timeout=5)
    assert got.view == first.view == again.view
    assert (got.view.version, len(got.view.fingerprint)) == (1, 64)
    seen, page = [], ""
    while True:
        answer = clients.features.ListFeatureViews(
            f.ListFeatureViewsRequest(page_size=2, page_token=page), timeout=5
        )
        seen += [v.name for v in answer.views]
        page = answer.next_page_token
        if not page:
            break
    assert seen == sorted(seen)
    assert {named, "user_profile", "item_profile", "item_activity"} <= set(seen)


def test_view_errors(clients):
    named = applied(clients)
    apply_, get = clients.features.ApplyFeatureView, clients.features.GetFeatureView
    fewer = view(named, features=[{"name": "a", "dtype": t.D_TYPE_FLOAT32}])
    assert refused(apply_, f.ApplyFeatureViewRequest(view=fewer)) == (
        "FAILED_PRECONDITION FEATURE_VIEW_INCOMPATIBLE"
    )
    twice = view(name(), features=[{"name": "a", "dtype": t.D_TYPE_FLOAT32}] * 2)
    assert refused(apply_, f.ApplyFeatureViewRequest(view=twice)) == (
        "INVALID_ARGUMENT FEATURE_VIEW_INVALID view.features"
    )
    assert refused(apply_, f.ApplyFeatureViewRequest()) == "INVALID_ARGUMENT FIELD_INVALID view"
    assert refused(get, f.GetFeatureViewRequest(name="none")) == "NOT_FOUND FEATURE_VIEW_NOT_FOUND"
    assert refused(get, f.GetFeatureViewRequest()) == "INVALID_ARGUMENT FIELD_INVALID name"
    assert refused(
        clients.features.ListFeatureViews, f.ListFeatureViewsRequest(page_size=1001)
    ) == ("INVALID_ARGUMENT FIELD_INVALID page_size")


def test_rows_are_written_and_looked_up(clients):
    named = applied(clients)
    write = f.WriteFeaturesRequest(view=named, entity_ids=["x"], blocks=[row(2.5)])
    token = clients.features.WriteFeatures(write, timeout=5).freshness_token
    answer = clients.features.LookupFeatures(
        f.LookupFeaturesRequest(
            lookups=[{"view": named, "entity_ids": ["x", "y"]}], freshness_token=token
        ),
        timeout=5,
    )
    floats, ints = answer.rows[0].blocks
    assert np.frombuffer(floats.values.data, "<f4").tolist() == [2.5, 0]
    assert list(floats.statuses) == [t.FEATURE_STATUS_PRESENT, t.FEATURE_STATUS_NOT_FOUND]
    assert list(ints.statuses) == [t.FEATURE_STATUS_NULL, t.FEATURE_STATUS_NOT_FOUND]


def test_a_stream_of_writes_keeps_what_came_before_a_bad_message(clients):
    named = applied(clients)

    def message(entity, value=1.0):
        write = f.WriteFeaturesRequest(view=named, entity_ids=[entity], blocks=[row(value)])
        return f.StreamWriteFeaturesRequest(write=write)

    done = clients.features.StreamWriteFeatures(iter([message("a"), message("b")]), timeout=5)
    assert done.rows_written == 2
    with pytest.raises(grpc.RpcError) as caught:
        clients.features.StreamWriteFeatures(iter([message("c"), message("d", NAN)]), timeout=5)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    lookup = f.LookupFeaturesRequest(
        lookups=[{"view": named, "features": ["a"], "entity_ids": ["b", "c", "d"]}]
    )
    (found,) = clients.features.LookupFeatures(lookup, timeout=5).rows[0].blocks
    assert list(found.statuses) == [1, 1, t.FEATURE_STATUS_NOT_FOUND]


def test_write_errors(clients):
    named, write = applied(clients), clients.features.WriteFeatures

    def why(**fields):
        given = {"view": named, "entity_ids": ["x"], "blocks": [row()], **fields}
        return refused(write, f.WriteFeaturesRequest(**given))

    assert why(view="none") == "NOT_FOUND FEATURE_VIEW_NOT_FOUND"
    assert why(entity_ids=[]) == "INVALID_ARGUMENT FIELD_INVALID entity_ids"
    assert why(entity_ids=["x"] * 2, blocks=[block(["a"], np.ones((2, 1), np.float32))]) == (
        "INVALID_ARGUMENT FIELD_INVALID entity_ids"
    )
    assert why(entity_ids=["x"] * 100_000) == "INVALID_ARGUMENT FIELD_INVALID entity_ids"
    assert why(blocks=[block(["z"], np.ones((1, 1), np.float32))]) == "NOT_FOUND FEATURE_NOT_FOUND"
    assert why(blocks=[row(NAN)]) == "INVALID_ARGUMENT NOT_FINITE blocks[0].values"
    assert why(blocks=[block(["a"], np.ones((2, 1), np.float32))]) == (
        "INVALID_ARGUMENT SHAPE_MISMATCH blocks[0].values"
    )
    assert why(view="item_activity") == "INVALID_ARGUMENT FIELD_INVALID view"


def test_lookup_errors(clients):
    named, lookup = applied(clients), clients.features.LookupFeatures

    def why(view_=named, ids=("x",), features=(), **fields):
        lookups = [{"view": view_, "entity_ids": ids, "features": features}]
        return refused(lookup, f.LookupFeaturesRequest(lookups=lookups, **fields))

    assert why(view_="none") == "NOT_FOUND FEATURE_VIEW_NOT_FOUND"
    assert why(features=["z"]) == "NOT_FOUND FEATURE_NOT_FOUND"
    assert why(ids=[]) == "INVALID_ARGUMENT FIELD_INVALID lookups[0].entity_ids"
    assert why(ids=["x"] * 100_000) == "INVALID_ARGUMENT FIELD_INVALID lookups[0].entity_ids"
    assert why(ids=[""]) == "INVALID_ARGUMENT FIELD_INVALID lookups[0].entity_ids[0]"
    assert why(freshness_token="fs1-999999999") == "UNAVAILABLE NOT_FRESH_YET"
    assert why(freshness_token="?") == ("INVALID_ARGUMENT FRESHNESS_TOKEN_INVALID freshness_token")
    assert refused(lookup, f.LookupFeaturesRequest()) == "INVALID_ARGUMENT FIELD_INVALID lookups"


def click(user, item, **fields):
    return {"event_id": str(uuid.uuid4()), "user_id": user, "type": 2, "item_id": item, **fields}


def test_actions_are_counted_once_and_listed(clients):
    item, user = uuid.uuid4().hex, uuid.uuid4().hex
    first, second = click(user, item), click(user, "s00001")
    record = clients.features.RecordActions
    done = record(f.RecordActionsRequest(actions=[first, second, first]), timeout=5)
    assert (done.recorded, done.duplicates, done.late) == (2, 1, 0)
    answer = clients.features.LookupFeatures(
        f.LookupFeaturesRequest(
            lookups=[{"view": "item_activity", "features": ["clicks_1h"], "entity_ids": [item]}],
            recent_actions={"user_ids": [user]},
            freshness_token=done.freshness_token,
        ),
        timeout=5,
    )
    assert np.frombuffer(answer.rows[0].blocks[0].values.data, "<f4").tolist() == [1]
    assert {a.item_id for a in answer.recent_actions[0].actions} == {item, "s00001"}


def test_action_errors(clients):
    record = clients.features.RecordActions

    def why(**fields):
        return refused(record, f.RecordActionsRequest(actions=[{**click("u", "i"), **fields}]))

    assert why(event_id="") == "INVALID_ARGUMENT FIELD_INVALID actions[0].event_id"
    assert why(type=0) == "INVALID_ARGUMENT FIELD_INVALID actions[0].type"
    assert why(item_id="") == "INVALID_ARGUMENT FIELD_INVALID actions[0].item_id"
    future = {"seconds": int(time.time()) + 3600}
    assert why(event_time=future) == "INVALID_ARGUMENT FIELD_INVALID actions[0].event_time"
    assert refused(record, f.RecordActionsRequest()) == "INVALID_ARGUMENT FIELD_INVALID actions"


# --- Candidate ------------------------------------------------------------------------------


SOURCES = ["two_tower", "reactive", "again", "popular", "cohort", "ads", "explore"]


def retrieve(**fields):
    given = {"user_id": "u00001", "place": PLACE, "request_time": EVENING, **fields}
    return c.RetrieveRequest(**given)


def test_retrieve_answers_columns_that_agree(clients):
    answer = clients.candidate.Retrieve(retrieve(limit=40), timeout=5)
    n, m = len(answer.item_ids), len(answer.sources)
    assert 0 < n <= 40
    assert list(answer.sources) == SOURCES
    assert answer.segments[-1] == "all"
    assert any(segment.startswith("demographic=") for segment in answer.segments)
    ranks = np.frombuffer(answer.source_ranks, "<u2").reshape(n, m)
    assert (ranks.max(axis=1) > 0).all(), "every candidate has a source"
    scores = np.frombuffer(answer.scores, "<f4")
    assert (np.diff(scores) <= 0).all()
    assert np.frombuffer(answer.source_scores, "<f4").shape == (n * m,)
    assert np.frombuffer(answer.bids, "<f4").shape == (n,)
    assert len(set(answer.item_ids)) == n
    assert set(answer.kinds) <= {1, 2}
    assert answer.serving_info.models[0].name == "two-tower"


def test_retrieve_filters_kinds_and_exclusions(clients):
    ads = clients.candidate.Retrieve(retrieve(kinds=[2]), timeout=5)
    assert set(ads.kinds) <= {2}
    first = clients.candidate.Retrieve(retrieve(), timeout=5).item_ids[0]
    rest = clients.candidate.Retrieve(retrieve(exclude_item_ids=[first]), timeout=5)
    assert first not in rest.item_ids


def test_retrieve_errors(clients):
    rpc = clients.candidate.Retrieve
    assert refused(rpc, retrieve(place=NEVER_SERVED)) == "OUT_OF_RANGE PLACE_NOT_SERVED place"
    assert refused(rpc, retrieve(place={"latitude": NAN})) == (
        "INVALID_ARGUMENT FIELD_INVALID place.latitude"
    )
    assert refused(rpc, retrieve(place=None)) == "INVALID_ARGUMENT FIELD_INVALID place"
    assert refused(rpc, retrieve(user_id="")) == "INVALID_ARGUMENT FIELD_INVALID user_id"
    assert refused(rpc, retrieve(exclude_item_ids=["x"] * 100_000)) == (
        "INVALID_ARGUMENT FIELD_INVALID exclude_item_ids"
    )


def test_sources_are_asked_by_name(clients):
    answer = clients.candidate.Retrieve(retrieve(sources=["cohort", "popular"]), timeout=5)
    assert list(answer.sources) == ["popular", "cohort"]
    assert len(answer.item_ids) > 5
    stages = {stage.name for stage in answer.serving_info.stages}
    assert "user_tower" not in stages, "neither needs the user's vector"
    nobody = retrieve(user_id="nobody", sources=["cohort"])
    assert list(clients.candidate.Retrieve(nobody, timeout=5).segments) == ["all"]
    wrong = refused(clients.candidate.Retrieve, retrieve(sources=["nothing"]))
    assert wrong == "INVALID_ARGUMENT FIELD_INVALID sources"


def segment_list(*items, segment="all", scores=None, area=0):
    packed = np.linspace(2, 1, len(items)) if scores is None else np.array(scores)
    return c.SegmentList(
        segment=segment, area=area, item_ids=items, scores=packed.astype("<f4").tobytes()
    )


def test_lists_are_put_in_and_taken_out(clients):
    user, cohort = name(), 999
    row_of_user = block(["cohort", "demographic"], np.array([[cohort, 11]]))
    write = f.WriteFeaturesRequest(view="user_segments", entity_ids=[user], blocks=[row_of_user])
    clients.features.WriteFeatures(write, timeout=5)
    shown = clients.candidate.Retrieve(retrieve(sources=["two_tower"], kinds=[1]), timeout=5)
    wanted = list(shown.item_ids[5:8][::-1])
    cell = h3.str_to_int(h3.latlng_to_cell(PLACE["latitude"], PLACE["longitude"], 6))

    def read(*lists):
        request = c.UpsertListsRequest(lists=lists)
        token = clients.candidate.UpsertLists(request, timeout=5).freshness_token
        again = retrieve(user_id=user, sources=["cohort"], freshness_token=token)
        answer = clients.candidate.Retrieve(again, timeout=5)
        assert answer.segments[0] == f"cohort={cohort}"
        return list(answer.item_ids)

    of_cohort = {"segment": f"cohort={cohort}"}
    everywhere = segment_list(*wanted, "unknown", **of_cohort)
    assert read(everywhere) == wanted, "an unknown item is left out"
    here = segment_list(*wanted[:2], **of_cohort, area=cell)
    assert read(here) == wanted[:2], "the area's comes first"
    assert read(c.SegmentList(**of_cohort, area=cell)) == wanted
    assert read(c.SegmentList(**of_cohort)) != wanted


def test_list_errors(clients):
    def why(*lists):
        return refused(clients.candidate.UpsertLists, c.UpsertListsRequest(lists=lists))

    invalid = "INVALID_ARGUMENT FIELD_INVALID"
    assert why() == f"{invalid} lists"
    assert why(segment_list("a"), segment_list("b")) == f"{invalid} lists"
    assert why(segment_list("a", "a")) == f"{invalid} lists[0].item_ids"
    assert why(segment_list("a", "b", scores=[1, 2])) == f"{invalid} lists[0].scores"
    assert why(segment_list("a", segment="")) == f"{invalid} lists[0].segment"
    short = segment_list("a", "b", scores=[1])
    assert why(short) == "INVALID_ARGUMENT SHAPE_MISMATCH lists[0].scores"
    nan = segment_list("a", scores=[float("nan")])
    assert why(nan) == "INVALID_ARGUMENT NOT_FINITE lists[0].scores"


def test_similar_items(clients):
    rpc = clients.candidate.RetrieveSimilar
    answer = rpc(c.RetrieveSimilarRequest(item_id="s00003", limit=7), timeout=5)
    scores = np.frombuffer(answer.scores, "<f4")
    assert len(answer.item_ids) == 7
    assert "s00003" not in answer.item_ids
    assert (np.diff(scores) <= 0).all()
    assert -1.001 <= scores.min() <= scores.max() <= 1.001
    near = rpc(c.RetrieveSimilarRequest(item_id="s00003", place=PLACE), timeout=5)
    delivered = clients.candidate.Retrieve(retrieve(limit=2000), timeout=5)
    assert near.item_ids
    assert refused(rpc, c.RetrieveSimilarRequest(item_id="none")) == (
        "NOT_FOUND ITEM_NOT_FOUND item_id"
    )
    assert delivered.item_ids


def test_index_info(clients):
    info = clients.candidate.GetIndexInfo(c.GetIndexInfoRequest(), timeout=5)
    assert (info.shops, info.ads, info.dimension, info.h3_resolution) == (400, 30, 64, 8)
    assert info.cells > 100
    assert list(info.sources) == SOURCES


# --- Ranker ---------------------------------------------------------------------------------


def test_recommend_answers_a_page_with_reasons(clients):
    answer = clients.ranker.Recommend(recommend(page_size=8), timeout=5)
    assert len(answer.items) == 8
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    for item in answer.items:
        assert item.reasons
        assert 0 <= item.conversion_probability <= item.click_probability <= 1
        assert item.score == pytest.approx(
            item.click_probability + 4 * item.conversion_probability, abs=1e-5
        )
    info = answer.serving_info
    assert info.models[0].name == RANKER
    assert {s.name for s in info.stages} == {"retrieve", "features", "score", "arrivals"}
    for item in answer.items:
        assert item.arrival.end_minute - item.arrival.start_minute == 10
        assert 0 < item.arrival.probability <= 1
    assert not info.degraded
    assert len(info.trace_id) == 32
    assert info.freshness_token.startswith("fs1-")


def test_recommend_pages_without_repeating(clients):
    seen, token = [], ""
    for _ in range(3):
        answer = clients.ranker.Recommend(recommend(page_size=5, page_token=token), timeout=5)
        seen += [item.item_id for item in answer.items]
        token = answer.next_page_token
    whole = clients.ranker.Recommend(recommend(page_size=15), timeout=5)
    assert seen == [item.item_id for item in whole.items]


def too_late(rpc, request) -> bool:
    """Whether a call with next to no time ended so; timers may fire after the answer."""
    try:
        rpc(request, timeout=0.002)
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    return False


def test_recommend_errors(clients):
    rpc = clients.ranker.Recommend
    token = rpc(recommend(page_size=1), timeout=5).next_page_token
    assert refused(rpc, recommend(place=NEVER_SERVED)) == "OUT_OF_RANGE PLACE_NOT_SERVED place"
    assert refused(rpc, recommend(surface="none")) == "NOT_FOUND SURFACE_NOT_FOUND surface"
    assert refused(rpc, recommend(user="u2", page_token=token)) == (
        "INVALID_ARGUMENT PAGE_TOKEN_INVALID page_token"
    )
    assert refused(rpc, recommend(page_size=101)) == "INVALID_ARGUMENT FIELD_INVALID page_size"
    assert refused(rpc, recommend(freshness_token="?")) == (
        "INVALID_ARGUMENT FRESHNESS_TOKEN_INVALID freshness_token"
    )
    assert wait_for(lambda: too_late(rpc, recommend()), 10)
    assert refused(rpc, recommend(request_time={"seconds": -(10**11)})).startswith(
        "INVALID_ARGUMENT"
    )


def test_the_quick_surface_reads_once_and_scores_nothing(clients):
    answer = clients.ranker.Recommend(recommend(surface="quick", page_size=5), timeout=5)
    assert len(answer.items) == 5
    assert {r.source for item in answer.items for r in item.reasons} == {"cohort"}
    assert [stage.name for stage in answer.serving_info.stages] == ["retrieve"]
    assert not answer.serving_info.models
    assert not degraded(answer)
    request = r.ExplainRequest(request_id=answer.request_id)
    assert wait_for(lambda: explained(clients, request))
    assert "no model" in clients.ranker.Explain(request, timeout=5).unexplained


def explained(clients, request):
    try:
        return clients.ranker.Explain(request, timeout=5)
    except grpc.RpcError:
        return None


def test_newcomers_get_a_feed(clients):
    answer = clients.ranker.Recommend(recommend("nobody-knows-me"), timeout=5)
    assert len(answer.items) == 20
    assert not answer.serving_info.degraded


def rank(ids, **fields):
    given = {"user_id": "u00001", "place": PLACE, "request_time": EVENING, "item_ids": ids}
    return r.RankRequest(**given, **fields)


def test_rank_orders_given_items_as_recommend_does(clients):
    feed = clients.ranker.Recommend(recommend(page_size=10), timeout=5)
    ids = [item.item_id for item in feed.items]
    answer = clients.ranker.Rank(rank(ids[::-1]), timeout=5)
    assert [ids[::-1][i] for i in answer.order] == ids
    for column, of_feed in (
        (answer.scores, [item.score for item in feed.items]),
        (answer.click_probabilities, [item.click_probability for item in feed.items]),
        (answer.hide_probabilities, [item.hide_probability for item in feed.items]),
    ):
        assert np.frombuffer(column, "<f4")[::-1] == pytest.approx(of_feed, abs=1e-5)


def test_a_page_is_explained(clients):
    feed = clients.ranker.Recommend(recommend(page_size=5), timeout=5)
    third = feed.items[2]
    rpc = clients.ranker.Explain

    request = r.ExplainRequest(request_id=feed.request_id, item_id=third.item_id)

    def kept():  # off the request's path
        try:
            return bool(rpc(request, timeout=5))
        except grpc.RpcError:
            return False

    assert wait_for(kept)
    answer = rpc(request, timeout=5)
    assert (answer.position, answer.item_id) == (3, third.item_id)
    assert answer.reasons == third.reasons
    assert sum(t.weight * t.value for t in answer.terms) == pytest.approx(third.score, abs=1e-5)
    assert answer.features[0].contribution != 0
    first = rpc(r.ExplainRequest(request_id=feed.request_id), timeout=5)
    assert first.item_id == feed.items[0].item_id
    assert refused(rpc, r.ExplainRequest(request_id="none")) == (
        "NOT_FOUND DECISION_NOT_FOUND request_id"
    )
    assert refused(rpc, r.ExplainRequest(request_id=feed.request_id, item_id="none")) == (
        "NOT_FOUND ITEM_NOT_FOUND item_id"
    )
    assert refused(rpc, r.ExplainRequest()) == "INVALID_ARGUMENT FIELD_INVALID request_id"


def test_rank_takes_features_from_the_caller(clients):
    ids = ["s00001", "s00002", "s00003"]
    stored = clients.features.LookupFeatures(
        f.LookupFeaturesRequest(
            lookups=[
                {"view": "item_profile", "entity_ids": ids},
                {"view": "user_profile", "entity_ids": [rank(ids).user_id]},
            ]
        ),
        timeout=5,
    )
    blocks, user_blocks = list(stored.rows[0].blocks), list(stored.rows[1].blocks)
    for given, view in ((blocks, "item_profile"), (user_blocks, "user_profile")):
        for b in given:
            b.features[:] = [f"{view}.{feature}" for feature in b.features]
    own = clients.ranker.Rank(rank(ids, item_features=blocks), timeout=5)
    without_store = rank(ids, item_features=blocks, user_features=user_blocks)
    alone = clients.ranker.Rank(without_store, timeout=5)
    assert alone.scores == own.scores
    assert [s.name for s in alone.serving_info.stages] == ["score"]
    half = clients.ranker.Rank(rank(ids, user_features=user_blocks), timeout=5)
    assert half.scores == own.scores
    looked_up = clients.ranker.Rank(rank(ids), timeout=5)
    assert own.order == looked_up.order
    assert np.frombuffer(own.scores, "<f4") == pytest.approx(
        np.frombuffer(looked_up.scores, "<f4"), abs=1e-6
    )
    rpc = clients.ranker.Rank
    assert refused(rpc, rank(ids, item_features=blocks[:1])) == (
        "NOT_FOUND FEATURE_NOT_FOUND item_features"
    )
    short = block(["item_profile.price"], np.ones((2, 1), np.float32))
    assert refused(rpc, rank(ids, item_features=[short])) == (
        "INVALID_ARGUMENT SHAPE_MISMATCH item_features[0].values"
    )
    nan = block(["item_profile.price"], np.full((3, 1), np.nan, np.float32))
    assert refused(rpc, rank(ids, item_features=[nan])) == (
        "INVALID_ARGUMENT NOT_FINITE item_features[0].values"
    )
    assert refused(rpc, rank(ids, item_features=[*blocks, nan])) == (
        f"INVALID_ARGUMENT NOT_FINITE item_features[{len(blocks)}].values"
    )


def test_rank_errors(clients):
    rpc = clients.ranker.Rank
    assert refused(rpc, rank([])) == "INVALID_ARGUMENT FIELD_INVALID item_ids"
    assert refused(rpc, rank(["x"] * 100_000)) == "INVALID_ARGUMENT FIELD_INVALID item_ids"
    assert refused(rpc, rank(["s00001"], surface="none")) == "NOT_FOUND SURFACE_NOT_FOUND surface"
    unknown = rpc(rank(["never-heard-of", "s00001"]), timeout=5)
    assert sorted(unknown.order) == [0, 1]
