"""RecommendKeywords where something is missing."""

from types import SimpleNamespace

import numpy as np
import pytest

from madang.feature.v1 import feature_store_pb2 as f
from madang.search.v1 import search_pb2 as pb
from madang_runtime.columns import block
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.stages import Stages
from madang_runtime.telemetry import start_tracing
from madang_search.keywords.model import KeywordModel, keyword_code
from madang_search.keywords.recommending import KeywordRecommender
from madang_search.nearest import NearestSearcher
from madang_search.settings import KEYWORDS
from madang_search.suggesting import PhraseBook


@pytest.fixture(scope="module")
def model(workspace):
    registry = workspace.registry
    return KeywordModel(registry.load(KEYWORDS, registry.resolve(KEYWORDS)), threads=1)


class Store:
    """A feature store with one user's list and actions, or an error."""

    name = "features"

    def __init__(self, codes=(), actions=(), error=None):
        self.codes, self.actions, self.error = codes, actions, error
        self.asked = []

    def __call__(self, request):
        self.asked.append(request)
        if self.error:
            raise self.error
        codes = np.zeros((1, 20), np.int64)
        codes[0, : len(self.codes)] = self.codes
        return f.LookupFeaturesResponse(
            rows=[f.ViewRows(view="user_keywords", blocks=[block(["keywords"], codes, dims=[20])])],
            recent_actions=[f.RecentActions(user_id="u1", actions=self.actions)],
        )


@pytest.fixture
def recommend(model, encoder):
    """Asks for u1's keywords, of a store and a model."""
    nearest = NearestSearcher(encoder, Metrics())
    tuning = SimpleNamespace(near=encoder.parameters["near"])
    bundle = SimpleNamespace(encoder=encoder, nearest=nearest, tuning=tuning, version=model.version)

    def call(store, given=model, user="u1", **fields):
        def current():
            if isinstance(given, MadangError):
                raise given
            return given

        book = PhraseBook({"김치찌개": 5.0, "피자": 9.0})
        recommender = KeywordRecommender(current, lambda: bundle, lambda: book, store)
        stages = Stages(start_tracing("test", "", 0).get_tracer("t"), Metrics())
        return recommender.recommend(pb.RecommendKeywordsRequest(user_id=user, **fields), stages)

    return call


def texts(answer):
    return [keyword.text for keyword in answer.keywords]


def error(code, why):
    return MadangError(code, why, "no")


def test_nobody_gets_what_most_search_for_and_no_store_is_asked(recommend, model):
    store = Store()
    answer = recommend(store, user="", limit=3)
    assert (texts(answer), answer.list) == (model.keywords[:3], pb.KEYWORD_LIST_POPULAR)
    assert not store.asked
    assert answer.keywords[0].score == pytest.approx(model.shares[0])


def test_who_did_nothing_gets_their_list_without_keywords_that_are_gone(recommend, model):
    codes = [keyword_code(model.keywords[7]), keyword_code("gone"), keyword_code(model.keywords[2])]
    answer = recommend(Store(codes))
    assert (texts(answer), answer.list) == (
        [model.keywords[7], model.keywords[2]],
        pb.KEYWORD_LIST_BATCH,
    )
    gone = recommend(Store([keyword_code("gone")]), limit=2)
    assert (texts(gone), gone.list) == (model.keywords[:2], pb.KEYWORD_LIST_POPULAR)


def test_a_search_for_no_keyword_is_one_for_the_nearest(recommend, model):
    own = model.keywords[0]

    def after(query):
        actions = [f.Action(type=f.ACTION_TYPE_SEARCH, query=query)]
        return recommend(Store(actions=actions), limit=50)

    exact, near = after(f" {own} "), after(f"{own}!!")
    assert exact.list == near.list == pb.KEYWORD_LIST_REAL_TIME
    assert own not in texts(exact), "it was just searched for"
    assert [text for text in texts(near) if text != own] == texts(exact)[:49]
    odd = after("zzzz qqqq 1234")
    assert (odd.actions, odd.list) == (0, pb.KEYWORD_LIST_POPULAR)


def test_actions_on_what_is_not_known_do_not_count(recommend):
    actions = [f.Action(type=f.ACTION_TYPE_CLICK, item_id="new")]
    answer = recommend(Store(actions=actions))
    assert (answer.actions, answer.list) == (0, pb.KEYWORD_LIST_POPULAR)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (Code.UNAVAILABLE, reason.ERROR_REASON_STORE_UNAVAILABLE),
        (Code.DEADLINE_EXCEEDED, reason.ERROR_REASON_DEADLINE_EXCEEDED),
        (Code.NOT_FOUND, reason.ERROR_REASON_FEATURE_VIEW_NOT_FOUND),
    ],
)
def test_without_the_feature_store_all_are_newcomers(recommend, model, code, why):
    answer = recommend(Store(error=error(code, why)), limit=2)
    assert (texts(answer), answer.list) == (model.keywords[:2], pb.KEYWORD_LIST_POPULAR)
    assert [d.component for d in answer.serving_info.degraded] == ["featurestore"]


def test_a_refused_token_is_refused(recommend):
    bad = error(Code.INVALID_ARGUMENT, reason.ERROR_REASON_FRESHNESS_TOKEN_INVALID)
    with pytest.raises(MadangError, match="no"):
        recommend(Store(error=bad), freshness_token="?")


def test_without_a_version_phrases_are_what_is_popular(recommend):
    missing = error(Code.NOT_FOUND, reason.ERROR_REASON_MODEL_NOT_FOUND)
    answer = recommend(Store(), given=missing)
    assert (texts(answer), answer.list) == (["피자", "김치찌개"], pb.KEYWORD_LIST_POPULAR)
    assert [d.component for d in answer.serving_info.degraded] == ["keywords"]
