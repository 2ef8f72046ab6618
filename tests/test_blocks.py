"""SearchBlocks through the gateway: for anybody, for a user, after what they just did, and when
parts are away."""

import uuid

import grpc
import polars as pl
import pytest
from calls import EVENING, PLACE, Clients, degraded, refused, spans_of

from madang.feature.v1 import feature_store_pb2 as f
from madang.search.v1 import search_pb2 as pb
from madang_cli.mesh.mesh import LocalMesh, wait_for
from madang_gateway.services import SERVICES
from madang_pipelines.city.names import WISHES
from madang_pipelines.publish import DOCUMENTS, publish_documents
from madang_search.settings import QUERIES

WISH = WISHES[0][0]
ANSWER, EXPLORATION, REACTION = (
    pb.BLOCK_KIND_ANSWER,
    pb.BLOCK_KIND_EXPLORATION,
    pb.BLOCK_KIND_REACTION,
)


def blocks(clients: Clients, query=WISH, user="", **fields):
    given = {"place": PLACE, "request_time": EVENING, **fields}
    request = pb.SearchBlocksRequest(query=query, user_id=user, **given)
    return clients.search.SearchBlocks(request, timeout=5)


def hits(answer):
    return [hit.document_id for block in answer.blocks for hit in block.hits]


def test_a_wish_is_answered_by_the_kinds_that_people_took(clients):
    answer = blocks(clients, max_blocks=20)
    assert {block.kind for block in answer.blocks} == {EXPLORATION}
    assert len(answer.blocks) > 2
    scores = [block.score for block in answer.blocks]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-3)
    assert scores == [block.general_score for block in answer.blocks]
    assert (answer.personalisation, answer.fallback) == (0, pb.FALLBACK_UNSPECIFIED)
    assert answer.click_entropy > 3
    assert [m.name for m in answer.serving_info.models] == ["search-encoder", QUERIES]
    assert degraded(answer) == set()


def test_documents_are_in_one_block_and_in_order(clients):
    answer = blocks(clients, max_blocks=20, hits_per_block=20)
    shown = hits(answer)
    assert len(shown) == len(set(shown))
    for block in answer.blocks:
        scores = [hit.score for hit in block.hits]
        assert scores == sorted(scores, reverse=True)
        assert {hit.category for hit in block.hits} == {block.title}
        assert len(block.hits) == min(20, block.documents)
        if block.documents <= 20:
            assert sum(scores) == pytest.approx(block.score, abs=1e-4)
    few = blocks(clients, max_blocks=2, hits_per_block=1)
    assert [len(block.hits) for block in few.blocks] == [1, 1]


def test_people_get_blocks_of_their_own(clients, city):
    users = city.tables.frames["users"]["user_id"].tail(5)
    answers = [blocks(clients, user=user, max_blocks=20) for user in users]
    for answer in answers:
        assert 0.8 < answer.personalisation < 1
        assert answer.personalisation == pytest.approx(1 - 2**-answer.click_entropy, abs=1e-3)
        assert [m.name for m in answer.serving_info.models][2:] == ["ranker"]
        assert {block.general_score for block in answer.blocks} == {
            block.general_score for block in answers[0].blocks
        }
    assert len({tuple(block.score for block in answer.blocks) for answer in answers}) == 5


def test_a_name_is_answered_by_the_shop(clients):
    shop = blocks(clients).blocks[0].hits[0].title
    answer = blocks(clients, query=shop)
    (named,) = (block for block in answer.blocks if block.kind == ANSWER)
    assert {hit.title for hit in named.hits} == {named.title} == {shop}
    assert named.hits[0].highlights[0].field == "title"


def test_an_intent_comes_first_in_a_block_of_its_own(clients):
    entry = pb.Intent(intent_id=f"i-{uuid.uuid4().hex}", phrases=["쿠폰함 열어줘"], area="blocks")
    put = pb.UpsertIntentsRequest(intents=[entry])
    token = clients.search.UpsertIntents(put, timeout=5).freshness_token
    answer = blocks(clients, query="쿠폰함 열어줘", area="blocks", freshness_token=token)
    first = answer.blocks[0]
    assert (first.kind, first.title, list(first.hits)) == (ANSWER, entry.intent_id, [])
    assert first.intent.similarity > 0.99
    entry.phrases.clear()
    clients.search.UpsertIntents(pb.UpsertIntentsRequest(intents=[entry]), timeout=5)


def test_what_was_just_clicked_is_a_block_and_lifts_its_kind(clients):
    user = f"blocks-{uuid.uuid4().hex}"
    before = blocks(clients, user=user, max_blocks=20)
    lifted = before.blocks[-1]
    shop = lifted.hits[0]
    action = f.Action(
        event_id=uuid.uuid4().hex,
        user_id=user,
        type=f.ACTION_TYPE_CLICK,
        item_id=shop.document_id,
    )
    told = clients.features.RecordActions(f.RecordActionsRequest(actions=[action]), timeout=5)
    after = blocks(clients, user=user, max_blocks=20, freshness_token=told.freshness_token)
    (reaction,) = (block for block in after.blocks if block.kind == REACTION)
    assert [hit.document_id for hit in reaction.hits] == [shop.document_id]
    rest = [block.score for block in after.blocks if block.title == lifted.title]
    assert sum([reaction.score, *rest]) > 1.5 * lifted.score


def test_a_search_for_a_kind_lifts_it_and_counts_as_an_action(clients):
    user = f"blocks-{uuid.uuid4().hex}"
    kind = blocks(clients, max_blocks=20).blocks[-1].title
    searched = blocks(clients, query=kind, user=user)
    lookup = f.LookupFeaturesRequest(recent_actions={"user_ids": [user]})

    def recent():
        return clients.features.LookupFeatures(lookup, timeout=5).recent_actions[0].actions

    assert wait_for(recent, 10)
    assert [(a.event_id, a.query) for a in recent()] == [(searched.search_id, kind)]
    after = blocks(clients, user=user, max_blocks=20)
    newcomer = blocks(clients, user=f"blocks-{uuid.uuid4().hex}", max_blocks=20)
    scores, fresh = ({b.title: b.score for b in one.blocks} for one in (after, newcomer))
    assert scores[kind] > 1.3 * fresh[kind]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"query": ""}, "INVALID_ARGUMENT FIELD_INVALID query"),
        ({"query": "  "}, "INVALID_ARGUMENT FIELD_INVALID query"),
        ({"query": "q" * 257}, "INVALID_ARGUMENT FIELD_INVALID query"),
        ({"place": None}, "INVALID_ARGUMENT FIELD_INVALID place"),
        ({"max_blocks": 21}, "INVALID_ARGUMENT FIELD_INVALID max_blocks"),
        ({"hits_per_block": 21}, "INVALID_ARGUMENT FIELD_INVALID hits_per_block"),
        ({"user_id": "u" * 129}, "INVALID_ARGUMENT FIELD_INVALID user_id"),
        (
            {"freshness_token": "?"},
            "INVALID_ARGUMENT FRESHNESS_TOKEN_INVALID freshness_token",
        ),
    ],
)
def test_a_bad_request_is_refused(clients, fields, why):
    request = pb.SearchBlocksRequest(**{"query": "치킨", "place": PLACE, **fields})
    assert refused(clients.search.SearchBlocks, request) == why


def test_where_nothing_is_delivered_there_are_no_blocks(clients):
    answer = blocks(clients, user="somebody", place={"latitude": 0.0, "longitude": -30.0})
    assert (list(answer.blocks), answer.personalisation) == ([], 0)
    assert degraded(answer) == set()


def test_blocks_are_one_trace(shared_mesh, clients):
    answer = blocks(clients, user="traced")
    spans = spans_of(shared_mesh, answer.serving_info.trace_id, leaves=6)
    (server,) = (s for s in spans if s.name.endswith("SearchService/SearchBlocks"))
    below = {s.name for s in spans if s.parent_id == server.span_id}
    assert below >= {"analyse", "lexical", "dense", "correct", "categories", "highlight"}
    assert {s.service for s in spans} == {
        "madang-gateway",
        "madang-search",
        "madang-featurestore",
        "madang-ranker",
    }


@pytest.fixture
def small_mesh(workspace):
    """Search without svc-ranker, to harm."""
    others = set(SERVICES) - {"search", "featurestore"}
    with LocalMesh(workspace.home, "blocks", without=others) as made:
        with grpc.insecure_channel(made.info.gateway) as channel:
            publish_documents(pl.read_parquet(workspace.features / DOCUMENTS), channel, 60)
        yield made


def test_parts_that_are_away_are_named(small_mesh, workspace):
    registry = workspace.registry
    with grpc.insecure_channel(small_mesh.info.gateway) as channel:
        clients = Clients(channel)
        answer = blocks(clients, user="u00001")
        assert (degraded(answer), answer.personalisation) == ({"ranker"}, 0)
        assert hits(answer) == hits(blocks(clients))
        version = registry.resolve(QUERIES)
        registry.remove_alias(QUERIES, "champion")
        try:
            assert wait_for(lambda: "queries" in degraded(blocks(clients, query="치킨")), 20)
            answer = blocks(clients, query="치킨")
            assert answer.blocks
            assert not answer.HasField("click_entropy")
        finally:
            registry.set_alias(QUERIES, "champion", version)
        assert wait_for(lambda: degraded(blocks(clients, query="치킨")) == set(), 20)
