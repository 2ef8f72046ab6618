"""Items change while the mesh serves: every replica and worker agrees at once, through crashes."""

import time
import uuid

import grpc
import numpy as np
import pytest
from calls import EVENING, NOT_LOOPED, PLACE, Clients, degraded, recommend, refused, serve

from madang.candidate.v1 import candidate_pb2 as c
from madang.candidate.v1 import candidate_pb2_grpc
from madang_cli.mesh.mesh import LocalMesh, healthy, wait_for
from madang_cli.mesh.processes import ManagedProcess, free_port
from madang_pipelines.training import TOWER
from madang_runtime.columns import block


@pytest.fixture
def own(workspace, request):
    """A mesh of two workers a service, and a second replica of svc-candidate beside it."""
    with LocalMesh(
        workspace.home, f"items-{uuid.uuid4().hex[:6]}", workers=2, without=NOT_LOOPED
    ) as mesh:
        serve(mesh, workspace)
        mesh.wait_ready("consumer")
        yield mesh


@pytest.fixture
def replica(own, tmp_path):
    """The address of a second replica."""
    address = f"127.0.0.1:{free_port()}"
    command, environment = own.service_command("candidate", address)
    process = ManagedProcess("candidate", command, tmp_path / "log", environment)
    process.start()
    process.wait_until(lambda: healthy(address), 30)
    yield address
    process.stop()


@pytest.fixture
def clients(own):
    with grpc.insecure_channel(own.info.gateway) as channel:
        yield Clients(channel)


def shop(item_id, **fields):
    given = {"kind": 1, "place": PLACE, "delivery_radius_km": 3.0, **fields}
    return c.Item(item_id=item_id, **given)


def profile(n=1):
    """Features of n shops."""
    return [
        block(["item_profile.category", "item_profile.district"], np.array([[3, 2]] * n)),
        block(
            ["item_profile.latitude", "item_profile.longitude", "item_profile.price"],
            np.array([[PLACE["latitude"], PLACE["longitude"], 9.3]] * n, np.float32),
        ),
    ]


def retrieve(token="", **fields):
    return c.RetrieveRequest(
        user_id="u00001", place=PLACE, request_time=EVENING, freshness_token=token, **fields
    )


def position(clients):
    """The position in the item log that a worker has reached."""
    info = clients.candidate.GetIndexInfo(c.GetIndexInfoRequest(), timeout=5)
    return info.freshness_token


def asked(address, request, times=8):
    """The answers of fresh connections, which reach every worker."""
    answers = []
    for i in range(times):
        option = [("grpc.use_local_subchannel_pool", 1), ("madang.test", i)]
        with grpc.insecure_channel(address, options=option) as channel:
            stub = candidate_pb2_grpc.CandidateServiceStub(channel)
            answers.append(stub.Retrieve(request, timeout=5))
    return answers


def test_a_write_is_seen_by_the_next_read_on_every_replica_and_worker(own, replica, clients):
    everyone = (own.info.services["candidate"], replica)
    for round_ in range(5):
        item = f"new-{round_}"
        request = c.UpsertItemsRequest(items=[shop(item)], features=profile())
        token = clients.candidate.UpsertItems(request, timeout=5).freshness_token
        for address in everyone:
            for answer in asked(address, retrieve(token)):
                assert item in answer.item_ids
                assert not degraded(answer)
        page = clients.ranker.Recommend(recommend(page_size=100, freshness_token=token), timeout=5)
        (found,) = (i for i in page.items if i.item_id == item)
        assert found.click_probability > 0
        assert "it1-" in page.serving_info.freshness_token
        other = next(i.item_id for i in page.items if i.item_id != item)
        request = c.DeleteItemsRequest(item_ids=[item, other])
        token = clients.candidate.DeleteItems(request, timeout=5).freshness_token
        for address in everyone:
            for answer in asked(address, retrieve(token)):
                assert not {item, other} & set(answer.item_ids)
    quiet = c.UpsertItemsRequest(items=[shop("quiet")])
    token = clients.candidate.UpsertItems(quiet, timeout=5).freshness_token
    for address in everyone:  # without a token, by itself
        assert wait_for(lambda: all("quiet" in a.item_ids for a in asked(address, retrieve())), 3)  # noqa: B023
    with grpc.insecure_channel(replica) as channel:
        info = candidate_pb2_grpc.CandidateServiceStub(channel).GetIndexInfo(
            c.GetIndexInfoRequest(), timeout=5
        )
        assert (info.live_items, info.freshness_token) == (1, token)
        assert info.behind.ToMilliseconds() < 2000


def test_items_outlive_crashes_and_new_models(own, clients, workspace):
    many = [f"bulk-{i}" for i in range(1000)]
    request = c.UpsertItemsRequest(items=[shop(i, open_hours=0) for i in many])
    token = clients.candidate.UpsertItems(request, timeout=10).freshness_token
    gone = c.DeleteItemsRequest(item_ids=many[:990])
    token = clients.candidate.DeleteItems(gone, timeout=5).freshness_token
    left = set(many[990:])

    def complete():
        try:
            answer = clients.candidate.Retrieve(retrieve(token, limit=2000), timeout=5)
        except grpc.RpcError:
            return False
        return set(answer.item_ids) & set(many) == left

    assert wait_for(complete)
    own.kill("candidate")
    own.start("candidate")
    own.wait_ready("candidate")
    assert wait_for(complete), "restart"
    own.kill("store")
    own.start("store")
    own.wait_ready("store")
    assert wait_for(complete, 20), "the store's restart"
    registry = workspace.registry
    files = registry.load(TOWER, registry.resolve(TOWER))
    before = registry.resolve(TOWER)
    version = registry.register(
        TOWER,
        files.files,
        features=files.manifest.features,
        parameters=files.manifest.parameters,
    )
    registry.set_alias(TOWER, "champion", version)
    try:

        def swapped():
            answer = clients.candidate.Retrieve(retrieve(limit=2000), timeout=5)
            assert set(answer.item_ids) & set(many) == left, "no moment without them"
            return answer.serving_info.models[0].version == version

        assert wait_for(swapped, 30)
        assert complete()
    finally:
        registry.set_alias(TOWER, "champion", before)


def test_a_replica_that_is_behind_says_so(own, clients):
    ahead = retrieve("it1-999")
    assert refused(clients.candidate.Retrieve, ahead) == "UNAVAILABLE NOT_FRESH_YET"
    page = clients.ranker.Recommend(recommend(freshness_token="it1-999"), timeout=5)
    assert "candidate" in degraded(page)
    assert refused(clients.candidate.Retrieve, retrieve("what")) == (
        "INVALID_ARGUMENT FRESHNESS_TOKEN_INVALID freshness_token"
    )
    own.kill("store")
    assert wait_for(lambda: "items" in degraded(clients.candidate.Retrieve(retrieve())), 20)
    request = c.UpsertItemsRequest(items=[shop("lost")])
    assert refused(clients.candidate.UpsertItems, request) == "UNAVAILABLE STORE_UNAVAILABLE"
    own.start("store")
    own.wait_ready("store")
    assert wait_for(lambda: "items" not in degraded(clients.candidate.Retrieve(retrieve())), 20)
    assert position(clients) == "it1-0"


def test_bad_items_are_refused_with_the_field(clients):
    def refusal(**fields):
        request = c.UpsertItemsRequest(items=[shop("a"), shop("b", **fields)])
        return refused(clients.candidate.UpsertItems, request)

    invalid = "INVALID_ARGUMENT FIELD_INVALID"
    assert refusal(kind=0) == f"{invalid} items[1].kind"
    assert refusal(delivery_radius_km=float("nan")) == f"{invalid} items[1].delivery_radius_km"
    assert refusal(delivery_radius_km=101) == f"{invalid} items[1].delivery_radius_km"
    assert refusal(open_hours=1 << 24) == f"{invalid} items[1].open_hours"
    assert refusal(place={"latitude": 91}) == f"{invalid} items[1].place.latitude"
    features = [block(["item_profile.nothing"], np.array([[1]]))]
    request = c.UpsertItemsRequest(items=[shop("a")], features=features)
    why = refused(clients.candidate.UpsertItems, request)
    assert why.startswith("NOT_FOUND FEATURE_NOT_FOUND")
    short = c.UpsertItemsRequest(items=[shop("a"), shop("b")], features=profile())
    assert refused(clients.candidate.UpsertItems, short).startswith(
        "INVALID_ARGUMENT SHAPE_MISMATCH"
    )
    time.sleep(1)  # every worker has looked at the log
    assert position(clients) == "it1-0"
