"""RecommendKeywords through the gateway: before and after an action."""

import uuid
from collections import Counter

import polars as pl
import pytest
from calls import EVENING, PLACE, Clients, refused, spans_of

from madang.candidate.v1 import candidate_pb2 as c
from madang.feature.v1 import feature_store_pb2 as f
from madang.ranker.v1 import ranker_pb2 as r
from madang.search.v1 import search_pb2 as pb
from madang_cli.mesh.mesh import wait_for
from madang_search.keywords.recommending import VIEW

BATCH, REAL_TIME = pb.KEYWORD_LIST_BATCH, pb.KEYWORD_LIST_REAL_TIME


@pytest.fixture(scope="module")
def listed(workspace):
    """Users that have a list of their own."""
    return iter(pl.read_parquet(workspace.features / f"{VIEW}.parquet")["entity_id"].to_list())


def keywords(clients: Clients, user="", **fields):
    request = pb.RecommendKeywordsRequest(user_id=user, **fields)
    return clients.search.RecommendKeywords(request, timeout=5)


def test_a_click_changes_the_list(clients, listed, city):
    user = next(listed)
    before = keywords(clients, user)
    assert (before.list, len(before.keywords), before.actions) == (BATCH, 10, 0)
    shops = city.tables.frames["items"].filter(kind=1)
    event = r.FeedbackEvent(
        event_id=uuid.uuid4().hex,
        type=r.FEEDBACK_TYPE_CLICK,
        user_id=user,
        item_id=shops["item_id"][0],
    )
    clients.ranker.RecordFeedback(r.RecordFeedbackRequest(events=[event]), timeout=5)
    assert wait_for(lambda: keywords(clients, user).list == REAL_TIME, 10)
    after = keywords(clients, user)
    assert after.actions == 1
    scores = [keyword.score for keyword in after.keywords]
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) <= 1
    assert [k.text for k in after.keywords] != [k.text for k in before.keywords]


def test_a_search_is_an_action_once_however_many_pages(clients, listed):
    user = next(listed)
    query = keywords(clients, user).keywords[0].text
    page = clients.search.Search(pb.SearchRequest(query=query, user_id=user, page_size=1))
    clients.search.Search(
        pb.SearchRequest(query=query, user_id=user, page_size=1, page_token=page.next_page_token)
    )
    assert wait_for(lambda: keywords(clients, user).list == REAL_TIME, 10)
    after = keywords(clients, user, limit=50)
    assert after.actions == 1
    assert query not in [keyword.text for keyword in after.keywords]
    recent = f.LookupFeaturesRequest(recent_actions={"user_ids": [user]})
    (actions,) = clients.features.LookupFeatures(recent, timeout=5).recent_actions
    assert [(a.event_id, a.query) for a in actions.actions] == [(page.search_id, query)]


def test_the_token_of_an_action_makes_it_seen(clients, listed):
    user = next(listed)
    action = f.Action(
        event_id=uuid.uuid4().hex, user_id=user, type=f.ACTION_TYPE_CLICK, item_id="s00001"
    )
    told = clients.features.RecordActions(f.RecordActionsRequest(actions=[action]), timeout=5)
    answer = keywords(clients, user, freshness_token=told.freshness_token)
    assert (answer.list, answer.actions) == (REAL_TIME, 1)


def test_who_is_not_known_gets_what_is_popular(clients):
    newcomer, nobody = keywords(clients, uuid.uuid4().hex), keywords(clients)
    assert newcomer.list == nobody.list == pb.KEYWORD_LIST_POPULAR
    assert newcomer.keywords == nobody.keywords
    assert len(keywords(clients, limit=50).keywords) == 50


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"limit": 51}, "INVALID_ARGUMENT FIELD_INVALID limit"),
        ({"user_id": "u" * 129}, "INVALID_ARGUMENT FIELD_INVALID user_id"),
        (
            {"user_id": "u1", "freshness_token": "?"},
            "INVALID_ARGUMENT FRESHNESS_TOKEN_INVALID freshness_token",
        ),
    ],
)
def test_a_bad_request_is_refused(clients, fields, why):
    assert refused(clients.search.RecommendKeywords, pb.RecommendKeywordsRequest(**fields)) == why


def test_keywords_are_one_trace(shared_mesh, clients, listed):
    answer = keywords(clients, next(listed))
    spans = spans_of(shared_mesh, answer.serving_info.trace_id, leaves=2)
    (server,) = (s for s in spans if s.name.endswith("SearchService/RecommendKeywords"))
    assert {s.name for s in spans if s.parent_id == server.span_id} >= {"steps"}
    assert {s.service for s in spans} == {
        "madang-gateway",
        "madang-search",
        "madang-featurestore",
    }


def test_what_somebody_searched_for_comes_into_their_feed(clients, listed, city):
    user = next(listed)
    kinds = dict(city.tables.frames["items"].select("item_id", "category_name").iter_rows())

    def proposed(source):
        asked = {"user_id": user, "place": PLACE, "request_time": EVENING}
        request = c.RetrieveRequest(**asked, sources=[source])
        return [kinds[item] for item in clients.candidate.Retrieve(request, timeout=5).item_ids]

    assert proposed("reactive") == []
    (kind, shops), *_ = Counter(proposed("two_tower")).most_common()
    clients.search.Search(pb.SearchRequest(query=kind, user_id=user), timeout=5)
    assert wait_for(lambda: proposed("reactive"), 10)
    assert proposed("reactive")[:shops] == [kind] * shops
