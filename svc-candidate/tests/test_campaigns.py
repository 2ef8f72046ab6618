"""Which ads may be shown, and where they come from."""

import time

import numpy as np
import pytest
from indexes import make_index, unit

from madang.candidate.v1 import candidate_pb2 as pb
from madang.ranker.v1 import pacing_pb2
from madang_candidate.campaigns import AdCampaigns
from madang_candidate.editing import CatalogueEditor
from madang_candidate.index import AdVectors, ItemIndex, LiveItem
from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.changelog.table import LogTable
from madang_runtime.errors import MadangError

ADS = np.arange(0, 50, 5)  # of make_index


def campaign(item_id, bid=2_500_000, budget=1):
    return pb.Campaign(item_id=item_id, bid_micros=bid, daily_budget_micros=budget)


class Ads:
    """Campaigns and a pacing batch, without their logs."""

    def __init__(self, *campaigns):
        self.campaigns = LogTable(pb.Campaign.FromString)
        self.pacing = LogTable(pacing_pb2.PacingBatch.FromString)
        self.of = AdCampaigns(self.campaigns, self.pacing, 300)
        self.campaigns.apply({c.item_id: c.SerializeToString() for c in campaigns}, True)

    def pace(self, age=0.0, **rates):
        batch = pacing_pb2.PacingBatch(
            item_ids=rates, rates=np.array([*rates.values()], "<f4").tobytes()
        )
        batch.made_at.FromMilliseconds(int((time.time() - age) * 1000))
        self.pacing.apply({"all": batch.SerializeToString()}, True)

    def allowed(self, index, user="u", rows=None):
        rows = np.arange(len(index)) if rows is None else rows
        return self.of.allowed(self.of.of(index), user, rows)


def test_without_campaigns_nothing_is_filtered():
    assert Ads().of.of(make_index()) is None


def test_an_ad_is_shown_to_its_rate_of_users():
    index = make_index()
    ads = Ads(campaign("i0"), campaign("i5"), campaign("i10"), campaign("i15", budget=0))
    ads.pace(i0=0.3, i5=0.0, i10=1.0)
    shown = [set(ads.allowed(index, f"u{n}")[0].tolist()) for n in range(1000)]
    assert np.mean([0 in rows for rows in shown]) == pytest.approx(0.3, abs=0.05)
    assert not any(5 in rows for rows in shown), "its budget is spent"
    always = set(range(50)) - {0, 5}
    assert all(always <= rows for rows in shown)


def test_users_draw_apart_and_ads_draw_apart():
    index = make_index()
    ads = Ads(campaign("i0"), campaign("i5"))
    ads.pace(i0=0.5, i5=0.5)
    both = [np.isin([0, 5], ads.allowed(index, f"u{n}")[0]) for n in range(2000)]
    assert np.mean([a and b for a, b in both]) == pytest.approx(0.25, abs=0.04)


def test_it_is_the_same_on_every_replica_and_page():
    ads = [Ads(campaign("i0"), campaign("i5")) for _ in range(2)]
    for replica in ads:
        replica.pace(i0=0.5, i5=0.5)
    for n in range(20):
        one, other = (replica.allowed(make_index(), f"u{n}")[0] for replica in ads)
        assert one.tolist() == other.tolist()


def test_a_budget_that_nobody_watches_is_not_spent():
    index = make_index()
    ads = Ads(campaign("i0"), campaign("i5", budget=0))
    rows, stale = ads.allowed(index)
    assert 0 not in rows, "no batch has it yet"
    assert 5 in rows
    assert stale is None
    ads.pace(i0=1.0)
    assert 0 in ads.allowed(index)[0]
    ads.pace(age=301, i0=1.0)
    rows, stale = ads.allowed(index)
    assert 0 not in rows
    assert 5 in rows
    assert stale.reason_name == "NOT_FRESH_YET"


def test_changes_are_seen_at_once():
    index = make_index()
    ads = Ads(campaign("i0"))
    ads.pace(i0=1.0)
    assert ads.of.of(index) is ads.of.of(index), "made once"
    assert ads.of.of(index).bids[[0, 1]].tolist() == [2.5, 0]
    ads.campaigns.apply({"i0": None, "i5": campaign("i5", 1).SerializeToString()}, False)
    assert ads.of.of(index).bids[[0, 5]].tolist() == pytest.approx([0, 1e-6])
    assert 0 in ads.allowed(index)[0]
    live = LiveItem("i0", 2, 1, index.trained.vectors[0], None)
    assert len(ads.of.of(ItemIndex(index.trained, 1000, [live])).bids) == 51


def test_campaigns_are_put_in_and_ended():
    log = MemoryCompactedLog()
    editor = CatalogueEditor(MemoryCompactedLog(), MemoryCompactedLog(), log, None)
    made = [campaign("a"), campaign("b")]
    token = editor.upsert_campaigns(pb.UpsertCampaignsRequest(campaigns=made)).freshness_token
    assert token == "ca1-2"
    made[0].ended = True
    editor.upsert_campaigns(pb.UpsertCampaignsRequest(campaigns=made[:1]))
    assert log.changes(0, 9).changed == {"b": made[1].SerializeToString(), "a": None}
    with pytest.raises(MadangError, match="'b' twice"):
        editor.upsert_campaigns(pb.UpsertCampaignsRequest(campaigns=[made[1]] * 2))


def test_ads_are_found_by_their_own_vectors():
    vectors = unit(len(ADS), 4)
    found = AdVectors(ADS, vectors, 50)
    allowed = found.among(np.array([1, 5, 6, 10, 20, 45]))
    assert allowed.tolist() == [5, 10, 20, 45]
    rows, scores = found.search(vectors[4], allowed, 2)
    assert rows[0] == 20
    assert scores[0] == pytest.approx(1)
    assert len(rows) == 2
    assert found.among(np.array([1, 2])).tolist() == []


def test_a_live_ad_has_a_vector_of_its_own():
    index = make_index()
    assert index.ads.among(np.arange(50)).tolist() == [], "no ad was trained"
    live = LiveItem("new", 2, 1, index.trained.vectors[0], None, unit(1, 1)[0])
    index = ItemIndex(index.trained, 1000, [live])
    assert index.ads.among(np.arange(51)).tolist() == [50]
