"""The mesh as users meet it: JSON, gRPC-Web, traces, canaries, side by side."""

import base64
import json
import struct
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import grpc
import pytest
from calls import PLACE, degraded, recommend, serve, spans_of

from madang.feature.v1 import feature_store_pb2 as f
from madang.ranker.v1 import ranker_pb2
from madang_cli.mesh.mesh import LocalMesh, healthy, wait_for
from madang_cli.mesh.processes import ManagedProcess, free_port
from madang_cli.traces import tree


def post(url, body, content_type="application/json"):
    request = urllib.request.Request(
        url, data=body, headers={"Content-Type": content_type}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read(), dict(answer.headers)


def test_json_over_http(mesh):
    body = json.dumps({"userId": "u00001", "place": PLACE, "pageSize": 2}).encode()
    answer = json.loads(post(f"http://{mesh.info.gateway}/v1/recommend", body)[0])
    assert len(answer["items"]) == 2
    assert answer["servingInfo"]["models"][0]["name"] == "ranker"
    with urllib.request.urlopen(f"http://{mesh.info.gateway}/v1/feature-views/item_profile") as got:
        assert json.load(got)["view"]["entity"] == "item"


def test_json_errors_have_http_statuses_and_reasons(mesh):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(f"http://{mesh.info.gateway}/v1/recommend", b'{"userId": "u"}')
    assert caught.value.code == 400
    error = json.load(caught.value)
    assert "place" in error["message"]
    assert error["details"][0]["reason"] == "FIELD_INVALID"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{mesh.info.gateway}/v1/feature-views/none")
    assert caught.value.code == 404


def test_grpc_web(mesh):
    message = recommend(page_size=3).SerializeToString()
    body = b"\0" + struct.pack(">I", len(message)) + message
    url = f"http://{mesh.info.gateway}/madang.ranker.v1.RankerService/Recommend"
    answer, headers = post(url, body, "application/grpc-web+proto")
    assert headers["content-type"].startswith("application/grpc-web")
    (length,) = struct.unpack(">I", answer[1:5])
    assert len(ranker_pb2.RecommendResponse.FromString(answer[5 : 5 + length]).items) == 3
    assert b"grpc-status:0" in answer[5 + length :].replace(b" ", b"")


def test_a_click_shows_in_the_next_feed(mesh, clients):
    user = f"newcomer-{uuid.uuid4().hex}"
    before = clients.ranker.Recommend(recommend(user, page_size=100), timeout=5)
    assert "reactive" not in {r.source for i in before.items for r in i.reasons}
    liked = before.items[-1].item_id
    action = f.Action(event_id=str(uuid.uuid4()), user_id=user, type=2, item_id=liked)
    done = clients.features.RecordActions(f.RecordActionsRequest(actions=[action]), timeout=5)
    after = clients.ranker.Recommend(
        recommend(user, page_size=100, freshness_token=done.freshness_token), timeout=5
    )
    (item,) = [i for i in after.items if i.item_id == liked]
    assert ("reactive", 1) in {(r.source, r.rank) for r in item.reasons}


def test_one_recommend_is_one_trace_with_the_right_parents(mesh, clients):
    answer = clients.ranker.Recommend(recommend(), timeout=5)
    spans = spans_of(mesh, answer.serving_info.trace_id, leaves=7)
    by_id = {s.span_id: s for s in spans}
    (root,) = tree(spans)

    def chain(span):
        names = []
        while span:
            service = span.service.removeprefix("madang-")
            short = "" if service == "gateway" else span.name.rpartition("Service/")[2]
            names.append(f"{service} {short}".strip())
            span = by_id.get(span.parent_id)
        return names[::-1]

    assert root.service == "madang-gateway"
    chains = {tuple(chain(s)) for s in spans if not s.children}
    feed = ("gateway", "ranker Recommend")
    lookup = ("gateway", "featurestore LookupFeatures", "featurestore store read")
    retrieve = (*feed, "ranker retrieve", "gateway", "candidate Retrieve")
    arrivals = (*feed, "ranker arrivals", "gateway", "eta PredictBatch")
    assert chains == {
        (*retrieve, "candidate user_features", *lookup),
        (*retrieve, "candidate user_tower"),
        (*retrieve, "candidate sources"),
        (*feed, "ranker features", *lookup),
        (*feed, "ranker score"),
        (*arrivals, "eta features", *lookup),
        (*arrivals, "eta distribution"),
    }
    for span in spans:
        if parent := by_id.get(span.parent_id):
            slack = 2_000_000 if span.service != parent.service else 0
            assert parent.start - slack <= span.start <= span.end <= parent.end + slack


def test_the_callers_trace_goes_on(mesh, clients):
    trace_id = uuid.uuid4().hex
    metadata = (("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01"),)
    answer = clients.ranker.Recommend(recommend(), timeout=5, metadata=metadata)
    assert answer.serving_info.trace_id == trace_id


def test_a_canary_gets_its_share_of_users_and_keeps_them(own_mesh, own_clients, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    command, environment = own_mesh.service_command("ranker", address, arm="canary")
    canary = ManagedProcess("canary", command, tmp_path / "canary.log", environment)
    canary.start()
    try:
        canary.wait_until(lambda: healthy(address))
        users = [f"user-{n}" for n in range(120)]

        def served_by_canary(percent):
            own_mesh.set_canary("ranker", address, percent)
            if percent:
                assert wait_for(lambda: any(arm(u) == "canary" for u in users), 15)
            time.sleep(0.5)
            arms = [arm(u) for u in users]
            assert [arm(u) for u in users] == arms, "a user stays where they are"
            return {u for u, a in zip(users, arms, strict=True) if a == "canary"}

        def arm(user):
            metadata = (("x-madang-user", user),)
            answer = own_clients.ranker.Recommend(
                recommend(user, page_size=1), timeout=5, metadata=metadata
            )
            return answer.serving_info.experiment_arm

        some, many = served_by_canary(20), served_by_canary(60)
        assert 8 <= len(some) <= 45
        assert 48 <= len(many) <= 96
        assert some <= many, "users on the canary stay there as it grows"
        assert served_by_canary(0) == set()
    finally:
        canary.stop()


def test_meshes_run_side_by_side_and_clean_up(workspace, mesh):
    with LocalMesh(workspace.home, "second", without=("search", "targeting")) as second:
        assert second.info.gateway != mesh.info.gateway
        pids = second.processes().values()
        assert wait_for(lambda: healthy(second.info.services["featurestore"]))
        folder = Path(second.info.folder)
    left = {p.name for p in folder.iterdir()}
    assert left == {"traces.jsonl", *(f"{part}.log" for part in second.processes())}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_serve_alike(workspace, tmp_path):
    without = ("search", "targeting")
    with LocalMesh(workspace.home, "workers", workers=2, without=without) as many:
        serve(many, workspace)
        many.kill("consumer")  # it lets ads be shown to more users every second
        time.sleep(1.0)
        answers = set()
        for _ in range(12):
            with grpc.insecure_channel(many.info.services["ranker"]) as channel:
                call = channel.unary_unary(
                    "/madang.ranker.v1.RankerService/Recommend",
                    ranker_pb2.RecommendRequest.SerializeToString,
                    ranker_pb2.RecommendResponse.FromString,
                )
                answer = call(recommend(page_size=5), timeout=5)
                assert not degraded(answer)
                answers.add(tuple(i.item_id for i in answer.items))
        assert len(answers) == 1


def test_health_and_reflection_are_reached_through_the_gateway(mesh):
    with grpc.insecure_channel(mesh.info.gateway) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check")
        for service in mesh.info.services:
            answer = call(b"", timeout=5, metadata=(("x-madang-service", service),))
            assert answer == b"\x08\x01", "SERVING"
    assert base64.b64encode(answer) == b"CAE="
