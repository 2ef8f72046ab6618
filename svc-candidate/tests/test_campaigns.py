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
from madang_runtime.errors import MadangError

ADS = np.arange(0, 50, 5)  # of make_index
SHOWN_TO_U1 = [10, 20, 25, 40]


def campaign(item_id, bid=2_500_000, budget=1):
    return pb.Campaign(item_id=item_id, bid_micros=bid, daily_budget_micros=budget)


class Ads:
    """Campaigns and a pacing batch, without their logs."""

    def __init__(self, *campaigns):
        self.campaigns = AdCampaigns(300)
        self.put({c.item_id: c for c in campaigns})

    def put(self, campaigns):
        changed = {i: c and c.SerializeToString() for i, c in campaigns.items()}
        self.campaigns.apply_campaigns(changed, False)

    def pace(self, age=0.0, **rates):
        batch = pacing_pb2.PacingBatch(
            item_ids=rates, rates=np.array([*rates.values()], "<f4").tobytes()
        )
        batch.made_at.FromMilliseconds(int((time.time() - age) * 1000))
        self.campaigns.apply_pacing({"all": batch.SerializeToString()}, True)

    def allowed(self, index, user="u"):
        rows = np.arange(len(index))
        return self.campaigns.allowed(self.campaigns.of(index), user, rows)


def test_without_campaigns_nothing_is_filtered():
    assert Ads().campaigns.of(make_index()) is None


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


def test_chance_is_the_same_on_every_replica_and_page():
    index = make_index()
    ads = Ads(*(campaign(f"i{row}") for row in ADS))
    ads.pace(**{f"i{row}": 0.5 for row in ADS})
    of = ads.campaigns.of(index)
    assert of.shown_to("u1", 496_000, ADS).tolist() == SHOWN_TO_U1
    assert of.shown_to("u1", 496_000, ADS[3:]).tolist() == [row for row in SHOWN_TO_U1 if row >= 15]


def test_a_budget_that_nobody_watches_is_not_spent():
    index = make_index()
    ads = Ads(campaign("i0"), campaign("i5", budget=0))
    rows, stale = ads.allowed(index)
    assert 0 not in rows, "no batch has it yet"
    assert 5 in rows
    assert stale is None
    ads.pace(i0=1.0)
    assert 0 in ads.allowed(index)[0]
    for age in (301, -301):
        ads.pace(age=age, i0=1.0)
        rows, stale = ads.allowed(index)
        assert 0 not in rows
        assert 5 in rows
        assert stale.reason_name == "NOT_FRESH_YET"
        of = ads.campaigns.of(index)
        assert ads.campaigns.allowed(of, "u", np.arange(1, 50))[1] is None, "no ad with a budget"


def test_lists_for_nobody_in_particular_leave_out_what_is_spent():
    index, ads = make_index(), Ads(campaign("i0"), campaign("i5"), campaign("i10", budget=0))
    ads.pace(i0=0.0, i5=0.01)

    def solvent():
        return ads.campaigns.solvent(ads.campaigns.of(index), np.arange(11)).tolist()

    assert solvent() == [*range(1, 11)]
    ads.pace(age=301, i0=0.0, i5=0.01)
    assert solvent() == [1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_a_campaign_of_a_shop_keeps_it_from_nobody():
    index, ads = make_index(), Ads(campaign("i1"), campaign("gone"))
    assert 1 in ads.allowed(index)[0]
    assert ads.campaigns.of(index).bids.tolist() == [0] * 50


def test_changes_are_seen_at_once_and_made_ready_before_requests():
    index = make_index()
    ads = Ads(campaign("i0"))
    ads.pace(i0=1.0)
    made = ads.campaigns.of(index)
    assert ads.campaigns.of(index) is made
    assert made.bids[[0, 1]].tolist() == [2.5, 0]
    ads.put({"i0": None, "i5": campaign("i5", 1)})
    made = ads.campaigns.of(index)
    assert made.bids[[0, 5]].tolist() == pytest.approx([0, 1e-6])
    assert 0 in ads.allowed(index)[0]
    live = ItemIndex(index.trained, 1000, [LiveItem("i0", 2, 1, index.trained.vectors[0], None)])
    assert len(ads.campaigns.of(live).bids) == 51
    assert ads.campaigns.of(index) is made, "requests that began before keep theirs"


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
    rows, scores = AdVectors(ADS, vectors, 50).search(vectors[4], ADS[1:], 2)
    assert rows[0] == ADS[4]
    assert scores[0] == pytest.approx(1)
    assert len(rows) == 2


def test_a_live_ad_stands_beside_the_trained_ones():
    vectors = unit(len(ADS) + 1, 4)
    trained = make_index().trained
    trained.ad_rows, trained.ad_vectors = ADS, vectors[:-1]
    again = LiveItem("i5", 2, 1, trained.vectors[5], None, vectors[-1])
    index = ItemIndex(trained, 1000, [again], deleted=["i10"])
    allowed = index.allowed(None, 0, [2])
    assert 5 not in allowed, "the live one took its place"
    assert 10 not in allowed
    assert index.ads.search(vectors[-1], np.append(allowed, 50), 1)[0].tolist() == [50]
