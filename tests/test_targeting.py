"""svc-targeting through the gateway: each RPC, each documented error, caps, the way of a campaign,
faults."""

import json
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import polars as pl
import pytest
from calls import degraded, refused

from madang.targeting.v1 import targeting_pb2 as pb
from madang_cli.mesh.mesh import wait_for
from madang_cli.traces import all_spans
from madang_gateway.services import SERVICES
from madang_pipelines.city.campaigns import CHANNELS, GROUPS
from madang_pipelines.targeting.results import collect, with_campaigns
from madang_pipelines.targeting.training import train_targeting
from madang_runtime.clients import from_rpc_error
from madang_runtime.models.registry import ModelRegistry
from madang_targeting.audience import Audiences
from madang_targeting.model import TargetingModel
from madang_targeting.trees import TreeTraining

WITHOUT = {*SERVICES} - {"targeting", "featurestore", "candidate"}
CHICKEN = GROUPS[0]
CLICK = pb.OUTCOME_CLICK
DONE, FAILED, CANCELLED = (
    pb.OPERATION_STATE_DONE,
    pb.OPERATION_STATE_FAILED,
    pb.OPERATION_STATE_CANCELLED,
)


@pytest.fixture
def name():
    return f"t-{uuid.uuid4().hex[:8]}"


def create(name, **spec):
    given = {"groups": [CHICKEN], "channel": "push", "goal": CLICK, "size": 100, **spec}
    if "least_rate" in spec:
        del given["size"]
    return pb.CreateSegmentRequest(segment_id=name, spec=given)


def operation(clients, name):
    return clients.targeting.GetOperation(
        pb.GetOperationRequest(segment_id=name), timeout=5
    ).operation


def made(clients, name, **spec):
    """A segment, made."""
    clients.targeting.CreateSegment(create(name, **spec), timeout=5)
    assert wait_for(lambda: operation(clients, name).HasField("end_time"), 30)
    request = pb.GetSegmentRequest(segment_id=name)
    return clients.targeting.GetSegment(request, timeout=5).segment


def members(clients, name, part=pb.MEMBER_PART_MAIN):
    request = pb.ListMembersRequest(segment_id=name, part=part)
    return [u for m in clients.targeting.ListMembers(request, timeout=10) for u in m.user_ids]


def sends(campaign, users, channel="push", **fields):
    return pb.RecordSendsRequest(campaign_id=campaign, channel=channel, user_ids=users, **fields)


def caps(users, channel="push", **fields):
    return pb.CheckCapsRequest(channel=channel, user_ids=users, **fields)


# --- Segments -------------------------------------------------------------------------------


def test_there_is_a_choice(clients, city):
    answer = clients.targeting.GetAudienceInfo(pb.GetAudienceInfoRequest(), timeout=5)
    assert (answer.audience_size, CHICKEN in answer.groups) == (500, True)
    assert set(answer.channels) <= set(CHANNELS)
    known = city.tables.frames["campaigns"].select("campaign_id", "group", "channel").rows()
    assert {(c.campaign_id, c.group, c.channel) for c in answer.campaigns} == set(known)
    assert answer.serving_info.models[0].name == "targeting"


def test_a_segment_is_asked_for_made_listed_and_forgotten(clients, name):
    first = clients.targeting.CreateSegment(create(name), timeout=5).operation
    assert (first.segment_id, first.state) == (name, pb.OPERATION_STATE_PENDING)
    segment = made(clients, name)
    assert segment.operation.state == DONE, segment.operation
    result = segment.result
    assert (result.size, result.main_size, result.audience_size) == (100, 100, 500)
    best, all_ = result.expected.click_rate, result.everybody.click_rate
    assert best.low < best.expected < best.high
    assert best.expected > all_.expected
    users = members(clients, name)
    assert len(set(users)) == 100
    assert all(user.startswith("u") for user in users)
    again = clients.targeting.CreateSegment(create(name), timeout=5).operation
    assert again.state == DONE
    listed = clients.targeting.ListSegments(pb.ListSegmentsRequest(page_size=1000), timeout=5)
    assert name in [s.segment_id for s in listed.segments]
    clients.targeting.DeleteSegment(pb.DeleteSegmentRequest(segment_id=name), timeout=5)
    gone = "NOT_FOUND SEGMENT_NOT_FOUND"
    request = pb.ListMembersRequest(segment_id=name)
    assert refused(lambda r, **o: list(clients.targeting.ListMembers(r, **o)), request) == gone
    for rpc, kind in (
        (clients.targeting.GetOperation, pb.GetOperationRequest),
        (clients.targeting.CancelOperation, pb.CancelOperationRequest),
        (clients.targeting.GetSegment, pb.GetSegmentRequest),
        (clients.targeting.DeleteSegment, pb.DeleteSegmentRequest),
    ):
        assert refused(rpc, kind(segment_id=name)) == gone


def test_a_reference_campaign_finds_its_like(clients, city, name):
    campaign = city.tables.frames["campaigns"].row(0, named=True)
    spec = {"reference_campaign_ids": [campaign["campaign_id"]], "groups": []}
    segment = made(clients, name, channel=campaign["channel"], goal=pb.OUTCOME_ORDER, **spec)
    assert segment.operation.state == DONE, segment.operation
    result = segment.result
    assert result.learned_from > 100
    assert 20 <= result.responded < result.learned_from
    assert result.by_lookalike + result.by_preference >= result.size == 100
    truth = city.outreach.truth(
        np.arange(500), GROUPS.index(campaign["group"]), CHANNELS.index(campaign["channel"])
    )
    taken = [int(user[1:]) for user in members(clients, name)]
    assert truth.order_told[taken].mean() > 1.15 * truth.order_told.mean()


def test_segments_speak_json(mesh, clients, name):
    made(clients, name)
    base = f"http://{mesh.info.gateway}/v1/segments/{name}"
    with urllib.request.urlopen(base, timeout=5) as answer:
        assert json.load(answer)["segment"]["result"]["size"] == "100"
    with urllib.request.urlopen(f"{base}/operation", timeout=5) as answer:
        assert json.load(answer)["operation"]["state"] == "OPERATION_STATE_DONE"
    with urllib.request.urlopen(f"{base}/members", timeout=5) as answer:
        assert sum(len(message["userIds"]) for message in json.load(answer)) == 100


@pytest.mark.parametrize(
    ("segment_id", "spec", "why"),
    [
        ("", {}, "INVALID_ARGUMENT FIELD_INVALID segment_id"),
        ("a/b", {}, "INVALID_ARGUMENT FIELD_INVALID segment_id"),
        ("x" * 200, {}, "INVALID_ARGUMENT FIELD_INVALID segment_id"),
        ("t", {"goal": 0}, "INVALID_ARGUMENT FIELD_INVALID spec.goal"),
        ("t", {"goal": 7}, "INVALID_ARGUMENT FIELD_INVALID spec.goal"),
        ("t", {"channel": ""}, "INVALID_ARGUMENT FIELD_INVALID spec.channel"),
        ("t", {"groups": []}, "INVALID_ARGUMENT FIELD_INVALID spec.groups"),
        ("t", {"groups": ["g"] * 21}, "INVALID_ARGUMENT FIELD_INVALID spec.groups"),
        ("t", {"size": 0}, "INVALID_ARGUMENT FIELD_INVALID spec.size"),
        ("t", {"least_rate": float("nan")}, "INVALID_ARGUMENT FIELD_INVALID spec.least_rate"),
        ("t", {"held_out_share": 0.6}, "INVALID_ARGUMENT FIELD_INVALID spec.held_out_share"),
        ("t", {"sample_share": -0.1}, "INVALID_ARGUMENT FIELD_INVALID spec.sample_share"),
        (
            "t",
            {"sample_share": float("nan")},
            "INVALID_ARGUMENT FIELD_INVALID spec.sample_share",
        ),
        ("t", {"channel": "pigeon"}, "NOT_FOUND CHANNEL_NOT_FOUND channel"),
        ("t", {"groups": ["moon"]}, "NOT_FOUND PREFERENCE_GROUP_NOT_FOUND groups"),
        ("t", {"reference_campaign_ids": ["never"]}, "NOT_FOUND CAMPAIGN_NOT_FOUND"),
        ("t", {"within_segment_ids": ["never"]}, "NOT_FOUND SEGMENT_NOT_FOUND"),
    ],
)
def test_segment_errors(clients, segment_id, spec, why):
    assert refused(clients.targeting.CreateSegment, create(segment_id, **spec)) == why


def test_another_spec_under_the_same_id_is_refused(clients, name):
    clients.targeting.CreateSegment(create(name), timeout=5)
    why = refused(clients.targeting.CreateSegment, create(name, size=3))
    assert why == "ALREADY_EXISTS SEGMENT_EXISTS"


def test_the_same_at_once_is_one(clients, name):
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: clients.targeting.CreateSegment(create(name), timeout=5), range(16))
        )
    assert len({a.operation.create_time.ToMilliseconds() for a in answers}) == 1


def test_the_making_of_a_segment_is_a_trace(mesh, clients, name):
    made(clients, name)

    def seen():
        return [s for s in all_spans(Path(mesh.info.traces)) if s.name == "segment"]

    assert wait_for(lambda: bool(seen()), 5)
    assert {s.service for s in seen()} == {"madang-targeting"}


def test_a_call_is_one_trace_with_its_store(mesh, clients):
    trace_id = uuid.uuid4().hex
    metadata = (("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01"),)
    clients.targeting.CheckCaps(caps(["u00001"]), timeout=5, metadata=metadata)

    def chain():
        spans = [s for s in all_spans(Path(mesh.info.traces)) if s.trace_id == trace_id]
        by_id = {s.span_id: s for s in spans}
        leaf = next((s for s in spans if s.name == "caps"), None)
        names = []
        while leaf:
            names.append(leaf.service.removeprefix("madang-"))
            leaf = by_id.get(leaf.parent_id)
        return names

    assert wait_for(lambda: chain() == ["targeting", "targeting", "gateway"], 10), chain()


# --- EstimateAudience -----------------------------------------------------------------------


def test_an_audience_is_estimated_as_its_segments_turn_out(clients, name):
    request = pb.EstimateAudienceRequest(groups=[CHICKEN], channel="push", goal=CLICK)
    answer = clients.targeting.EstimateAudience(request, timeout=5)
    assert answer.audience_size == 500
    assert answer.curve[-1].size == 500
    rates = [point.click_rate.expected for point in answer.curve]
    assert rates == sorted(rates, reverse=True)
    result = made(clients, name).result
    near = min(answer.curve, key=lambda point: abs(point.size - 100))
    assert near.click_rate.expected == pytest.approx(result.expected.click_rate.expected, rel=0.1)
    assert answer.allowed.low <= answer.allowed.expected <= answer.allowed.high
    assert answer.serving_info.models[0].name == "targeting"
    assert not degraded(answer)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"groups": []}, "INVALID_ARGUMENT FIELD_INVALID groups"),
        ({"goal": 0}, "INVALID_ARGUMENT FIELD_INVALID goal"),
        ({"channel": "pigeon"}, "NOT_FOUND CHANNEL_NOT_FOUND channel"),
        ({"groups": ["moon"]}, "NOT_FOUND PREFERENCE_GROUP_NOT_FOUND groups"),
    ],
)
def test_estimate_errors(clients, fields, why):
    given = {"groups": [CHICKEN], "channel": "push", "goal": CLICK, **fields}
    assert refused(clients.targeting.EstimateAudience, pb.EstimateAudienceRequest(**given)) == why


# --- Caps and results -----------------------------------------------------------------------


def test_messages_are_within_caps(clients, name):
    users = [f"{name}-{i}" for i in range(3)]
    for campaign in ("a", "b"):
        answer = clients.targeting.RecordSends(sends(f"{name}-{campaign}", users[:2]), timeout=5)
        assert answer.recorded == b"\1\1"
    answer = clients.targeting.RecordSends(sends(f"{name}-c", users), timeout=5)
    assert (answer.recorded, answer.recorded_count) == (b"\0\0\1", 1)
    checked = clients.targeting.CheckCaps(caps(users), timeout=5)
    assert (checked.allowed, checked.allowed_count) == (b"\0\0\1", 1)
    again = clients.targeting.CheckCaps(caps(users, campaign_id=f"{name}-a"), timeout=5)
    assert again.allowed == b"\1\1\1", "a campaign counts once"
    mail = clients.targeting.CheckCaps(caps(users, "mail"), timeout=5)
    assert mail.allowed == b"\1\1\1"
    later = {"seconds": int(time.time()) + 86_500}
    tomorrow = clients.targeting.CheckCaps(caps(users, send_time=later), timeout=5)
    assert tomorrow.allowed == b"\1\1\1"


def test_many_senders_at_once_send_no_more_than_caps_allow(clients, name):
    users = [f"{name}-{i}" for i in range(200)]

    def send(number):
        return clients.targeting.RecordSends(sends(f"{name}-{number}", users), timeout=10)

    with ThreadPoolExecutor(64) as pool:
        columns = [np.frombuffer(a.recorded, np.uint8) for a in pool.map(send, range(64))]
    assert np.sum(columns, axis=0).tolist() == [2] * 200


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (sends("c", []), "INVALID_ARGUMENT FIELD_INVALID user_ids"),
        (sends("c", ["u"] * 100_000), "INVALID_ARGUMENT FIELD_INVALID user_ids"),
        (sends("c", ["u", "u"]), "INVALID_ARGUMENT FIELD_INVALID user_ids"),
        (sends("c", ["u", ""]), "INVALID_ARGUMENT FIELD_INVALID user_ids[1]"),
        (sends("", ["u"]), "INVALID_ARGUMENT FIELD_INVALID campaign_id"),
        (sends("c", ["u"], "pigeon"), "NOT_FOUND CHANNEL_NOT_FOUND channel"),
        (
            sends("c", ["u"], send_time={"seconds": 1}),
            "INVALID_ARGUMENT FIELD_INVALID send_time",
        ),
        (
            sends("c", ["u"], send_time={"seconds": -(10**15)}),
            "INVALID_ARGUMENT FIELD_INVALID send_time",
        ),
    ],
)
def test_send_errors(clients, request_, why):
    assert refused(clients.targeting.RecordSends, request_) == why
    if request_.campaign_id:
        same = caps(request_.user_ids, request_.channel)
        if request_.HasField("send_time"):
            same.send_time.CopyFrom(request_.send_time)
        assert refused(clients.targeting.CheckCaps, same) == why


def test_results_are_listed_as_columns(clients, name):
    users = [f"{name}-{i}" for i in range(3)]
    clients.targeting.RecordSends(sends(name, users[:2]), timeout=5)
    for outcome, who in ((CLICK, users[:1]), (pb.OUTCOME_ORDER, users[1:] * 2)):
        request = pb.RecordResultsRequest(campaign_id=name, outcome=outcome, user_ids=who)
        clients.targeting.RecordResults(request, timeout=5)
    request = pb.ListResultsRequest(campaign_id=name)
    (answer,) = clients.targeting.ListResults(request, timeout=5)
    assert list(answer.user_ids) == users
    assert (answer.sent, answer.clicked, answer.ordered) == (b"\1\1\0", b"\1\0\0", b"\0\1\1")
    never = pb.ListResultsRequest(campaign_id="never")
    why = refused(lambda r, **o: list(clients.targeting.ListResults(r, **o)), never)
    assert why == "NOT_FOUND CAMPAIGN_NOT_FOUND"
    for fields in ({"campaign_id": ""}, {"outcome": 0}, {"user_ids": []}):
        given = {"campaign_id": name, "outcome": 1, "user_ids": users, **fields}
        error = refused(clients.targeting.RecordResults, pb.RecordResultsRequest(**given))
        assert error == f"INVALID_ARGUMENT FIELD_INVALID {next(iter(fields))}"


def test_sample_then_learn_then_the_main_part(mesh, clients, city, name, tmp_path):
    """The way of a campaign; the city's users answer as their tastes are."""
    campaign = f"{name}-chicken"
    spec = {"campaign_id": campaign, "held_out_share": 0.1}
    made(clients, f"{name}-1", size=450, sample_share=0.5, **spec)
    sample = members(clients, f"{name}-1", pb.MEMBER_PART_SAMPLE)
    answer = clients.targeting.RecordSends(sends(campaign, sample), timeout=5)
    told = [u for u, may in zip(sample, answer.recorded, strict=True) if may]
    rows = np.array([int(u[1:]) for u in told])
    frame, _ = city.outreach.send(rows, np.ones(len(rows), bool), 0, 0)
    clicked = frame.filter("clicked")["user_id"].to_list()
    assert len(clicked) >= 20, "enough to learn from"
    request = pb.RecordResultsRequest(campaign_id=campaign, outcome=CLICK, user_ids=clicked)
    clients.targeting.RecordResults(request, timeout=5)
    segment = made(
        clients,
        f"{name}-2",
        reference_campaign_ids=[campaign],
        exclude_told_campaign_ids=[campaign],
        **spec,
    )
    assert segment.operation.state == DONE, segment.operation
    assert (segment.result.learned_from, segment.result.responded) == (len(told), len(clicked))
    main = members(clients, f"{name}-2")
    assert not set(main) & set(told)
    held = set(members(clients, f"{name}-1", pb.MEMBER_PART_HELD_OUT))
    assert not set(main) & held, "who is held out of a campaign stays so"

    # The next training learns from it as from any campaign before.
    campaigns, sent = collect(mesh.info.gateway)
    own = sent.filter(campaign_id=campaign)
    assert campaigns.filter(campaign_id=campaign).rows() == [(campaign, CHICKEN, "push")]
    assert set(own.filter("told")["user_id"]) == set(told)
    assert set(own.filter("clicked")["user_id"]) == set(clicked)
    assert set(own.filter(~pl.col("told"))["user_id"]) >= held
    tables = replace(city.tables, frames=dict(city.tables.frames))
    with_campaigns(tables, campaigns, sent)
    registry = ModelRegistry(f"file://{tmp_path}")
    version = train_targeting(tables, registry, TreeTraining(rounds=10))
    model = TargetingModel(registry.load("targeting", version), Audiences(registry, tmp_path).get)
    known = model.recipients([campaign], "clicked")
    assert (len(known.did), int(known.did.sum())) == (len(told), len(clicked))
    with_campaigns(tables, campaigns, sent)
    assert len(tables.frames["sends"]) == len(city.tables.frames["sends"]) + len(sent), "once"


# --- Faults ---------------------------------------------------------------------------------


def test_a_segment_survives_the_death_of_its_service_and_of_the_store(own_mesh, own_clients, name):
    own_clients.targeting.CreateSegment(create(name), timeout=5)
    own_mesh.kill("targeting")
    own_mesh.start("targeting")
    own_mesh.wait_ready("targeting")
    assert wait_for(lambda: answered(own_clients, name) == DONE, 40)
    before = members(own_clients, name)
    own_mesh.kill("store")
    assert refused(own_clients.targeting.GetSegment, pb.GetSegmentRequest(segment_id=name)) == (
        "UNAVAILABLE STORE_UNAVAILABLE"
    )
    assert refused(own_clients.targeting.RecordSends, sends(name, ["u1"])) == (
        "UNAVAILABLE STORE_UNAVAILABLE"
    )
    request = pb.EstimateAudienceRequest(groups=[CHICKEN], channel="push", goal=CLICK)
    answer = own_clients.targeting.EstimateAudience(request, timeout=5)
    assert degraded(answer) == {"store"}
    assert answer.curve
    assert not answer.HasField("allowed")
    own_mesh.start("store")
    own_mesh.wait_ready("store")
    assert wait_for(lambda: answered(own_clients, name) == DONE, 10)
    assert members(own_clients, name) == before
    assert made(own_clients, f"{name}-next").operation.state == DONE, "and the worker goes on"


def answered(clients, name):
    try:
        return operation(clients, name).state
    except grpc.RpcError:
        return None


def test_without_a_model_caps_go_on(own_mesh, own_clients, workspace, name):
    registry = workspace.registry
    version = registry.resolve("targeting")
    registry.remove_alias("targeting", "champion")
    try:
        why = "FAILED_PRECONDITION MODEL_NOT_FOUND"
        assert wait_for(lambda: reason_of(own_clients, uuid.uuid4().hex) == why, 10)
        answer = own_clients.targeting.RecordSends(sends(name, ["u1"]), timeout=5)
        assert answer.recorded_count == 1
    finally:
        registry.set_alias("targeting", "champion", version)
    assert wait_for(lambda: reason_of(own_clients, name) == "", 10)
    assert wait_for(lambda: answered(own_clients, name) == DONE, 30)


def reason_of(clients, name):
    try:
        clients.targeting.CreateSegment(create(name), timeout=5)
    except grpc.RpcError as caught:
        error = from_rpc_error(caught)
        return f"{error.code.value} {error.reason_name}"
    return ""
