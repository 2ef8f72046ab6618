"""Paging, surfaces, fallback, reasons and scoring."""

import base64

import h3
import numpy as np
import pytest
from opentelemetry import trace
from pydantic import ValidationError

from madang.candidate.v1 import candidate_pb2
from madang.ranker.v1 import ranker_pb2 as pb
from madang_pipelines.training import RANKER
from madang_ranker.fallback import Fallback, pack_fallback
from madang_ranker.paging import Page, next_token, parse_page
from madang_ranker.reasons import Reasons
from madang_ranker.scoring import DcnScorer, ScoreRequest, Scores, batch_tensors
from madang_ranker.shedding import candidates_under
from madang_ranker.surfaces import find_surface, load_surfaces
from madang_runtime.errors import MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.models.inputs import InputRows
from madang_runtime.stages import Stages


def request(**fields):
    return pb.RecommendRequest(user_id="u", place={"latitude": 1, "longitude": 2}, **fields)


def refused(call) -> int:
    with pytest.raises(MadangError) as caught:
        call()
    return caught.value.reason


def test_a_page_token_continues_its_own_request_at_its_time():
    token = next_token(request(page_size=5), Page(5, 1234, 150))
    assert parse_page(request(page_size=7, page_token=token), 99) == Page(5, 1234, 150)
    assert parse_page(request(), 99) == Page(0, 99)
    for other in (request(page_token=token, surface="ads"), request(page_token=token + "x")):
        assert refused(lambda o=other: parse_page(o, 0)) == reason.ERROR_REASON_PAGE_TOKEN_INVALID


@pytest.mark.parametrize("text", ["", "a.b.c.d", "1.2", "-5.0.0.{}", "1e9.0.0.{}", "5.0.9.{}"])
def test_made_up_page_tokens_are_refused(text):
    digest = base64.urlsafe_b64decode(next_token(request(), Page(1, 1))).decode().split(".")[3]
    token = base64.urlsafe_b64encode(text.format(digest).encode()).decode() or "!"
    assert refused(lambda: parse_page(request(page_token=token), 0)) == (
        reason.ERROR_REASON_PAGE_TOKEN_INVALID
    )


def test_surfaces_come_from_yaml(tmp_path):
    surfaces = load_surfaces(None)
    assert find_surface(surfaces, "") is surfaces["home"]
    assert refused(lambda: find_surface(surfaces, "x")) == reason.ERROR_REASON_SURFACE_NOT_FOUND
    click, order, hide = np.array([[0.5, 0.1], [0.1, 0.1], [0.2, 0]], np.float32)
    scores, bids = Scores(click, order, hide), np.array([100, 0], np.float32)
    assert surfaces["home"].utility(scores, bids) == pytest.approx([0.9, 0.5])
    assert surfaces["ads"].utility(scores) == pytest.approx([0.5 + 0.2 - 0.4, 0.3])
    assert surfaces["ads"].utility(scores, bids) == pytest.approx([0.3 + 0.002 * 100 * 0.5, 0.3])
    path = tmp_path / "s.yaml"
    path.write_text("home: {click_weight: -1}")
    with pytest.raises(ValidationError):
        load_surfaces(path)


def test_the_fallback_knows_areas_and_everywhere():
    cell = h3.str_to_int(h3.latlng_to_cell(37.5, 127.0, 8))
    fallback = Fallback(pack_fallback({cell: ["a", "b"]}, 8))
    assert fallback.items(37.5, 127.0) == ["a", "b"]
    assert refused(lambda: fallback.items(0, 0)) == reason.ERROR_REASON_PLACE_NOT_SERVED
    assert Fallback(pack_fallback({cell: ["a"], 0: ["z"]}, 8)).items(0, 0) == ["z"]


def test_reasons_list_sources_by_rank():
    answer = candidate_pb2.RetrieveResponse(
        item_ids=["i", "j"],
        sources=["two_tower", "popular"],
        source_ranks=np.array([[7, 2], [0, 1]], "<u2").tobytes(),
        source_scores=np.array([[0.5, 9], [0, 10]], "<f4").tobytes(),
    )
    reasons = Reasons.of(answer)
    assert [(r.source, r.rank, r.score) for r in reasons.at(0)] == [
        ("popular", 2, 9.0),
        ("two_tower", 7, 0.5),
    ]
    assert [r.source for r in reasons.at(1)] == ["popular"]
    assert reasons.strength("popular").tolist() == [0, 1]
    assert reasons.strength("two_tower").tolist() == [1, 0]
    assert reasons.strength("reactive").tolist() == [0, 0]
    nothing = Reasons(["reactive"], np.zeros((2, 1), np.uint16), np.zeros((2, 1), np.float32))
    assert nothing.strength("reactive").tolist() == [0, 0]
    assert len(Reasons.of(candidate_pb2.RetrieveResponse(sources=["a"])).strength("a")) == 0


@pytest.mark.parametrize(
    ("pressure", "size", "kept"),
    [(0.0, 20, 300), (0.09, 20, 300), (0.5, 20, 150), (0.9, 20, 50), (2.0, 20, 50), (2.0, 90, 91)],
)
def test_quality_is_shed_by_pressure_but_no_page_is_cut(pressure, size, kept):
    stages = Stages(trace.get_tracer("t"), Metrics())
    surface = load_surfaces(None)["home"]
    found = candidates_under(pressure, size, surface, stages)
    assert found == kept
    named = [(d.component, d.cause) for d in stages.serving_info().degraded]
    assert named == ([("ranker", "RESOURCE_EXHAUSTED")] if kept < 300 else [])


@pytest.fixture(scope="module")
def scorer(workspace):
    registry = workspace.registry
    return DcnScorer(registry.load(RANKER, registry.resolve(RANKER)), Metrics())


def test_a_version_without_a_hide_head_annoys_nobody(scorer, monkeypatch):
    run = scorer._backend.run
    monkeypatch.setattr(
        scorer._backend, "run", lambda t: {k: v for k, v in run(t).items() if k != "hide"}
    )
    scores = scorer.score(some_request(scorer, 3, 0))
    assert scores.hide.tolist() == [0, 0, 0]
    assert (scores.click > 0).all()


def some_request(scorer, n, seed):
    rng = np.random.default_rng(seed)
    items = scorer.item_inputs.defaults(n)
    items.ints[:] = rng.integers(0, 20, items.ints.shape)
    floats = rng.normal(size=items.floats.shape).astype(np.float32)
    return ScoreRequest(
        scorer.user_inputs.defaults(1),
        scorer.context(1_770_000_000_000, 37.5, 127.0),
        InputRows(items.ints, floats),
    )


def test_scores_are_probabilities_and_orders_follow_clicks(scorer):
    scores = scorer.score(some_request(scorer, 40, 1))
    assert scores.click.shape == scores.order.shape == (40,)
    assert ((scores.click >= 0) & (scores.click <= 1)).all()
    assert (scores.order <= scores.click).all()


def test_a_batch_of_requests_scores_as_each_alone(scorer):
    requests = [some_request(scorer, n, n) for n in (3, 1, 7)]
    together = scorer._run(requests)
    for one, alone in zip(together, map(scorer.score, requests), strict=True):
        assert one.click == pytest.approx(alone.click, abs=1e-6)
        assert one.order == pytest.approx(alone.order, abs=1e-6)
    assert batch_tensors(requests, [3, 1, 7])["segment"].tolist() == [0] * 3 + [1] + [2] * 7


def test_absurd_numbers_are_scored_without_nan(scorer):
    odd = some_request(scorer, 3, 1)
    odd.items.floats[:] = 3e38
    odd.user.floats[:] = 3e38
    scores = scorer.score(odd)
    assert np.isfinite(scores.click).all()
    assert np.isfinite(scores.order).all()


def test_unknown_codes_and_missing_values_are_scored_as_newcomers(scorer):
    odd = some_request(scorer, 2, 1)
    odd.items.ints[:] = [[10**12], [-5]] * np.ones((1, odd.items.ints.shape[1]), np.int64)
    odd.items.floats[:] = np.nan
    zero = ScoreRequest(odd.user, odd.context, scorer.item_inputs.defaults(2))
    assert scorer.score(odd).click == pytest.approx(scorer.score(zero).click, abs=1e-6)
    assert np.isfinite(scorer.score(odd).order).all()
