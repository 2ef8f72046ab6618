"""How what was found becomes blocks, and what is known of queries."""

import json
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from madang.feature.v1 import feature_store_pb2 as f
from madang.ranker.v1 import ranker_pb2 as r
from madang.search.v1 import search_pb2 as pb
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.stages import Stages
from madang_runtime.telemetry import start_tracing
from madang_search.answering import Answer
from madang_search.blocks.grouping import group
from madang_search.blocks.queries import QUERIES, KnownQuery, QueryBook
from madang_search.blocks.retrieving import Candidate, retrieve
from madang_search.blocks.scores import (
    Pool,
    general,
    personal,
    probabilities,
    recent_categories,
)
from madang_search.blocks.users import Users
from madang_search.documents import Wanted
from madang_search.index import Found, Ranked
from madang_search.known import known_vectors
from madang_search.nearest import NearestSearcher

ANSWER, EXPLORATION, REACTION = (
    pb.BLOCK_KIND_ANSWER,
    pb.BLOCK_KIND_EXPLORATION,
    pb.BLOCK_KIND_REACTION,
)
SHOPS = [
    pb.Document(document_id="a", title="골목 치킨", category="치킨"),
    pb.Document(document_id="b", title="우리 치킨", category="치킨"),
    pb.Document(document_id="c", title="우리 피자", category="피자"),
]


def book_of(queries):
    files = {QUERIES: json.dumps(queries).encode()}
    manifest = SimpleNamespace(name="search-queries", version="1")
    return QueryBook(SimpleNamespace(files=files, manifest=manifest))


def stages():
    return Stages(start_tracing("test", "", 0).get_tracer("t"), Metrics())


# --- what is known of queries ---------------------------------------------------------------


@pytest.mark.parametrize(("entropy", "weight"), [(0.0, 0.0), (1.0, 0.5), (3.0, 0.875)])
def test_who_asks_counts_the_more_the_less_people_agree(entropy, weight):
    assert KnownQuery(entropy, {}).personalisation == weight


@pytest.fixture
def bundle(encoder):
    nearest = NearestSearcher(encoder, Metrics())
    return SimpleNamespace(encoder=encoder, nearest=nearest, tuning=SimpleNamespace(intent=0.8))


def test_a_query_is_known_by_its_text_and_else_by_the_nearest(bundle):
    known = {"entropy": 2.0, "categories": {"치킨": 1.0}, "documents": {"a": 7}}
    book = book_of({"치킨": known})
    assert book.find("  치킨 ", bundle) == book.get("치킨") == KnownQuery(**known)
    near = book.find("치킨!!", bundle)
    assert (near.entropy, near.categories, near.documents) == (2.0, {"치킨": 1.0}, {})
    assert book.find("zzzz qqqq 1234", bundle) is None
    assert book_of({}).find("치킨", bundle) is None


# --- scores ---------------------------------------------------------------------------------


def test_what_others_took_adds_to_relevance():
    found = Pool(["a", "b", "c"], ["치킨", "치킨", "피자"], np.array([0.5, 0.5, 0.5]))
    assert len(set(general(found, None))) == 1
    known = KnownQuery(2.0, {"치킨": 0.75, "피자": 0.25}, {"b": 3})
    scores = general(found, known)
    assert scores[1] - scores[0] == pytest.approx(0.5 * np.log(4))
    assert scores[0] - scores[2] == pytest.approx(np.log(0.755 / 0.255))


def test_a_user_adds_clicks_and_what_they_just_looked_for():
    found = Pool(["a", "c"], ["치킨", "피자"], np.zeros(2))
    none = personal(found, np.array([0.2, 0.1], np.float32), {})
    assert none[0] - none[1] == pytest.approx(np.log(2))
    recent = recent_categories([{"피자": 1.0}, {}, {"피자": 0.5}])
    assert recent == {"피자": pytest.approx(1 + 0.5 * 0.64)}
    lately = personal(found, np.array([0.2, 0.0], np.float32), recent)
    assert lately[1] == pytest.approx(np.log(1e-6) + np.log1p(recent["피자"]))


def test_probabilities_add_up_and_of_nothing_are_none():
    assert probabilities(np.array([1000.0, 1000.0])).tolist() == [0.5, 0.5]
    assert probabilities(np.empty(0)).shape == (0,)


# --- blocks ---------------------------------------------------------------------------------


def test_each_document_is_in_one_block_and_the_best_block_is_first():
    candidates = [Candidate(shop) for shop in SHOPS]
    scores, anybody = np.array([0.2, 0.3, 0.5]), np.array([0.6, 0.3, 0.1])
    chicken, pizza = sorted(
        group("저녁", candidates, scores, anybody, ()), key=lambda block: block.title
    )
    assert (chicken.kind, chicken.title, chicken.rows) == (EXPLORATION, "치킨", [1, 0])
    assert (chicken.score, chicken.general) == (pytest.approx(0.5), pytest.approx(0.9))
    assert (pizza.title, pizza.rows) == ("피자", [2])
    named = group("우리  피자", candidates, scores, anybody, {"c", "b"})
    assert [(one.kind, one.title, one.rows) for one in named] == [
        (ANSWER, "우리 피자", [2]),
        (REACTION, "", [1]),
        (EXPLORATION, "치킨", [0]),
    ]
    assert group("저녁", [], np.empty(0), np.empty(0), ()) == []


class Index:
    """Documents by category, the most popular first."""

    def popular(self, wanted, k):
        shops = [shop for shop in SHOPS if shop.category in wanted.categories][:k]
        return Found(lambda at: [shops[i] for i in at], np.zeros(len(shops)), np.zeros(len(shops)))


def answered(rows, fallback=pb.FALLBACK_UNSPECIFIED):
    """SHOPS found, of which some rows answer."""
    found = Found(
        lambda at: [SHOPS[i] for i in at], np.array([3.0, 0, 0]), np.array([0.9, 0.5, 0.1])
    )
    ranked = Ranked(np.array(rows, np.int64), np.linspace(1, 0.5, len(rows)))
    bundle = SimpleNamespace(documents=Index())
    return Answer(bundle, "q", [], Wanted(), found, ranked, fallback)


def test_what_people_took_joins_what_is_found_once():
    known = KnownQuery(1.0, {"치킨": 0.98, "피자": 0.02})
    found, fallback = retrieve(answered([0]), known, stages())
    assert [(one.document.document_id, one.relevance) for one in found] == [("a", 1.0), ("b", 0.0)]
    assert (found[0].lexical, found[0].similarity) == (3.0, 0.9)
    assert fallback == pb.FALLBACK_UNSPECIFIED
    assert len(retrieve(answered([0]), None, stages())[0]) == 1


def test_what_people_took_is_better_than_a_guess():
    known = KnownQuery(1.0, {"피자": 1.0})
    guess = answered([0, 1], pb.FALLBACK_POPULAR)
    found, fallback = retrieve(guess, known, stages())
    assert [one.document.document_id for one in found] == ["c"]
    assert fallback == pb.FALLBACK_UNSPECIFIED
    nowhere = KnownQuery(1.0, {"회": 1.0})
    found, fallback = retrieve(guess, nowhere, stages())
    assert ([one.document.document_id for one in found], fallback) == (
        ["a", "b"],
        pb.FALLBACK_POPULAR,
    )


# --- users ----------------------------------------------------------------------------------


class Service:
    """Another service: an answer, or an error."""

    def __init__(self, name, answer):
        self.name, self.answer, self.asked = name, answer, []

    def __call__(self, request):
        self.asked.append(request)
        if isinstance(self.answer, MadangError):
            raise self.answer
        return self.answer


CLICKS = r.RankResponse(click_probabilities=np.array([0.5, 0.25], "<f4").tobytes())
ACTIONS = f.LookupFeaturesResponse(
    recent_actions=[f.RecentActions(user_id="u", actions=[f.Action(item_id="a")])]
)
AWAY = MadangError(Code.UNAVAILABLE, reason.ERROR_REASON_STORE_UNAVAILABLE, "away")
UNTRAINED = MadangError(
    Code.FAILED_PRECONDITION, reason.ERROR_REASON_MODEL_NOT_FOUND, "no champion"
)
WRONG = MadangError(
    Code.INVALID_ARGUMENT, reason.ERROR_REASON_FRESHNESS_TOKEN_INVALID, "what token?"
)


def known_of(rank, features, user="u"):
    services, told = (Service("rank", rank), Service("features", features)), stages()
    request = pb.SearchBlocksRequest(
        query="q", user_id=user, place={"latitude": 1}, freshness_token="t"
    )
    user = Users(services[1], services[0]).know(request, 1_500, ["a", "b"], told)
    return user, [one.component for one in told.serving_info().degraded], services


def test_a_user_is_asked_of_ranker_and_store():
    user, degraded, (rank, features) = known_of(CLICKS, ACTIONS)
    assert user.clicks.tolist() == [0.5, 0.25]
    assert [action.item_id for action in user.recent] == ["a"]
    assert degraded == []
    (asked,) = rank.asked
    assert (list(asked.item_ids), asked.request_time.ToMilliseconds()) == (["a", "b"], 1_500)
    assert asked.freshness_token == features.asked[0].freshness_token == "t"


def test_nobody_is_asked_about_nobody():
    user, _, (rank, features) = known_of(CLICKS, ACTIONS, user="")
    assert (user, rank.asked, features.asked) == (None, [], [])


@pytest.mark.parametrize("why", [AWAY, UNTRAINED])
def test_without_the_ranker_nobody_is_known(why):
    user, degraded, _ = known_of(why, ACTIONS)
    assert (user, degraded) == (None, ["ranker"])


def test_without_the_store_nothing_was_just_done():
    user, degraded, _ = known_of(CLICKS, AWAY)
    assert (list(user.recent), degraded) == ([], ["featurestore"])


@pytest.mark.parametrize("wrong", [(WRONG, ACTIONS), (CLICKS, WRONG)])
def test_what_they_refuse_is_refused(wrong):
    with pytest.raises(MadangError, match="what token"):
        known_of(*wrong)


# --- vectors of what is known ---------------------------------------------------------------


class Words:
    """An encoder, or what knows texts."""

    texts = ("a", "b")

    def __init__(self):
        self.made = 0

    def encode(self, texts):
        self.made += 1
        return np.full((len(texts), 2), self.made, np.float32)


def test_many_who_ask_at_once_wait_for_one_encoding():
    encoder, known, begun = Words(), Words(), threading.Event()
    slow = encoder.encode

    def encode(texts):
        begun.wait(5)
        return slow(texts)

    encoder.encode = encode
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(known_vectors, encoder, known) for _ in range(8)]
        begun.set()
        assert len({id(one.result()) for one in found}) == 1
    assert encoder.made == 1


def test_vectors_are_made_once_and_given_up_with_either():
    encoder, other, known = Words(), Words(), Words()
    vectors = known_vectors(encoder, known)
    assert known_vectors(encoder, known) is vectors
    assert known_vectors(other, known) is not vectors
    assert (encoder.made, other.made) == (1, 1)
    gone = weakref.ref(encoder)
    del encoder
    assert gone() is None
    kept = weakref.ref(known)
    del known
    assert kept() is None
