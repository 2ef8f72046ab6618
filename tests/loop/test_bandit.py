"""What users do moves what the bandit shows, alike on every worker."""

import uuid
from pathlib import Path

import grpc
import pytest
from calls import NOT_LOOPED, Clients, recommend, serve

from madang.ranker.v1 import ranker_pb2 as r
from madang.ranker.v1 import ranker_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh, wait_for
from madang_pipelines.sources.decision_log import load_explorations


@pytest.fixture(scope="module")
def own(workspace):
    """A mesh of two workers a service."""
    with LocalMesh(workspace.home, "bandit", workers=2, without=NOT_LOOPED) as mesh:
        serve(mesh, workspace)
        mesh.wait_ready("consumer")
        with grpc.insecure_channel(mesh.info.gateway) as channel:
            stubs = Clients(channel)
            assert wait_for(lambda: explored(stubs, recommend())), "no first batch"
        yield mesh


@pytest.fixture(scope="module")
def clients(own):
    with grpc.insecure_channel(own.info.gateway) as channel:
        yield Clients(channel)


def event(kind, user, item, surface="", request_id=""):
    return r.FeedbackEvent(
        event_id=uuid.uuid4().hex,
        type=f"FEEDBACK_TYPE_{kind}",
        user_id=user,
        item_id=item,
        surface=surface,
        request_id=request_id,
    )


def tell(clients, events):
    for start in range(0, len(events), 1000):
        request = r.RecordFeedbackRequest(events=events[start : start + 1000])
        clients.ranker.RecordFeedback(request, timeout=5)


def explored(clients, request):
    """The explored positions of a page, from 1."""
    items = clients.ranker.Recommend(request, timeout=5).items
    return [position for position, item in enumerate(items, 1) if item.explored]


def discover(user, **fields):
    return recommend(user, surface="discover", page_size=20, **fields)


def why(clients, page, item):
    """Explain, once the page is kept."""
    request = r.ExplainRequest(request_id=page.request_id, item_id=item)
    found = []

    def kept():
        try:
            found.append(clients.ranker.Explain(request, timeout=5))
        except grpc.RpcError as error:
            return error.code() != grpc.StatusCode.NOT_FOUND
        return True

    assert wait_for(kept)
    return found[0]


def test_the_home_feed_explores_where_its_surface_says(clients):
    shops = [f"s{n:05d}" for n in range(400)]
    for kind in ("IMPRESSION", "CONVERSION"):
        tell(clients, [event(kind, "u", shop) for shop in shops])
    # Every shop has paid: the filter lets all pass, and there are enough for both positions.
    assert wait_for(lambda: explored(clients, recommend()) == [10, 20])
    page = clients.ranker.Recommend(recommend(), timeout=5)
    assert [i for i, item in enumerate(page.items, 1) if item.explored] == [10, 20]
    tried = why(clients, page, page.items[9].item_id)
    assert tried.bandit.batch_id.startswith("home-")
    assert tried.bandit.rankings == 64
    assert 1 / 64 <= tried.propensity <= 1
    assert tried.propensity * 64 == pytest.approx(round(tried.propensity * 64))
    assert {s.source for s in tried.reasons} >= {"explore"}
    assert not why(clients, page, page.items[0].item_id).HasField("bandit")


def test_a_list_is_the_same_within_the_hour_and_pages_continue_it(clients):
    whole = clients.ranker.Recommend(discover("u00007"), timeout=5)
    again = clients.ranker.Recommend(discover("u00007"), timeout=5)
    ids = [i.item_id for i in whole.items]
    assert ids == [i.item_id for i in again.items]
    request = discover("u00007")
    request.page_size = 7
    paged = []
    while len(paged) < 20:
        page = clients.ranker.Recommend(request, timeout=5)
        paged += [i.item_id for i in page.items]
        request.page_token = page.next_page_token
    assert paged[:20] == ids
    others = [clients.ranker.Recommend(discover(f"u{i:05d}"), timeout=5) for i in range(10)]
    assert len({tuple(i.item_id for i in page.items) for page in others}) > 5


def test_what_pays_in_a_segment_is_shown_there_on_every_worker(own, clients):
    page = clients.ranker.Recommend(discover("u00011"), timeout=5)
    *losers, winner = (item.item_id for item in page.items)
    events = [
        event("IMPRESSION", f"x{i}", item, "discover")
        for i in range(1000)
        for item in (*losers, winner)
    ]
    events += [event("CLICK", f"x{i}", winner, "discover") for i in range(500)]
    tell(clients, events)

    def pages():
        """u00012's list by new connections, which the kernel spreads over the workers."""
        for i in range(24):
            option = [("grpc.use_local_subchannel_pool", 1), ("madang.test", i)]
            with grpc.insecure_channel(own.info.services["ranker"], options=option) as channel:
                ranker = ranker_pb2_grpc.RankerServiceStub(channel)
                items = ranker.Recommend(discover("u00012"), timeout=5).items
                yield tuple((item.item_id, item.explored) for item in items)

    def agreed():
        seen = set(pages())
        return len(seen) == 1 and next(iter(seen))[0][0] == winner

    assert wait_for(agreed, 20)
    assert not {item for item, tried in next(pages()) if tried} & set(losers)
    page = clients.ranker.Recommend(discover("u00012"), timeout=5)
    drawn = why(clients, page, winner).bandit
    assert (drawn.impressions, drawn.rewards) == (1000, 500)
    assert 0.03 < drawn.rate < 0.9, "a segment without counts is not sure of it"


def test_the_logs_are_fit_to_judge_other_policies(own, clients):
    events, tried = [], 0
    for i in range(60):
        page = clients.ranker.Recommend(discover(f"u{i:05d}"), timeout=5)
        told = f"u{i:05d}", "discover", page.request_id
        seen = [("IMPRESSION", item.item_id) for item in page.items]
        for kind, item_id in [*seen, ("CLICK", page.items[0].item_id)]:
            events += [event(kind, told[0], item_id, *told[1:])]
        tried += sum(item.explored for item in page.items)
    tell(clients, events)
    folder = Path(own.info.folder)

    def all_logged():
        try:
            return len(load_explorations(folder, "discover", "CLICK")) == tried
        except ValueError:
            return False

    assert wait_for(all_logged, 20)
    found = load_explorations(folder, "discover", "CLICK")
    assert found.logged().value == pytest.approx(60 / tried)
    assert (found.propensity > 0).all()
    assert 0 < found.uniform().estimates["SNIPS"].value < 1
