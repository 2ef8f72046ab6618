"""Our own logs are worth what they say: the value of other policies is known and recovered."""

import shutil
import uuid

import numpy as np
import polars as pl
import pytest

from madang.ranker.v1 import ranker_pb2 as pb
from madang.ranker.v1.decision_pb2 import Decision
from madang_pipelines.sources.decision_log import load_explorations
from madang_ranker.bandit.batches import make_batch
from madang_ranker.bandit.draws import BatchDraws
from madang_ranker.bandit.layer import BanditLayer
from madang_ranker.bandit.policy import BanditPolicy
from madang_ranker.proposed import Proposed
from madang_ranker.reasons import Reasons
from madang_ranker.stores.parquet import decision_frame, feedback_frame
from madang_runtime.archive import ParquetArchive

PAGES, N, PAGE = 12_000, 30, 10
POLICY = BanditPolicy(reward="CLICK", every=4, depth=N, rankings=512, prior_failures=5)
RATES = np.random.default_rng(3).beta(4, 20, N)  # of a click, by item
IDS = [f"i{i}" for i in range(N)]


def seen_before():
    """Counts of an earlier week, from which the batch is drawn."""
    rng = np.random.default_rng(5)
    impressions = rng.integers(2, 10, N)
    rewards = rng.binomial(impressions, RATES)
    return np.stack([impressions, rewards], axis=1).astype(np.uint32)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Pages of 10 of which two positions explore, and what users did, written as we write it."""
    folder, rng = tmp_path_factory.mktemp("logs"), np.random.default_rng(7)
    batch = make_batch(POLICY, [("all", i) for i in IDS], seen_before())
    batch.batch_id, batch.seed = "home-1", 9
    layer = BanditLayer({"home": BatchDraws(batch)}.get)
    ranks = np.arange(1, N + 1, dtype=np.uint16)[:, None]
    scores = np.zeros((N, 1), np.float32)
    items = Proposed(IDS, b"\1" * N, scores[:, 0], Reasons(["explore"], ranks, scores))
    decisions, events = [], []
    for page in range(PAGES):
        order = rng.permutation(N)  # the model is no better than chance
        tried = layer.merge("home", POLICY, f"u{page}", 0, items, order)
        shown = tried.list.order[:PAGE]
        request_id = uuid.uuid4().hex
        decisions.append(
            Decision(
                request_id=request_id,
                surface="home",
                first_position=1,
                item_ids=[IDS[i] for i in shown],
                kinds=b"\1" * PAGE,
                scores=np.zeros(PAGE, "<f4").tobytes(),
                propensities=tried.list.propensities[:PAGE].astype("<f4").tobytes(),
                exploration=tried.of_page(items, slice(0, PAGE)),
            )
        )
        clicked = rng.random(PAGE) < RATES[shown]
        for i, hit in zip(shown.tolist(), clicked.tolist(), strict=True):
            events += [
                pb.FeedbackEvent(
                    event_id=f"{request_id}{i}{kind}",
                    type=f"FEEDBACK_TYPE_{kind}",
                    user_id=f"u{page}",
                    item_id=IDS[i],
                    request_id=request_id,
                )
                for kind in ("IMPRESSION", *["CLICK"] * hit)
            ]
    ParquetArchive(f"file://{folder}/decisions", decision_frame).write(decisions)
    archive = ParquetArchive(f"file://{folder}/feedback", feedback_frame)
    archive.write(events)
    archive.write(events[:500])  # a part that was written twice counts once
    return folder


def best_two_of_a_pool(believed):
    """The true mean rate of a pool's first two by what is believed. A pool is the 9 of 30 items
    that the model ranks last, which is any 9."""
    rng = np.random.default_rng(1)
    pools = np.array([rng.permutation(N)[:9] for _ in range(50_000)])
    order = np.argsort(-believed[pools], axis=1)[:, :2]
    return RATES[np.take_along_axis(pools, order, axis=1)].mean()


def test_the_value_of_other_policies_is_recovered_and_a_wrong_one_rejected(logs):
    found = load_explorations(logs, "home", "CLICK")
    assert len(found) == 2 * PAGES
    impressions, rewards = seen_before().T.astype(float)
    greedy = best_two_of_a_pool((rewards + 1) / (impressions + 100))
    for evaluation, truth, wrong in (
        (found.uniform(), RATES.mean(), greedy),
        (found.greedy(), greedy, RATES.mean()),
    ):
        assert evaluation.support == pytest.approx(1, abs=0.05)
        for name, estimate in evaluation.estimates.items():
            assert estimate.holds(truth), name
            assert not estimate.holds(wrong), name


def test_parts_of_different_versions_are_read_as_one_log(logs, tmp_path):
    folder = tmp_path / "logs"
    shutil.copytree(logs, folder)
    (part,) = (folder / "decisions").glob("**/*.parquet")
    pages = pl.read_parquet(part)
    pages[: len(pages) // 2].drop("hide", "bid").write_parquet(part.with_name("a.parquet"))
    pages[len(pages) // 2 :].with_columns(later=1).write_parquet(part)
    assert len(load_explorations(folder, "home", "CLICK")) == 2 * PAGES


def test_what_was_not_seen_or_not_logged_does_not_count(logs, tmp_path):
    with pytest.raises(ValueError, match="nothing that was explored on 'menu'"):
        load_explorations(logs, "menu", "CLICK")
    with pytest.raises(ValueError, match="no log"):
        load_explorations(tmp_path, "home", "CLICK")
    assert load_explorations(logs, "home", "CONVERSION").logged().value == 0
