"""svc-eta through the gateway: each RPC, each documented error, lists, buffers, shadow, faults."""

import time
import uuid

import h3
import numpy as np
import polars as pl
import pytest
from calls import EVENING, PLACE, Clients, degraded, recommend, refused
from test_telemetry import scraped

from madang.eta.v1 import eta_pb2 as pb
from madang.feature.v1 import feature_store_pb2 as f
from madang_cli.mesh.mesh import wait_for
from madang_eta.lists import CELL_RESOLUTION, list_key
from madang_eta.stage_model import EtaModel
from madang_pipelines.eta.training import EtaPlan, make_examples
from madang_runtime.columns import block
from madang_runtime.times import now_ms

HOME = h3.latlng_to_cell(PLACE["latitude"], PLACE["longitude"], CELL_RESOLUTION)


@pytest.fixture(scope="module")
def shop(clients) -> str:
    """A shop near PLACE whose kind of service is standard."""
    page = clients.ranker.Recommend(recommend(page_size=20), timeout=5)
    ids = [item.item_id for item in page.items if item.item_id.startswith("s")]
    kinds = {i: clients.eta.Predict(order(i), timeout=5).service for i in ids}
    return next(i for i, kind in kinds.items() if kind == "standard")


def order(shop_id="", **fields):
    return pb.PredictRequest(
        **{"shop_id": shop_id, "place": PLACE, "order_time": EVENING, **fields}
    )


def batch(*shop_ids, **fields):
    return pb.PredictBatchRequest(**{"shop_ids": shop_ids, "place": PLACE, **fields})


def later(minutes, since=EVENING):
    return {"seconds": since["seconds"] + round(minutes * 60)}


def column(packed, dtype="<f4"):
    return np.frombuffer(packed, dtype)


def pmf(answer):
    return column(answer.probabilities)


# --- Predict --------------------------------------------------------------------------------


def test_a_prediction_is_a_distribution_and_what_follows_from_it(clients, shop):
    answer = clients.eta.Predict(order(shop, quantiles=[0.1, 0.5, 0.9], hit_rate=0.9), timeout=5)
    found = pmf(answer)
    assert len(found) == 120
    assert found.sum() + answer.beyond == pytest.approx(1, abs=1e-4)
    below = np.cumsum(found)
    for level, minutes in zip((0.1, 0.5, 0.9), answer.quantile_minutes, strict=True):
        assert np.interp(minutes, np.arange(1, 121), below) == pytest.approx(level, abs=0.01)
    shown, sure = answer.window, answer.sure_window
    assert shown.end_minute - shown.start_minute == 10
    assert shown.start_minute <= found.argmax() < shown.end_minute
    inside = found[shown.start_minute : shown.end_minute].sum()
    assert shown.probability == pytest.approx(inside, abs=1e-5)
    assert sure.probability >= 0.9
    assert [stage.name for stage in answer.stages] == ["dispatch", "pickup", "delivery"]
    means = sum(stage.mean_minutes for stage in answer.stages)
    assert answer.mean_minutes == pytest.approx(means, rel=0.02), "the mean of a sum"
    assert answer.serving_info.models[0].name == "eta-standard"
    assert not degraded(answer)


def test_far_is_later_than_near(clients, shop):
    far = {"latitude": PLACE["latitude"] + 0.08, "longitude": PLACE["longitude"]}
    near, away = (clients.eta.Predict(order(shop, place=p), timeout=5) for p in (PLACE, far))
    assert away.mean_minutes > near.mean_minutes + 5


def test_what_is_over_is_over_and_the_rest_remains(clients, shop):
    whole = clients.eta.Predict(order(shop), timeout=5)
    usual = whole.stages[0].mean_minutes
    events = [{"stage": "dispatch", "time": later(usual)}]
    rest = clients.eta.Predict(order(shop, events=events, as_of=later(usual)), timeout=5)
    assert rest.stages[0].took_minutes == pytest.approx(usual, abs=0.05)
    assert not rest.stages[0].probabilities
    assert rest.mean_minutes < whole.mean_minutes
    slow = [{"stage": "dispatch", "time": later(4 * usual)}]
    late = clients.eta.Predict(order(shop, events=slow, as_of=later(4 * usual)), timeout=5)
    assert late.mean_minutes > rest.mean_minutes, "slow so far, slow to come"
    waiting = clients.eta.Predict(order(shop, events=events, as_of=later(usual + 15)), timeout=5)
    assert rest.mean_minutes - 15 < waiting.mean_minutes < rest.mean_minutes + 15
    names = ("dispatch", "pickup", "delivery")
    done = [{"stage": n, "time": later(5 * (i + 1))} for i, n in enumerate(names)]
    there = clients.eta.Predict(order(shop, events=done, as_of=later(20)), timeout=5)
    assert pmf(there).tolist() == [1.0]
    assert there.buffer_minutes == 0


def test_an_order_that_waits_forever_still_has_an_arrival(clients, shop):
    answer = clients.eta.Predict(order(shop, as_of=later(3 * 24 * 60)), timeout=5)
    assert pmf(answer).sum() + answer.beyond == pytest.approx(1, abs=1e-4)
    assert answer.mean_minutes > 1


def test_a_shop_that_no_model_knows_is_found_in_the_store_or_given(clients):
    new = f"new-{uuid.uuid4().hex[:8]}"
    assert refused(clients.eta.Predict, order(new)) == "NOT_FOUND SHOP_NOT_FOUND shop_id"
    near = {"latitude": PLACE["latitude"] + 0.01, "longitude": PLACE["longitude"]}
    given = clients.eta.Predict(order(new, origin=near), timeout=5)
    values = np.array([[near["latitude"], near["longitude"]]], np.float32)
    write = f.WriteFeaturesRequest(
        view="item_profile", entity_ids=[new], blocks=[block(["latitude", "longitude"], values)]
    )
    clients.features.WriteFeatures(write, timeout=5)
    stored = clients.eta.Predict(order(new), timeout=5)
    assert stored.service == given.service == "standard"
    assert stored.mean_minutes == pytest.approx(given.mean_minutes, rel=0.02)
    assert list(clients.eta.PredictBatch(batch(new), timeout=5).sources) == [2]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"service": "moon"}, "NOT_FOUND ETA_SERVICE_NOT_FOUND service"),
        ({"shop_id": ""}, "INVALID_ARGUMENT FIELD_INVALID origin"),
        ({"place": None}, "INVALID_ARGUMENT FIELD_INVALID place"),
        ({"place": {"latitude": 91}}, "INVALID_ARGUMENT FIELD_INVALID place.latitude"),
        ({"distance_km": float("nan")}, "INVALID_ARGUMENT FIELD_INVALID distance_km"),
        ({"quantiles": [0.5, 1.0]}, "INVALID_ARGUMENT FIELD_INVALID quantiles"),
        ({"quantiles": [float("nan")]}, "INVALID_ARGUMENT FIELD_INVALID quantiles"),
        ({"hit_rate": 1.0}, "INVALID_ARGUMENT FIELD_INVALID hit_rate"),
        ({"hit_rate": 1e-9}, "INVALID_ARGUMENT FIELD_INVALID hit_rate"),
        ({"freshness_token": "?"}, "INVALID_ARGUMENT FRESHNESS_TOKEN_INVALID freshness_token"),
        ({"freshness_token": "eb1-999999999"}, "UNAVAILABLE NOT_FRESH_YET"),
        (
            {"events": [{"stage": "pickup", "time": later(1)}]},
            "INVALID_ARGUMENT FIELD_INVALID events",
        ),
        (
            {"events": [{"stage": "dispatch", "time": later(-1)}]},
            "INVALID_ARGUMENT FIELD_INVALID events[0].time",
        ),
        ({"as_of": later(-1)}, "INVALID_ARGUMENT FIELD_INVALID as_of"),
        (
            {"numbers": block(["floor"], np.ones((1, 1), np.float32))},
            "INVALID_ARGUMENT FIELD_INVALID numbers.features",
        ),
        (
            {"numbers": block(["floor"], np.full((1, 1), np.nan, np.float32))},
            "INVALID_ARGUMENT NOT_FINITE numbers.values",
        ),
        (
            {"numbers": block(["floor"], np.ones((2, 1), np.float32))},
            "INVALID_ARGUMENT SHAPE_MISMATCH numbers.values",
        ),
    ],
)
def test_predict_errors(clients, shop, fields, why):
    assert refused(clients.eta.Predict, order(**{"shop_id": shop, **fields})) == why


def test_served_inputs_are_those_of_training(city, clients, workspace):
    """The distribution that is served for an order of the held-out period is the one that offline
    columns give."""
    tables = city.tables
    frame = tables.frames["orders"].filter(pl.col("service") == "standard")
    examples = make_examples(
        frame,
        EtaPlan("standard", clock=tables.clock),
        (frame["period"] < tables.test_period).to_numpy(),
    )
    days = (frame["time"].to_numpy() + 9 * 3_600_000) // 86_400_000
    first = np.flatnonzero((frame["period"] == tables.test_period).to_numpy())
    rows = first[days[first] == days[first].min()][:25]
    registry = workspace.registry
    model = EtaModel(registry.load("eta-standard", registry.resolve("eta-standard")))
    names = examples.layout.names()
    for row in rows.tolist():
        write_live(clients, examples, row, names)
        place = frame.select("latitude", "longitude").row(row)
        request = pb.PredictRequest(
            shop_id=frame["shop_id"][row],
            place={"latitude": place[0], "longitude": place[1]},
            user_id=frame["user_id"][row],
        )
        request.order_time.FromMilliseconds(int(frame["time"][row]))
        answer = clients.eta.Predict(request, timeout=5)
        wanted = model.distributions(examples.inputs[row : row + 1])
        for stage, expected in zip(answer.stages, wanted, strict=True):
            assert column(stage.probabilities) == pytest.approx(expected[0], abs=2e-4)
    assert len(rows) > 5


def write_live(clients, examples, row, names):
    """The live state as it was when an order was placed."""
    views = {
        "eta_area": examples.orders.origin.cells(6),
        "eta_shop": examples.orders.ids["shop"],
    }
    for view, entities in views.items():
        columns = [(i, n.partition(".")[2]) for i, n in enumerate(names) if n.startswith(view)]
        values = examples.inputs[row : row + 1, [i for i, _ in columns]]
        write = f.WriteFeaturesRequest(
            view=view,
            entity_ids=[entities.values[entities.codes[row]]],
            blocks=[block([n for _, n in columns], values)],
        )
        clients.features.WriteFeatures(write, timeout=5)


# --- PredictBatch and lists -----------------------------------------------------------------


def test_a_page_is_read_from_lists_and_computed_where_there_is_none(clients, shop):
    cell = list_key("standard", shop, HOME)

    def sources(*ids, **fields):
        return list(clients.eta.PredictBatch(batch(*ids, **fields), timeout=5).sources)

    assert wait_for(lambda: sources(shop) == [pb.ETA_SOURCE_LIST], 30), f"{cell} is refreshed"
    assert sources(shop, "nobody") == [pb.ETA_SOURCE_LIST, pb.ETA_SOURCE_NONE]
    assert sources(shop, online=True) == [pb.ETA_SOURCE_ONLINE]
    assert sources(shop, quantiles=[0.001]) == [pb.ETA_SOURCE_ONLINE], "lists have none so low"
    assert sources(shop, order_time=EVENING) == [pb.ETA_SOURCE_ONLINE], "not of now"
    away = {"latitude": PLACE["latitude"] + 0.5, "longitude": PLACE["longitude"]}
    assert sources(shop, place=away) == [pb.ETA_SOURCE_ONLINE], "no list for so far"


def test_lists_say_what_the_model_says(mesh, clients, shop):
    latitude, longitude = h3.cell_to_latlng(HOME)  # where lists take an order to go
    fields = {
        "quantiles": [0.1, 0.33, 0.5, 0.9],
        "place": {"latitude": latitude, "longitude": longitude},
    }

    def asked(**more):
        return clients.eta.PredictBatch(batch(shop, **fields, **more), timeout=5)

    def same(one, other):
        return np.allclose(
            column(one.mean_minutes), column(other.mean_minutes), rtol=0.01
        ) and np.allclose(column(one.quantile_minutes), column(other.quantile_minutes), rtol=0.03)

    before = asked(online=True)  # the hour may turn meanwhile
    mesh.kill("refresher")
    mesh.start("refresher")  # makes its lists anew at once
    assert wait_for(
        lambda: any(same(asked(), online) for online in (before, asked(online=True))), 60
    )
    answer = asked()
    assert list(answer.sources) == [pb.ETA_SOURCE_LIST]
    for each in (answer, before):
        width = column(each.window_ends, "<u2") - column(each.window_starts, "<u2")
        assert width.tolist() == [10]
        assert (np.diff(column(each.quantile_minutes)) > 0).all()


def test_a_batch_is_as_many_single_predictions(clients, city):
    shops = city.tables.frames["items"]["item_id"].to_list()[:60]
    request = batch(*shops, order_time=EVENING)
    answer = clients.eta.PredictBatch(request, timeout=5)
    means, starts = column(answer.mean_minutes), column(answer.window_starts, "<u2")
    names = {m.name for m in answer.serving_info.models}
    assert names == {"eta-standard", "eta-express"}
    for i in (0, 17, 59):
        one = clients.eta.Predict(order(shops[i]), timeout=5)
        assert means[i] == pytest.approx(one.mean_minutes, rel=1e-3)
        assert starts[i] == one.window.start_minute


def test_an_ad_arrives_as_its_shop_does(clients, city):
    items = city.tables.frames["items"].filter(pl.col("shop_id") != "")
    ad, shop_id = items.select("item_id", "shop_id").row(0)
    answer = clients.eta.PredictBatch(batch(ad, shop_id, order_time=EVENING), timeout=5)
    assert len(set(column(answer.mean_minutes).tolist())) == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"shop_ids": []}, "INVALID_ARGUMENT FIELD_INVALID shop_ids"),
        ({"shop_ids": ["x"] * 100_000}, "INVALID_ARGUMENT FIELD_INVALID shop_ids"),
        ({"shop_ids": [""]}, "INVALID_ARGUMENT FIELD_INVALID shop_ids[0]"),
        ({"service": "moon"}, "NOT_FOUND ETA_SERVICE_NOT_FOUND service"),
        ({"place": None}, "INVALID_ARGUMENT FIELD_INVALID place"),
        ({"quantiles": [0]}, "INVALID_ARGUMENT FIELD_INVALID quantiles"),
    ],
)
def test_batch_errors(clients, fields, why):
    request = pb.PredictBatchRequest(**{"shop_ids": ["s00001"], "place": PLACE, **fields})
    assert refused(clients.eta.PredictBatch, request) == why


# --- Time buffers ---------------------------------------------------------------------------


def buffer(minutes, seconds=600, **scope):
    made = pb.TimeBuffer(
        scope=pb.BufferScope(**scope),
        minutes=minutes,
        reason="a test",
        author="tester",
        removed=not minutes,
    )
    made.expire_time.FromMilliseconds(now_ms() + seconds * 1000)
    return pb.SetTimeBufferRequest(buffer=made)


def test_a_buffer_counts_at_once_for_lists_and_orders(clients, shop):
    before = clients.eta.Predict(order(shop), timeout=5)
    assert wait_for(
        lambda: list(clients.eta.PredictBatch(batch(shop), timeout=5).sources) == [1], 30
    )
    listed = clients.eta.PredictBatch(batch(shop), timeout=5)
    token = clients.eta.SetTimeBuffer(buffer(12, shop_id=shop), timeout=5).freshness_token
    try:
        after = clients.eta.Predict(order(shop, freshness_token=token), timeout=5)
        assert after.buffer_minutes == 12
        assert after.mean_minutes == pytest.approx(before.mean_minutes + 12, abs=0.01)
        assert after.window.start_minute == before.window.start_minute + 12
        row = clients.eta.PredictBatch(batch(shop, freshness_token=token), timeout=5)
        assert column(row.buffer_minutes, "<i4").tolist() == [12]
        assert column(row.mean_minutes) == pytest.approx(column(listed.mean_minutes) + 12, abs=0.5)
        got = clients.eta.GetTimeBuffer(
            pb.GetTimeBufferRequest(scope={"shop_id": shop}, freshness_token=token), timeout=5
        )
        assert (got.buffer.minutes, got.buffer.author) == (12, "tester")
        assert got.changes[0] == got.buffer
    finally:
        token = clients.eta.SetTimeBuffer(buffer(0, shop_id=shop), timeout=5).freshness_token
    gone = clients.eta.Predict(order(shop, freshness_token=token), timeout=5)
    assert gone.buffer_minutes == 0
    request = pb.GetTimeBufferRequest(scope={"shop_id": shop}, freshness_token=token)
    history = clients.eta.GetTimeBuffer(request, timeout=5).changes
    assert [change.removed for change in history[:2]] == [True, False]


def test_buffer_errors(clients):
    def why(**fields):
        request = buffer(5, shop_id="s")
        for name, value in fields.items():
            if value is None:
                request.buffer.ClearField(name)
            else:
                setattr(request.buffer, name, value)
        return refused(clients.eta.SetTimeBuffer, request)

    invalid = "INVALID_ARGUMENT FIELD_INVALID"
    assert why(reason="") == f"{invalid} buffer.reason"
    assert why(author="") == f"{invalid} buffer.author"
    assert why(minutes=181) == f"{invalid} buffer.minutes"
    assert why(scope=None) == f"{invalid} buffer.scope"
    assert why(expire_time=None) == f"{invalid} buffer.expire_time"
    assert refused(clients.eta.SetTimeBuffer, buffer(5, area=7)) == f"{invalid} buffer.scope.area"
    get = clients.eta.GetTimeBuffer
    assert refused(get, pb.GetTimeBufferRequest()) == f"{invalid} scope"
    moon = pb.GetTimeBufferRequest(scope={"service": "moon"})
    assert refused(get, moon) == "NOT_FOUND ETA_SERVICE_NOT_FOUND service"


# --- Shadow and faults ----------------------------------------------------------------------


def test_a_shadow_is_compared_live_and_can_go(mesh, clients, workspace, shop):
    registry = workspace.registry
    registry.set_alias("eta-standard", "shadow", registry.resolve("eta-standard"))

    def compared():
        families = {f.name: f for f in scraped(mesh.info.metrics["eta"])}
        samples = families["madang_eta_shadow_distance_minutes"].samples
        return sum(s.value for s in samples if s.name.endswith("_count"))

    def serves(label):
        families = {f.name: f for f in scraped(mesh.info.metrics["eta"])}
        return any(s.labels["model"] == label for s in families["madang_model_info"].samples)

    try:
        assert wait_for(lambda: serves("eta-standard@shadow"), 10)
        clients.eta.Predict(order(shop), timeout=5)
        assert wait_for(lambda: compared() >= 1, 5)
    finally:
        registry.remove_alias("eta-standard", "shadow")
    assert wait_for(lambda: not serves("eta-standard@shadow"), 10)


def test_without_the_store_an_order_still_has_an_arrival(own_mesh, own_clients: Clients):
    shops = ["s00001", "s00002", "nobody"]
    own_mesh.kill("featurestore")
    request = batch(*shops)
    answer = own_clients.eta.PredictBatch(request, timeout=5)
    assert list(answer.sources) == [2, 2, 3]
    assert degraded(answer) == {"featurestore"}
    one = own_clients.eta.Predict(order("s00001"), timeout=5)
    assert degraded(one) == {"featurestore"}
    assert 5 < one.mean_minutes < 120
    own_mesh.start("featurestore")
    own_mesh.wait_ready("featurestore")
    assert wait_for(lambda: not degraded(own_clients.eta.Predict(order("s00001"), timeout=5)), 15)
    own_mesh.kill("eta")
    started = time.monotonic()
    page = own_clients.ranker.Recommend(recommend(), timeout=5)
    assert degraded(page) == {"eta"}
    assert page.items
    assert not any(item.HasField("arrival") for item in page.items)
    assert time.monotonic() - started < 2
    own_mesh.start("eta")
    own_mesh.wait_ready("eta")
    assert wait_for(lambda: not degraded(own_clients.ranker.Recommend(recommend(), timeout=5)), 15)
