"""The item log, as every replica applies it."""

import numpy as np
import pytest

from madang.candidate.v1 import candidate_pb2 as pb
from madang.common.v1 import place_pb2
from madang.feature.v1 import feature_store_pb2
from madang_candidate.catalogue import Catalogue, counts_by_kind
from madang_candidate.editing import CatalogueEditor
from madang_candidate.tower import TowerBundle
from madang_pipelines.training import TOWER
from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.columns import block
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.models.registry import ModelRegistry

PLACE = {"latitude": 37.4959, "longitude": 127.0664}
SHOP = place_pb2.ITEM_KIND_SHOP


class Store:
    """Knows nothing of any item; keeps what is written, unless it is away."""

    name = "features"

    def __init__(self):
        self.written, self.asked, self.away = [], [], False

    def __call__(self, request):
        if self.away:
            raise MadangError(Code.UNAVAILABLE, reason.ERROR_REASON_STORE_UNAVAILABLE, "away")
        if isinstance(request, feature_store_pb2.WriteFeaturesRequest):
            self.written.append(request)
            return feature_store_pb2.WriteFeaturesResponse(freshness_token="fs1-4")
        self.asked += request.lookups[0].entity_ids
        return feature_store_pb2.LookupFeaturesResponse(rows=[feature_store_pb2.ViewRows()])


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def bundle(workspace):
    registry: ModelRegistry = workspace.registry
    files = registry.load(TOWER, registry.resolve(TOWER))
    return TowerBundle(files, threads=1, exact_below=20_000)


@pytest.fixture
def log():
    return MemoryCompactedLog()


@pytest.fixture
def editor(log, store):
    return CatalogueEditor(log, MemoryCompactedLog(), MemoryCompactedLog(), store)


def item(item_id, **fields):
    return pb.Item(
        **{"item_id": item_id, "kind": SHOP, "place": PLACE, "delivery_radius_km": 3.0, **fields}
    )


def upsert(*items, **fields):
    return pb.UpsertItemsRequest(items=items, **fields)


def follow(catalogue, log, after=0):
    found = log.changes(after, 1000)
    catalogue.apply(found.changed, False)
    return found.position


def test_items_come_go_and_come_back(store, bundle, log, editor):
    catalogue = Catalogue(store)
    catalogue.attach(bundle)
    trained = bundle.index.ids[0]
    editor.upsert(upsert(item("new"), item(trained)))
    at = follow(catalogue, log)
    index = catalogue.index(bundle)
    assert index.live == 2
    assert np.linalg.norm(index.vectors(index.rows(["new"]))) == pytest.approx(1, abs=1e-5)
    assert counts_by_kind(index)[SHOP] == counts_by_kind(bundle.index)[SHOP] + 1
    editor.delete(pb.DeleteItemsRequest(item_ids=["new", trained, "never"]))
    at = follow(catalogue, log, at)
    index = catalogue.index(bundle)
    assert (index.live, index.row("new"), index.row(trained)) == (0, None, None)
    editor.upsert(upsert(item(trained)))
    follow(catalogue, log, at)
    assert catalogue.index(bundle).row(trained) == len(bundle.index)


def test_only_what_changed_is_looked_up(store, bundle, log, editor):
    catalogue = Catalogue(store)
    catalogue.attach(bundle)
    editor.upsert(upsert(item("a"), item("b")))
    at = follow(catalogue, log)
    editor.upsert(upsert(item("b")))
    follow(catalogue, log, at)
    assert store.asked == ["a", "b", "b"]
    assert catalogue.index(bundle).live == 2


def test_a_version_that_is_loaded_later_has_all_changes(workspace, store, bundle, log, editor):
    catalogue = Catalogue(store)
    editor.upsert(upsert(item("a"), item("b")))
    follow(catalogue, log)
    catalogue.attach(bundle)
    assert catalogue.index(bundle).live == 2
    files = workspace.registry.load(TOWER, workspace.registry.resolve(TOWER))
    later = [TowerBundle(files, threads=1, exact_below=20_000) for _ in range(2)]
    for version in later:
        catalogue.attach(version)
        assert catalogue.index(version).live == 2
    assert catalogue.index(bundle) is bundle.index, "versions before the last are let go"


def test_nothing_changes_while_features_can_not_be_had(store, bundle, log, editor):
    catalogue = Catalogue(store)
    catalogue.attach(bundle)
    editor.upsert(upsert(item("a")))
    store.away = True
    with pytest.raises(MadangError):
        follow(catalogue, log)
    assert catalogue.index(bundle).live == 0
    store.away = False
    follow(catalogue, log)
    assert catalogue.index(bundle).live == 1


def test_a_log_that_begins_anew_voids_what_was_before(store, bundle):
    catalogue = Catalogue(store)
    catalogue.attach(bundle)
    catalogue.apply({"a": item("a").SerializeToString()}, False)
    catalogue.apply({"b": item("b").SerializeToString()}, True)
    index = catalogue.index(bundle)
    assert (index.row("a"), index.live) == (None, 1)


def test_features_are_written_before_the_item(store, log, editor):
    features = block(["item_profile.price", "item_profile.category"], np.array([[7, 3]]))
    answer = editor.upsert(upsert(item("a"), features=[features]))
    (written,) = store.written
    assert (written.view, list(written.entity_ids)) == ("item_profile", ["a"])
    assert list(written.blocks[0].features) == ["price", "category"]
    assert answer.freshness_token == "fs1-4,it1-1"
    store.away = True
    with pytest.raises(MadangError):
        editor.upsert(upsert(item("b"), features=[features]))
    assert log.changes(0, 10).latest == 1


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (upsert(item("a"), item("a")), "items"),
        (upsert(pb.Item(item_id="a", kind=SHOP, delivery_radius_km=1)), "items[0].place"),
        (upsert(item("a"), features=[block(["price"], np.array([[1]]))]), "features[0].features"),
        (
            upsert(item("a"), features=[block(["a.x", "b.y"], np.array([[1, 1]]))]),
            "features[0].features",
        ),
        (pb.DeleteItemsRequest(item_ids=["a", "a"]), "item_ids"),
        (pb.DeleteItemsRequest(item_ids=[""]), "item_ids"),
    ],
)
def test_bad_requests_change_nothing(log, store, editor, request_, field):
    call = editor.delete if isinstance(request_, pb.DeleteItemsRequest) else editor.upsert
    with pytest.raises(MadangError) as caught:
        call(request_)
    assert caught.value.about["field"] == field
    assert log.changes(0, 10).latest == 0
    assert store.written == []
