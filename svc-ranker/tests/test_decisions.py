"""Pages are kept, logged and explained."""

import time

import numpy as np
import polars as pl
import pytest

from madang.common.v1 import serving_info_pb2
from madang.ranker.v1 import ranker_pb2 as pb
from madang.ranker.v1.decision_pb2 import Decision
from madang_cli.mesh.mesh import wait_for
from madang_pipelines.training import RANKER
from madang_ranker.decisions import DecisionLog
from madang_ranker.explain import Explainer
from madang_ranker.scoring import DcnScorer, ScoreRequest
from madang_ranker.stores.decisions import RedisDecisionStore
from madang_ranker.stores.parquet import decision_frame
from madang_runtime.archive import ParquetArchive
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.models.inputs import InputRows
from madang_runtime.stages import Stages
from madang_runtime.telemetry import start_tracing

AWAY = MadangError(Code.UNAVAILABLE, reason.ERROR_REASON_STORE_UNAVAILABLE, "away")


def page(request_id="r1", n=3, **fields):
    """A page of n items whose scoring was degraded, unless `fields` say more."""
    return Decision(
        request_id=request_id,
        user_id="u1",
        surface="home",
        model={"name": "ranker", "version": "v1"},
        first_position=11,
        item_ids=[f"i{k}" for k in range(n)],
        kinds=b"\1" * n,
        scores=np.linspace(1, 0, n, dtype="<f4").tobytes(),
        propensities=np.ones(n, "<f4").tobytes(),
        sources=["popular", "again"],
        source_ranks=np.array([[k + 1, 0] for k in range(n)], "<u2").tobytes(),
        source_scores=np.zeros((n, 2), "<f4").tobytes(),
        **fields,
    )


class Keeper:
    """Keeps pages in a dictionary, unless it is away."""

    def __init__(self):
        self.pages = {}
        self.away = False

    def keep(self, decisions):
        if self.away:
            raise AWAY
        self.pages |= {d.request_id: d for d in decisions}

    def find(self, request_id):
        return self.pages.get(request_id)

    def close(self):
        pass


def test_pages_are_kept_at_once_and_archived_when_due(tmp_path):
    keeper, metrics = Keeper(), Metrics()
    archive = ParquetArchive(f"file://{tmp_path}", decision_frame)
    log = DecisionLog(keeper, archive.write, metrics, flush_seconds=0.3)
    for n in range(50):
        log.note(page(f"r{n}"))
    assert wait_for(lambda: log.find("r49") == page("r49"))
    assert log.find("other") is None
    files = tmp_path / "*" / "*.parquet"
    assert wait_for(lambda: [*tmp_path.rglob("*.parquet")] and len(pl.read_parquet(files)) == 150)
    log.note(page("last"))
    log.close()
    assert len(pl.read_parquet(files)) == 51 * 3
    assert not list(tmp_path.rglob("*.part"))


def test_what_can_not_be_kept_is_counted_and_never_waited_for(tmp_path):
    keeper, metrics = Keeper(), Metrics()
    keeper.away = True
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    archive = ParquetArchive(f"file://{blocked}", decision_frame)
    log = DecisionLog(keeper, archive.write, metrics, capacity=5)
    started = time.perf_counter()
    for n in range(2000):
        log.note(page(f"r{n}"))
    assert time.perf_counter() - started < 1
    log.close()
    dropped = {
        sample.labels["what"]: sample.value
        for metric in metrics.records_dropped.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert dropped == {"store": 2000, "archive": 2000}


def test_the_archive_has_one_row_an_item_with_all_inputs():
    scored = page(
        "r2",
        n=2,
        place={"latitude": 37.5, "longitude": 127.0},
        request_time={"seconds": 1_775_300_400},
        degraded=[{"component": "candidate", "cause": "UNAVAILABLE"}],
        clicks=np.array([0.5, 0.25], "<f4").tobytes(),
        orders=np.array([0.1, 0.2], "<f4").tobytes(),
        user_ints=np.array([7, 8], "<i8").tobytes(),
        user_floats=np.array([np.nan], "<f4").tobytes(),
        context_ints=np.array([20, 2, 77], "<i8").tobytes(),
        context_floats=np.array([37.5, 127.0], "<f4").tobytes(),
        item_ints=np.array([[1, 2], [3, 4]], "<i8").tobytes(),
        item_floats=np.array([[1.5], [2.5]], "<f4").tobytes(),
    )
    frame = decision_frame([page("r1"), scored, page("r3", n=1)])
    assert frame["request_id"].sort().to_list() == ["r1"] * 3 + ["r2"] * 2 + ["r3"]
    second = frame.filter(pl.col("request_id") == "r2").row(1, named=True)
    assert second["time"].isoformat() == "2026-04-04T11:00:00+00:00"
    assert (second["position"], second["item_id"], second["click"]) == (12, "i1", 0.25)
    assert (second["item_ints"], second["item_floats"]) == ([3, 4], [2.5])
    assert (second["user_ints"], second["context_ints"]) == ([7, 8], [20, 2, 77])
    assert np.isnan(second["user_floats"]).all()
    assert second["degraded"] == ["candidate"]
    assert (second["sources"], second["source_ranks"]) == (["popular", "again"], [2, 0])
    unscored = frame.filter(pl.col("request_id") == "r1").row(0, named=True)
    assert (unscored["click"], unscored["item_ints"], unscored["propensity"]) == (None, [], 1.0)


EXPLORED = {
    "batch_id": "home-7",
    "segment": "cohort=2",
    "ranking": 5,
    "rankings": 64,
    "explored": b"\0\1",
    "rates": np.array([0, 0.25], "<f4").tobytes(),
    "pool_item_ids": ["x", "i1"],
    "pool_impressions": np.array([900, 300], "<u4").tobytes(),
    "pool_rewards": np.array([4, 30], "<u4").tobytes(),
}


def test_the_archive_has_what_a_bandit_did():
    tried = page("r1", n=2, exploration=EXPLORED)
    first, second, plain, *_ = decision_frame([tried, page("r2")]).iter_rows(named=True)
    assert (first["explored"], first["rate"], first["pool_item_ids"]) == (False, 0, None)
    assert (second["explored"], second["rate"], second["ranking"]) == (True, 0.25, 5)
    assert (second["bandit_batch"], second["segment"]) == ("home-7", "cohort=2")
    assert (second["pool_item_ids"], second["pool_impressions"]) == (["x", "i1"], [900, 300])
    assert second["pool_rewards"] == [4, 30]
    assert (plain["explored"], plain["bandit_batch"], plain["pool_item_ids"]) == (False, None, None)


def test_pages_are_forgotten(valkey):
    store = RedisDecisionStore(valkey, 1.0, ttl=0.2)
    store.keep([page("a"), page("b")])
    assert store.find("b") == page("b")
    time.sleep(0.3)
    assert store.find("b") is None
    store.close()
    dead = RedisDecisionStore("redis://127.0.0.1:1", 0.2, ttl=1)
    for call in (lambda: dead.keep([page()]), lambda: dead.find("x")):
        with pytest.raises(MadangError) as caught:
            call()
        assert caught.value.reason == reason.ERROR_REASON_STORE_UNAVAILABLE


@pytest.fixture(scope="module")
def scorer(workspace):
    registry = workspace.registry
    return DcnScorer(registry.load(RANKER, registry.resolve(RANKER)), Metrics())


@pytest.fixture
def explain(scorer):
    """Explains an item of a page that the scorer scored."""
    log = DecisionLog(Keeper(), None, Metrics())
    stages = Stages(start_tracing("test", "", 0).get_tracer("t"), Metrics())

    def call(decision, item_id=""):
        log._store.keep([decision])
        request = pb.ExplainRequest(request_id=decision.request_id, item_id=item_id)
        return Explainer(log, lambda: scorer).explain(request, stages)

    yield call
    log.close()


def scored(scorer, **fields):
    """A page as the scorer scores it."""
    user, items = scorer.user_inputs.defaults(1), scorer.item_inputs.defaults(2)
    items = InputRows(items.ints + 1, np.nan_to_num(items.floats) + 0.5)
    context = scorer.context(1_775_300_400_000, 37.5, 127.0)
    scores = scorer.score(ScoreRequest(user, context, items))
    return page(
        n=2,
        **{
            "clicks": scores.click.tobytes(),
            "orders": scores.order.tobytes(),
            "click_weight": 1.0,
            "order_weight": 4.0,
            "user_ints": user.ints.tobytes(),
            "user_floats": user.floats.tobytes(),
            "context_ints": context.ints.tobytes(),
            "context_floats": context.floats.tobytes(),
            "item_ints": items.ints.tobytes(),
            "item_floats": items.floats.tobytes(),
            **fields,
        },
    )


def versioned(scorer):
    decision = scored(scorer)
    decision.model.CopyFrom(scorer.version)
    return decision


def test_an_explanation_has_terms_reasons_and_contributions(scorer, explain):
    answer = explain(versioned(scorer), "i1")
    assert (answer.item_id, answer.position, answer.propensity) == ("i1", 12, 1.0)
    assert [(t.name, t.weight) for t in answer.terms] == [("click", 1.0), ("order", 4.0)]
    assert [(s.source, s.rank) for s in answer.reasons] == [("popular", 2)]
    names = {f.feature for f in answer.features}
    every = [*scorer.user_inputs.columns(), *scorer.item_inputs.columns()]
    assert names == {column.name for column in every}
    worth = [abs(f.contribution) for f in answer.features]
    assert worth == sorted(worth, reverse=True)
    assert worth[0] > 0
    absent = {f.feature: f.contribution for f in answer.features}["user_profile.user_code"]
    assert absent == pytest.approx(0, abs=1e-6), "a newcomer has no value to take away"


def test_a_contribution_is_what_the_score_loses_without_the_value(scorer, explain):
    decision = versioned(scorer)
    (price,) = (f for f in explain(decision).features if f.feature == "item_profile.price")
    lost = lost_without(scorer, decision, price.feature, 0)
    assert price.contribution == pytest.approx(lost @ [1, 4, 0], abs=1e-5)


def lost_without(scorer, decision, feature, i):
    """By how much P(click), P(order) and P(hide) of an item fall without a feature's value."""
    items = scorer.item_inputs.unpack(decision.item_ints, decision.item_floats)
    column = next(c for c in scorer.item_inputs.columns() if c.name == feature)
    context = InputRows(
        np.frombuffer(decision.context_ints, "<i8").reshape(1, -1),
        np.frombuffer(decision.context_floats, "<f4").reshape(1, -1),
    )
    user = scorer.user_inputs.unpack(decision.user_ints, decision.user_floats)
    with_, without = (
        scorer.score(ScoreRequest(user, context, rows))
        for rows in (items, scorer.item_inputs.without(items, column))
    )
    return np.subtract(*([s.click[i], s.order[i], s.hide[i]] for s in (with_, without)))


def test_an_ad_is_explained_by_what_it_pays_and_how_it_annoys(scorer, explain):
    decision = versioned(scorer)
    assert [t.name for t in explain(decision).terms] == ["click", "order"]
    decision.hides = np.array([0.25, 0.5], "<f4").tobytes()
    decision.bids = np.array([0, 200], "<f4").tobytes()
    decision.annoyance_weight, decision.revenue_weight = 2.0, 0.25
    answer = explain(decision, "i1")
    click = next(t.value for t in answer.terms if t.name == "click")
    terms = {t.name: (t.weight, t.value) for t in answer.terms}
    assert terms["annoyance"] == (-2, 0.5)
    assert terms["revenue"] == (0.25, pytest.approx(200 * click))
    (price,) = (f for f in answer.features if f.feature == "item_profile.price")
    lost = lost_without(scorer, decision, price.feature, 1)
    assert price.contribution == pytest.approx(lost @ [1 + 0.25 * 200, 4, -2], abs=1e-5)


def test_an_explanation_tells_the_draw_of_what_the_bandit_put_there(explain):
    tried = page(n=2, exploration=EXPLORED)
    assert not explain(tried, "i0").HasField("bandit")
    draw = explain(tried, "i1").bandit
    assert (draw.batch_id, draw.segment, draw.rate) == ("home-7", "cohort=2", 0.25)
    assert (draw.ranking, draw.rankings, draw.pool) == (5, 64, 2)
    assert (draw.impressions, draw.rewards) == (300, 30)


def test_what_can_not_be_explained_says_why(scorer, explain):
    assert "degraded" in explain(page()).unexplained
    other = scored(scorer)
    other.model.CopyFrom(serving_info_pb2.ModelVersion(name="ranker", version="older"))
    answer = explain(other)
    assert "older" in answer.unexplained
    assert len(answer.terms) == 2
    assert not answer.features
