"""The limits of the protos, enforced."""

import pytest

from madang.candidate.v1 import candidate_pb2
from madang.feature.v1 import feature_store_pb2
from madang_runtime.errors import MadangError, reason
from madang_runtime.limits import compile_limits, run_checks


def broken(message) -> str:
    """The field that a message breaks."""
    with pytest.raises(MadangError) as caught:
        run_checks(compile_limits(message.DESCRIPTOR), message)
    assert caught.value.reason == reason.ERROR_REASON_FIELD_INVALID
    return caught.value.about["field"]


def retrieve(**fields):
    place = fields.pop("place", {"latitude": 37.5, "longitude": 127.0})
    return candidate_pb2.RetrieveRequest(user_id=fields.pop("user_id", "u"), place=place, **fields)


def test_a_good_request_passes():
    run_checks(compile_limits(candidate_pb2.RetrieveRequest.DESCRIPTOR), retrieve())


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (retrieve(user_id=""), "user_id"),
        (retrieve(user_id="x" * 129), "user_id"),
        (candidate_pb2.RetrieveRequest(user_id="u"), "place"),
        (retrieve(place={"latitude": 91}), "place.latitude"),
        (retrieve(place={"longitude": float("nan")}), "place.longitude"),
        (retrieve(place={"longitude": float("inf")}), "place.longitude"),
        (retrieve(limit=2001), "limit"),
        (retrieve(exclude_item_ids=["x"] * 1001), "exclude_item_ids"),
        (retrieve(exclude_item_ids=["ok", "x" * 129]), "exclude_item_ids[1]"),
        (retrieve(exclude_item_ids=["ok", ""]), "exclude_item_ids[1]"),
    ],
)
def test_each_limit_names_its_field(request_, field):
    assert broken(request_) == field


def test_nested_and_repeated_messages_are_checked_by_path():
    request = feature_store_pb2.LookupFeaturesRequest(
        lookups=[{"view": "v", "entity_ids": ["a"]}, {"view": "", "entity_ids": ["a"]}]
    )
    assert broken(request) == "lookups[1].view"


def test_a_hundred_thousand_ids_are_refused():
    request = feature_store_pb2.LookupFeaturesRequest(
        lookups=[{"view": "v", "entity_ids": ["x"] * 100_000}]
    )
    assert broken(request) == "lookups[0].entity_ids"


def test_patterns_and_enums():
    view = feature_store_pb2.FeatureView(name="Bad-Name", entity="e", features=[{"name": "f"}])
    assert broken(feature_store_pb2.ApplyFeatureViewRequest(view=view)) == "view.name"
    view.name = "good"
    assert broken(feature_store_pb2.ApplyFeatureViewRequest(view=view)) == "view.features[0].dtype"
    view.features[0].dtype = 77
    assert broken(feature_store_pb2.ApplyFeatureViewRequest(view=view)) == "view.features[0].dtype"
