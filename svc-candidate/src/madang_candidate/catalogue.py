"""Items put in and taken out since the models were trained, alike on every replica."""

import threading
from collections.abc import Mapping

import numpy as np

from madang.candidate.v1 import candidate_pb2 as pb
from madang.common.v1 import place_pb2
from madang.feature.v1 import feature_store_pb2
from madang_candidate.cells import cells_around
from madang_candidate.dependencies import Features
from madang_candidate.index import ItemIndex, LiveItem
from madang_candidate.tower import TowerBundle
from madang_runtime.models.inputs import InputRows

_AT_ONCE = 2000
_ALWAYS = 2**24 - 1


class Catalogue:
    """Puts the changes of the item log into the index of each loaded version; fed by a `Follower`.

    An item's vector is what the version's item tower makes of its features, so that a version that
    is loaded later makes its own.

    Args:
        features: the feature store.
    """

    def __init__(self, features: Features) -> None:
        self._features = features
        self._lock = threading.Lock()
        self._items: dict[str, pb.Item | None] = {}
        # The last two versions: requests that began with the one before may still run.
        self._indexes: dict[TowerBundle, tuple[dict[str, LiveItem], ItemIndex]] = {}

    def apply(self, changed: Mapping[str, bytes | None], anew: bool) -> None:
        """Take items by id, None for deleted ones; all or none.

        Raises:
            MadangError: the feature store's; nothing is changed then.
        """
        fresh = {
            item_id: None if payload is None else pb.Item.FromString(payload)
            for item_id, payload in changed.items()
        }
        with self._lock:
            items = fresh if anew else self._items | fresh
            made = {
                bundle: self._with(bundle, {} if anew else live, fresh, items)
                for bundle, (live, _) in self._indexes.items()
            }
            self._items, self._indexes = items, made

    def attach(self, bundle: TowerBundle) -> None:
        """Make the index of a version that is about to serve. Raises: MadangError, as `apply`."""
        with self._lock:
            made = self._with(bundle, {}, self._items, self._items)
            self._indexes = dict([*self._indexes.items()][-1:]) | {bundle: made}

    def index(self, bundle: TowerBundle) -> ItemIndex:
        """The items of a version as they are now."""
        made = self._indexes.get(bundle)
        return made[1] if made else bundle.index

    def _with(
        self,
        bundle: TowerBundle,
        live: Mapping[str, LiveItem],
        changed: Mapping[str, pb.Item | None],
        items: Mapping[str, pb.Item | None],
    ) -> tuple[dict[str, LiveItem], ItemIndex]:
        """A version's live items after a change, and the index with all of them."""
        kept = {item_id: item for item_id, item in live.items() if item_id not in changed}
        put = [item for item in changed.values() if item is not None]
        for start in range(0, len(put), _AT_ONCE):
            kept |= self._live(bundle, put[start : start + _AT_ONCE])
        deleted = [item_id for item_id, item in items.items() if item is None]
        trained = bundle.index
        return kept, ItemIndex(trained.trained, trained.exact_below, [*kept.values()], deleted)

    def _live(self, bundle: TowerBundle, items: list[pb.Item]) -> dict[str, LiveItem]:
        resolution = bundle.index.trained.resolution
        features = self._rows(bundle, [item.item_id for item in items])
        vectors = bundle.item_vectors(features)
        of_ads = bundle.ads.vectors(features) if bundle.ads else [None] * len(items)
        return {
            item.item_id: LiveItem(
                item.item_id,
                item.kind,
                item.open_hours or _ALWAYS,
                vector,
                cells_around(
                    item.place.latitude, item.place.longitude, item.delivery_radius_km, resolution
                )
                if item.delivery_radius_km
                else None,
                of_ad if item.kind == place_pb2.ITEM_KIND_AD else None,
            )
            for item, vector, of_ad in zip(items, vectors, of_ads, strict=True)
        }

    def _rows(self, bundle: TowerBundle, item_ids: list[str]) -> InputRows:
        lookup = bundle.item_inputs.lookup(item_ids)
        request = feature_store_pb2.LookupFeaturesRequest(lookups=[lookup])
        return bundle.item_inputs.pack(self._features(request).rows[0], len(item_ids))


def counts_by_kind(index: ItemIndex) -> list[int]:
    """How many items of each kind there are, by the kind's number."""
    counts: list[int] = np.bincount(index.kinds[index.existing(None)], minlength=3).tolist()
    return counts
