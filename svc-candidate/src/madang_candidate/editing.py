"""What is put in and taken out: into the logs from which every replica takes it."""

from collections.abc import Sequence

import h3
import numpy as np

from madang.candidate.v1 import candidate_pb2 as pb
from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2
from madang_candidate.dependencies import WriteFeatures
from madang_candidate.lists import AREA_RESOLUTION, list_key
from madang_runtime.changelog.compacted import CompactedLog
from madang_runtime.columns import not_finite, shape_mismatch
from madang_runtime.errors import invalid
from madang_runtime.freshness import merge, token
from madang_runtime.ids import check_distinct

ITEMS, ITEMS_TOKEN = "items", "it1"
"""The compacted log of items, and its part of a freshness token."""
LISTS, LISTS_TOKEN = "lists", "sl1"
"""The compacted log of segments' lists, and its part of a freshness token."""

CAMPAIGNS, CAMPAIGNS_TOKEN = "campaigns", "ca1"
"""The compacted log of ads' campaigns, and its part of a freshness token."""


class CatalogueEditor:
    """The domain of the four RPCs.

    Args:
        items, lists, campaigns: the logs.
        write_features: the feature store.
    """

    def __init__(
        self,
        items: CompactedLog,
        lists: CompactedLog,
        campaigns: CompactedLog,
        write_features: WriteFeatures,
    ) -> None:
        self._campaigns = campaigns
        self._items = items
        self._lists = lists
        self._write_features = write_features

    def upsert(self, request: pb.UpsertItemsRequest) -> pb.UpsertItemsResponse:
        """Answer UpsertItems.

        Raises:
            MadangError: FIELD_INVALID, STORE_UNAVAILABLE, and those of WriteFeatures.
        """
        ids = [item.item_id for item in request.items]
        check_distinct(ids, "items")
        for i, item in enumerate(request.items):
            if item.delivery_radius_km and not item.HasField("place"):
                raise invalid(f"items[{i}].place", "is required with a delivery radius")
        written = [
            self._write_features(
                feature_store_pb2.WriteFeaturesRequest(view=view, entity_ids=ids, blocks=blocks)
            ).freshness_token
            for view, blocks in _by_view(request.features).items()
        ]
        position = self._items.write(
            {item.item_id: item.SerializeToString() for item in request.items}
        )
        return pb.UpsertItemsResponse(freshness_token=merge(*written, token(ITEMS_TOKEN, position)))

    def delete(self, request: pb.DeleteItemsRequest) -> pb.DeleteItemsResponse:
        """Answer DeleteItems. Raises: MadangError FIELD_INVALID, STORE_UNAVAILABLE."""
        check_distinct(request.item_ids, "item_ids")
        position = self._items.write(dict.fromkeys(request.item_ids))
        return pb.DeleteItemsResponse(freshness_token=token(ITEMS_TOKEN, position))

    def upsert_lists(self, request: pb.UpsertListsRequest) -> pb.UpsertListsResponse:
        """Answer UpsertLists.

        Raises:
            MadangError: FIELD_INVALID, SHAPE_MISMATCH, NOT_FINITE, STORE_UNAVAILABLE.
        """
        check_distinct([list_key(made.segment, made.area) for made in request.lists], "lists")
        for i, made in enumerate(request.lists):
            _check_list(made, f"lists[{i}]")
        position = self._lists.write(
            {
                list_key(made.segment, made.area): made.SerializeToString()
                if made.item_ids
                else None
                for made in request.lists
            }
        )
        return pb.UpsertListsResponse(freshness_token=token(LISTS_TOKEN, position))

    def upsert_campaigns(self, request: pb.UpsertCampaignsRequest) -> pb.UpsertCampaignsResponse:
        """Answer UpsertCampaigns. Raises: MadangError FIELD_INVALID, STORE_UNAVAILABLE."""
        check_distinct([campaign.item_id for campaign in request.campaigns], "campaigns")
        position = self._campaigns.write(
            {c.item_id: None if c.ended else c.SerializeToString() for c in request.campaigns}
        )
        return pb.UpsertCampaignsResponse(freshness_token=token(CAMPAIGNS_TOKEN, position))


def _check_list(made: pb.SegmentList, field: str) -> None:
    check_distinct(made.item_ids, f"{field}.item_ids")
    n = len(made.item_ids)
    cell = h3.int_to_str(made.area)
    if made.area and not (h3.is_valid_cell(cell) and h3.get_resolution(cell) == AREA_RESOLUTION):
        raise invalid(f"{field}.area", f"must be an H3 cell of resolution {AREA_RESOLUTION}, or 0")
    if len(made.scores) != 4 * n:
        raise shape_mismatch(f"{field}.scores", f"has {len(made.scores)} bytes, needs {4 * n}")
    scores = np.frombuffer(made.scores, "<f4")
    if not np.isfinite(scores).all():
        raise not_finite(f"{field}.scores", "must be finite")
    if (np.diff(scores) > 0).any():
        raise invalid(f"{field}.scores", "must descend")


def _by_view(
    blocks: Sequence[tensor_pb2.FeatureBlock],
) -> dict[str, list[tensor_pb2.FeatureBlock]]:
    """Blocks of "view.feature" as WriteFeatures wants them: by view, with bare names."""
    found: dict[str, list[tensor_pb2.FeatureBlock]] = {}
    for i, block in enumerate(blocks):
        views = {name.partition(".")[0] for name in block.features}
        if len(views) != 1 or not all(name.partition(".")[2] for name in block.features):
            raise invalid(f"features[{i}].features", "must be view.feature, of one view a block")
        bare = tensor_pb2.FeatureBlock()
        bare.CopyFrom(block)
        bare.features[:] = [name.partition(".")[2] for name in block.features]
        found.setdefault(views.pop(), []).append(bare)
    return found
