"""Views, rows, windows and last actions."""

import time

import numpy as np
import pytest

from madang.common.v1 import tensor_pb2 as t
from madang.feature.v1 import feature_store_pb2 as pb
from madang_featurestore.catalog import ViewCatalog
from madang_featurestore.features import FeatureStore
from madang_featurestore.yaml_views import load_view
from madang_runtime.columns import block, from_tensor
from madang_runtime.errors import MadangError, reason

PRESENT, NULL = t.FEATURE_STATUS_PRESENT, t.FEATURE_STATUS_NULL
NOT_FOUND, EXPIRED = t.FEATURE_STATUS_NOT_FOUND, t.FEATURE_STATUS_EXPIRED
HOUR_MS = 3_600_000


def view(name="shop", **fields):
    made = pb.FeatureView(
        name=name,
        entity="item",
        features=[
            {"name": "price", "dtype": t.D_TYPE_FLOAT32},
            {"name": "code", "dtype": t.D_TYPE_INT64},
            {"name": "vector", "dtype": t.D_TYPE_FLOAT32, "dim": 3},
            {"name": "label", "dtype": t.D_TYPE_STRING, "max_bytes": 12},
        ],
    )
    made.MergeFrom(pb.FeatureView(**fields))
    return made


def windowed(name="activity", length=3600):
    return pb.FeatureView(
        name=name,
        entity="item",
        features=[
            {
                "name": "clicks",
                "dtype": t.D_TYPE_FLOAT32,
                "window": {"type": pb.ACTION_TYPE_CLICK, "length": {"seconds": length}},
            },
            {
                "name": "orders_1d",
                "dtype": t.D_TYPE_FLOAT32,
                "window": {"type": pb.ACTION_TYPE_ORDER, "length": {"seconds": 86400}},
            },
        ],
    )


@pytest.fixture
def catalog(store):
    return ViewCatalog(store)


@pytest.fixture
def features(store, catalog):
    return FeatureStore(store, catalog)


def write(features, ids, blocks, name="shop", **fields):
    return features.write(
        pb.WriteFeaturesRequest(view=name, entity_ids=ids, blocks=blocks, **fields)
    )


def look(features, ids, names=(), name="shop", **fields):
    """The blocks of one look-up as {feature: (values, statuses)}."""
    request = pb.LookupFeaturesRequest(
        lookups=[{"view": name, "features": names, "entity_ids": ids}], **fields
    )
    answer, _ = features.lookup(request)
    found = {}
    for b in answer.rows[0].blocks:
        values = from_tensor(b.values)
        statuses = np.frombuffer(b.statuses, np.uint8).reshape(len(ids), -1)
        ends = np.cumsum(b.dims)
        for j, feature in enumerate(b.features):
            found[feature] = values[:, ends[j] - b.dims[j] : ends[j]], statuses[:, j].tolist()
    return found


def refused(call) -> int:
    with pytest.raises(MadangError) as caught:
        call()
    return caught.value.reason


def full(n):
    """Blocks of n rows with every feature."""
    return [
        block(["vector", "price"], np.arange(4 * n, dtype=np.float32).reshape(n, 4), dims=[3, 1]),
        block(["code"], np.arange(n, dtype=np.int64)[:, None]),
        block(["label"], np.array([[f"가{i}".encode()] for i in range(n)])),
    ]


def test_what_is_written_is_read_by_name_order_and_dim(features, catalog):
    catalog.apply(view())
    assert write(features, ["a", "b"], full(2))[0] == 2
    found = look(features, ["b", "x", "a"], ["code", "vector", "price", "label"])
    assert found["vector"][0].tolist() == [[4, 5, 6], [0, 0, 0], [0, 1, 2]]
    assert found["price"][0].tolist() == [[7], [0], [3]]
    assert found["code"][0].tolist() == [[1], [0], [0]]
    assert [c.decode() for c in found["label"][0].ravel().tolist()] == ["가1", "", "가0"]
    for _, statuses in found.values():
        assert statuses == [PRESENT, NOT_FOUND, PRESENT]
    assert list(look(features, ["a"], ["vector", "price"])) == ["vector", "price"]
    assert set(look(features, ["a"])) == {"price", "code", "vector", "label"}


def test_nulls_are_explicit_or_left_out(features, catalog):
    catalog.apply(view())
    statuses = bytes([PRESENT, NULL])
    write(features, ["a", "b"], [block(["price"], np.ones((2, 1), np.float32), statuses=statuses)])
    found = look(features, ["a", "b"])
    assert found["price"][1] == [PRESENT, NULL]
    assert found["price"][0].tolist() == [[1], [0]]
    assert found["code"][1] == [NULL, NULL]


def test_rows_expire_but_are_still_told_from_missing_ones(features, catalog):
    catalog.apply(view(ttl={"seconds": 10}))
    now = int(time.time() * 1000)
    request = pb.WriteFeaturesRequest(view="shop", entity_ids=["old"], blocks=full(1))
    request.event_time.FromMilliseconds(now - 9_800)
    features.write(request)
    write(features, ["new"], full(1))
    time.sleep(0.3)
    found = look(features, ["old", "new", "none"])
    assert found["code"][1] == [EXPIRED, PRESENT, NOT_FOUND]
    assert found["vector"][0].tolist() == [[0, 0, 0], [0, 1, 2], [0, 0, 0]]


def test_a_write_is_all_or_nothing(features, catalog):
    catalog.apply(view())
    for blocks, why in [
        (full(1), reason.ERROR_REASON_SHAPE_MISMATCH),
        (full(2) + full(2)[:1], reason.ERROR_REASON_FIELD_INVALID),
        ([block(["nope"], np.ones((2, 1), np.float32))], reason.ERROR_REASON_FEATURE_NOT_FOUND),
        ([block(["price"], np.ones((2, 1), np.int64))], reason.ERROR_REASON_SHAPE_MISMATCH),
        ([block(["vector"], np.ones((2, 2), np.float32), dims=[2])],
         reason.ERROR_REASON_SHAPE_MISMATCH),
        ([block(["price"], np.array([[1], [np.nan]], np.float32))],
         reason.ERROR_REASON_NOT_FINITE),
        ([block(["label"], np.array([[b"x"], [b"x" * 13]]))], reason.ERROR_REASON_FIELD_INVALID),
        ([block(["price"], np.ones((2, 1), np.float32), statuses=bytes([1, 4]))],
         reason.ERROR_REASON_FIELD_INVALID),
    ]:  # fmt: skip
        assert refused(lambda b=blocks: write(features, ["a", "b"], b)) == why
    assert (
        refused(lambda: write(features, ["a", "a"], full(2))) == reason.ERROR_REASON_FIELD_INVALID
    )
    assert refused(lambda: write(features, ["a"], full(1), "none")) == (
        reason.ERROR_REASON_FEATURE_VIEW_NOT_FOUND
    )
    assert look(features, ["a", "b"])["code"][1] == [NOT_FOUND, NOT_FOUND]


@pytest.mark.parametrize("off_ms", [600_000, -11_000])
def test_a_write_from_the_future_or_already_expired_is_refused(features, catalog, off_ms):
    catalog.apply(view(ttl={"seconds": 10}))
    request = pb.WriteFeaturesRequest(view="shop", entity_ids=["a"], blocks=full(1))
    request.event_time.FromMilliseconds(int(time.time() * 1000) + off_ms)
    assert refused(lambda: features.write(request)) == reason.ERROR_REASON_FIELD_INVALID


def test_features_are_appended_and_old_rows_stay_readable(store, features, catalog):
    catalog.apply(view())
    write(features, ["old"], full(1))
    wider = view()
    wider.features.add(name="rank", dtype=t.D_TYPE_INT64)
    stored, changed = catalog.apply(wider)
    assert (stored.version, changed) == (2, True)
    assert catalog.apply(wider)[1] is False
    another_replica = FeatureStore(store, ViewCatalog(store))
    write(another_replica, ["new"], [*full(1), block(["rank"], np.array([[9]]))])
    found = look(features, ["old", "new", "none"])
    assert found["rank"][0].tolist() == [[0], [9], [0]]
    assert found["rank"][1] == [NULL, PRESENT, NOT_FOUND]
    assert found["vector"][0].tolist() == [[0, 1, 2], [0, 1, 2], [0, 0, 0]]


def test_another_replicas_view_is_seen_at_the_next_lookup(store, features, catalog):
    catalog.apply(view())
    assert set(look(features, ["a"])) == {"price", "code", "vector", "label"}
    wider = view()
    wider.features.add(name="rank", dtype=t.D_TYPE_INT64)
    ViewCatalog(store).apply(wider)
    assert "rank" in look(features, ["a"])


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.features.pop(),
        lambda v: setattr(v.features[0], "name", "other"),
        lambda v: setattr(v.features[2], "dim", 4),
        lambda v: setattr(v.features[0], "dtype", t.D_TYPE_INT64),
        lambda v: setattr(v, "entity", "user"),
    ],
)
def test_incompatible_changes_are_refused(catalog, change):
    catalog.apply(view())
    other = view()
    change(other)
    assert refused(lambda: catalog.apply(other)) == reason.ERROR_REASON_FEATURE_VIEW_INCOMPATIBLE


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.features.append(v.features[0]),
        lambda v: setattr(v.features[3], "dim", 2),
        lambda v: setattr(v.features[0], "max_bytes", 8),
        lambda v: v.ttl.FromSeconds(-1),
        lambda v: v.ttl.FromSeconds(400_000_000),
        lambda v: v.features[0].window.length.FromSeconds(3600),
    ],
)
def test_contradictory_views_are_refused(catalog, change):
    other = view()
    change(other)
    assert refused(lambda: catalog.apply(other)) == reason.ERROR_REASON_FEATURE_VIEW_INVALID


def test_a_text_changes_without_a_new_version(catalog):
    first, _ = catalog.apply(view())
    second, changed = catalog.apply(view(description="better words"))
    assert (second.version, second.fingerprint, changed) == (1, first.fingerprint, True)


def test_corrupted_rows_are_data_loss(store, features, catalog):
    catalog.apply(view())
    store.write({"f:shop:a": b"", "f:shop:b": b"\x01\x00\x01\x00short"}, None)
    assert refused(lambda: look(features, ["b"])) == reason.ERROR_REASON_STORED_DATA_INVALID


def test_a_stored_row_of_format_1_stays_readable(store, features, catalog):
    """Pins the encoding: this row was written by the first release."""
    catalog.apply(view())
    row = (
        "01000100" "0010a5d4e8000000" "ffffffffffffff7f" "01010102"
        "0000803f" "000000400000404000008040" "0700000000000000" + "00" * 12
    )  # fmt: skip
    store.write({"f:shop:a": bytes.fromhex(row)}, None)
    found = look(features, ["a"])
    assert found["price"][0].tolist() == [[1]]
    assert found["vector"][0].tolist() == [[2, 3, 4]]
    assert found["code"][0].tolist() == [[7]]
    assert found["label"][1] == [NULL]


def test_freshness_tokens(features, catalog):
    catalog.apply(view())
    _, token = write(features, ["a"], full(1))
    assert look(features, ["a"], freshness_token=token)["code"][1] == [PRESENT]
    later = f"fs1-{int(token.removeprefix('fs1-')) + 1}"
    assert refused(lambda: look(features, ["a"], freshness_token=later)) == (
        reason.ERROR_REASON_NOT_FRESH_YET
    )
    for nonsense in ("x", "fs1-", "fs1--1", "fs1-٣"):
        assert refused(lambda n=nonsense: look(features, ["a"], freshness_token=n)) == (
            reason.ERROR_REASON_FRESHNESS_TOKEN_INVALID
        )


def test_lookups_are_bounded_and_named(features, catalog):
    catalog.apply(view())
    ids = [str(i) for i in range(9000)]
    many = pb.LookupFeaturesRequest(lookups=[{"view": "shop", "entity_ids": ids}] * 3)
    assert refused(lambda: features.lookup(many)) == reason.ERROR_REASON_FIELD_INVALID
    empty = pb.LookupFeaturesRequest()
    assert refused(lambda: features.lookup(empty)) == reason.ERROR_REASON_FIELD_INVALID
    assert refused(lambda: look(features, ["a"], ["nope"])) == reason.ERROR_REASON_FEATURE_NOT_FOUND


def action(event_id, kind=pb.ACTION_TYPE_CLICK, ago_ms=0, item="i", user="u", query=""):
    made = pb.Action(event_id=event_id, user_id=user, type=kind, item_id=item, query=query)
    made.event_time.FromMilliseconds(int(time.time() * 1000) - ago_ms)
    return made


def counts(features, name="activity"):
    return {k: v[0].tolist()[0][0] for k, v in look(features, ["i"], name=name).items()}


def test_windows_count_within_their_length_only(features, catalog):
    catalog.apply(windowed())
    done = features.record(
        [
            action("a"),
            action("b", ago_ms=HOUR_MS // 2),
            action("c", ago_ms=HOUR_MS * 2),
            action("d", pb.ACTION_TYPE_ORDER, ago_ms=HOUR_MS * 2),
            action("e", pb.ACTION_TYPE_ORDER, ago_ms=HOUR_MS * 30),
        ]
    )
    assert (done.recorded, done.duplicates, done.late) == (3, 0, 2)
    assert counts(features) == {"clicks": 2, "orders_1d": 1}
    assert features.record([action("a")]).duplicates == 1
    assert counts(features)["clicks"] == 2


def test_windows_slide_with_time_alone(features, catalog, monkeypatch):
    catalog.apply(windowed())
    features.record([action("a"), action("b", pb.ACTION_TYPE_ORDER)])
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + int(1.1 * HOUR_MS * 1e6))
    assert counts(features) == {"clicks": 0, "orders_1d": 1}
    monkeypatch.setattr(time, "time_ns", lambda: real() + int(25 * HOUR_MS * 1e6))
    assert counts(features) == {"clicks": 0, "orders_1d": 0}


def test_an_event_from_a_clock_ahead_counts_as_now(features, catalog):
    catalog.apply(windowed(length=60))
    features.record([action("ahead", ago_ms=-200_000), action("now")])
    assert counts(features)["clicks"] == 2


def test_views_do_not_push_clicks_out(features):
    features.record([action("click", ago_ms=5000)])
    features.record([action(f"v{n}", pb.ACTION_TYPE_VIEW) for n in range(60)])
    assert recent(features) == ["click"]


def test_rows_and_answers_are_bounded(features, catalog):
    wide = [{"name": f"f{i}", "dtype": t.D_TYPE_FLOAT32, "dim": 1024} for i in range(20)]
    huge = pb.FeatureView(name="huge", entity="e", features=wide)
    assert refused(lambda: catalog.apply(huge)) == reason.ERROR_REASON_FEATURE_VIEW_INVALID
    catalog.apply(pb.FeatureView(name="wide", entity="e", features=wide[:10]))
    ids = [str(i) for i in range(1000)]
    assert refused(lambda: look(features, ids, name="wide")) == reason.ERROR_REASON_FIELD_INVALID


def test_another_replicas_new_feature_can_be_written_at_once(store, features, catalog):
    catalog.apply(view())
    write(features, ["a"], full(1))
    wider = view()
    wider.features.add(name="rank", dtype=t.D_TYPE_INT64)
    ViewCatalog(store).apply(wider)
    assert write(features, ["a"], [block(["rank"], np.array([[9]]))])[0] == 1


def test_windowed_views_are_not_written(features, catalog):
    catalog.apply(windowed())
    values = [block(["clicks"], np.ones((1, 1), np.float32))]
    assert refused(lambda: write(features, ["i"], values, "activity")) == (
        reason.ERROR_REASON_FIELD_INVALID
    )


def recent(features, **fields):
    request = pb.LookupFeaturesRequest(recent_actions={"user_ids": ["u"], **fields})
    return [a.event_id for a in features.lookup(request)[0].recent_actions[0].actions]


def test_the_last_actions_are_three_within_an_hour(features):
    features.record(
        [
            action("old", ago_ms=HOUR_MS + 1000),
            action("1", ago_ms=3000),
            action("view", pb.ACTION_TYPE_VIEW, ago_ms=2500),
            action("2", pb.ACTION_TYPE_SEARCH, ago_ms=2000, item="", query="치킨"),
            action("4", ago_ms=10),
            action("3", pb.ACTION_TYPE_ORDER, ago_ms=1500),
        ]
    )
    assert recent(features) == ["4", "3", "2"]
    assert recent(features, limit=10) == ["4", "3", "2", "1"]
    assert recent(features, within={"seconds": 1}) == ["4"]
    assert recent(features, types=[pb.ACTION_TYPE_SEARCH]) == ["2"]
    assert recent(features, types=[pb.ACTION_TYPE_VIEW]) == [], "counted, not listed"


def test_bad_actions_are_refused_as_a_whole(features):
    future = action("f", ago_ms=-HOUR_MS)
    for bad in (future, action("x", item=""), action("y", pb.ACTION_TYPE_SEARCH, query="")):
        assert refused(lambda b=bad: features.record([action("good"), b])) == (
            reason.ERROR_REASON_FIELD_INVALID
        )
    assert recent(features) == []


def test_views_are_written_in_yaml(tmp_path):
    path = tmp_path / "v.yaml"
    path.write_text(
        "name: a\nentity: item\nttl: 60s\nfeatures:\n"
        "  - {name: n, dtype: FLOAT32, window: {type: CLICK, length: 3600s}}\n"
    )
    loaded = load_view(path)
    assert loaded.features[0].window.type == pb.ACTION_TYPE_CLICK
    assert loaded.ttl.seconds == 60
    for wrong in ("name: [", "features: 3", "nonsense: 1", "name: a\nfeatures: [{dtype: BLOB}]"):
        path.write_text(wrong)
        assert refused(lambda: load_view(path)) == reason.ERROR_REASON_FEATURE_VIEW_INVALID
