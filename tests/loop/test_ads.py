"""Ads: what they pay, how they annoy, and that their budgets are kept, through crashes."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from calls import EVENING, NOT_LOOPED, PLACE, Clients, degraded, recommend, refused, serve

from madang.candidate.v1 import candidate_pb2 as c
from madang.common.v1 import place_pb2
from madang.ranker.v1 import pacing_pb2
from madang.ranker.v1 import ranker_pb2 as r
from madang_cli.mesh.mesh import LocalMesh, healthy, wait_for
from madang_cli.mesh.processes import ManagedProcess, free_port
from madang_runtime.changelog.compacted_redis import RedisCompactedLog

PLENTY, FREE = 10**12, 0


@pytest.fixture(scope="module")
def own(workspace):
    """A mesh of two workers a service."""
    with LocalMesh(workspace.home, "ads", workers=2, without=NOT_LOOPED) as mesh:
        serve(mesh, workspace)
        mesh.wait_ready("consumer")
        yield mesh


@pytest.fixture(scope="module")
def clients(own):
    with grpc.insecure_channel(own.info.gateway) as channel:
        yield Clients(channel)


def put(clients, **campaigns):
    """Campaigns of (bid, daily budget) by ad; the freshness token."""
    made = [
        c.Campaign(item_id=ad, bid_micros=bid, daily_budget_micros=budget)
        for ad, (bid, budget) in campaigns.items()
    ]
    request = c.UpsertCampaignsRequest(campaigns=made)
    return clients.candidate.UpsertCampaigns(request, timeout=5).freshness_token


def click(clients, ad, n):
    events = [
        r.FeedbackEvent(
            event_id=uuid.uuid4().hex, type=r.FEEDBACK_TYPE_CLICK, user_id="u", item_id=ad
        )
        for _ in range(n)
    ]
    clients.ranker.RecordFeedback(r.RecordFeedbackRequest(events=events), timeout=5)
    return events


def ads_page(clients, user="u00001", **fields):
    request = recommend(user, surface="ads", page_size=100, **fields)
    return clients.ranker.Recommend(request, timeout=5)


def spent(mesh):
    """What each ad has spent today, as the last pacing batch has it."""
    log = RedisCompactedLog(f"redis://{mesh.info.store}", "pacing", 1.0)
    payload = log.changes(0, 9).changed.get("all")
    log.close()
    batch = pacing_pb2.PacingBatch.FromString(payload or b"")
    values = [
        int.from_bytes(batch.spent_micros[8 * i : 8 * i + 8], "little")
        for i in range(len(batch.item_ids))
    ]
    return dict(zip(batch.item_ids, values, strict=True))


@pytest.fixture(scope="module")
def all_ads(clients):
    """The ads of the place, all free of charge and so shown to everyone."""
    ids = [f"a{n:05d}" for n in range(30)]
    token = put(clients, **dict.fromkeys(ids, (FREE, 0)))
    shown = [i.item_id for i in ads_page(clients, freshness_token=token).items]
    assert len(shown) >= 3
    return shown


def test_the_list_is_of_ads_by_utility(clients, all_ads):
    token = put(clients, **{all_ads[0]: (500_000_000, 0)})
    page = ads_page(clients, freshness_token=token)
    assert {i.kind for i in page.items} == {place_pb2.ITEM_KIND_AD}
    for item in page.items:
        bid = 500 if item.item_id == all_ads[0] else 0
        utility = (
            item.click_probability * (1 + 0.002 * bid)
            + 2 * item.conversion_probability
            - 2 * item.hide_probability
        )
        assert item.score == pytest.approx(utility, abs=1e-5)
        assert 0 < item.hide_probability < 1
        assert [s.source for s in item.reasons] == ["ads"]
    scores = [i.score for i in page.items]
    assert scores == sorted(scores, reverse=True)
    put(clients, **{all_ads[0]: (FREE, 0)})


def test_an_ad_with_a_budget_is_shown_until_it_is_spent(own, clients, all_ads):
    ad = all_ads[0]
    token = put(clients, **{ad: (1_000_000, 20_000_000)})
    users = [f"u{n:05d}" for n in range(40)]

    def shown():
        with ThreadPoolExecutor(4) as pool:
            pages = pool.map(lambda u: ads_page(clients, u, freshness_token=token), users)
            return sum(ad in {i.item_id for i in page.items} for page in pages)

    assert wait_for(lambda: 0 < shown() < 40), "it begins with a tenth of all users"
    click(clients, ad, 20)
    assert wait_for(lambda: shown() == 0), "on every worker"
    assert spent(own)[ad] == 20_000_000
    put(clients, **{ad: (1_000_000, PLENTY)})
    assert wait_for(lambda: shown() > 0), "it has budget again"
    put(clients, **{ad: (FREE, 0)})
    assert wait_for(lambda: shown() == 40)


@pytest.mark.parametrize("part", ["consumer", "store"])
def test_every_click_is_charged_once_through_a_crash(own, clients, all_ads, part):
    ad = all_ads[1 + ["consumer", "store"].index(part)]
    put(clients, **{ad: (3, PLENTY)})
    sent, unsure = 0, []
    for n in range(20):
        events = [
            r.FeedbackEvent(
                event_id=uuid.uuid4().hex, type=r.FEEDBACK_TYPE_CLICK, user_id="u", item_id=ad
            )
            for _ in range(10)
        ]
        request = r.RecordFeedbackRequest(events=events)
        try:
            clients.ranker.RecordFeedback(request, timeout=2)
        except grpc.RpcError:
            unsure.append(request)
        sent += len(events)
        if n == 8:
            own.kill(part)
        if n == 12:
            own.start(part)
            own.wait_ready(part)
    for request in unsure:
        clients.ranker.RecordFeedback(request, timeout=5)
    assert wait_for(lambda: spent(own).get(ad) == 3 * sent, 30), (spent(own).get(ad), 3 * sent)
    put(clients, **{ad: (FREE, 0)})


def test_budgets_that_nobody_watches_are_not_spent(own, clients, all_ads, tmp_path):
    """A replica for which a batch is old after a second, and a consumer that is gone."""
    put(clients, **{all_ads[0]: (1, PLENTY), all_ads[1]: (FREE, 0)})
    assert wait_for(lambda: all_ads[0] in spent(own))
    address = f"127.0.0.1:{free_port()}"
    command = own.service_command("candidate", address, pacing_stale_seconds="1")
    process = ManagedProcess("candidate", command[0], tmp_path / "log", command[1])
    process.start()
    try:
        process.wait_until(lambda: healthy(address))
        own.kill("consumer")
        with grpc.insecure_channel(address) as channel:
            retrieve = c.RetrieveRequest(user_id="u", place=PLACE, request_time=EVENING)
            stub = Clients(channel).candidate
            assert wait_for(lambda: degraded(stub.Retrieve(retrieve, timeout=5)) == {"pacing"})
            found = stub.Retrieve(retrieve, timeout=5).item_ids
            assert all_ads[0] not in found
            assert all_ads[1] in found
            own.start("consumer")
            assert wait_for(lambda: not degraded(stub.Retrieve(retrieve, timeout=5)))
    finally:
        process.stop()


def test_bad_campaigns_are_refused(clients):
    def upsert(*campaigns):
        request = c.UpsertCampaignsRequest(campaigns=campaigns)
        return refused(clients.candidate.UpsertCampaigns, request)

    assert upsert() == "INVALID_ARGUMENT FIELD_INVALID campaigns"
    good = {"item_id": "a", "bid_micros": 1}
    for field, bad in (("bid_micros", -1), ("daily_budget_micros", -1), ("bid_micros", 10**13)):
        assert upsert({**good, field: bad}) == (
            f"INVALID_ARGUMENT FIELD_INVALID campaigns[0].{field}"
        )
    assert upsert(good, good) == "INVALID_ARGUMENT FIELD_INVALID campaigns"
    assert upsert({"bid_micros": 1}) == "INVALID_ARGUMENT FIELD_INVALID campaigns[0].item_id"
