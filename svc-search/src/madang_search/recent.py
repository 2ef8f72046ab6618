"""What somebody just did, asked of the feature store."""

from madang.feature.v1 import feature_store_pb2
from madang_runtime.dependency import Dependency

Features = Dependency[
    feature_store_pb2.LookupFeaturesRequest, feature_store_pb2.LookupFeaturesResponse
]


def recent_actions(user_id: str) -> feature_store_pb2.RecentActionsLookup:
    """The last actions within the hour that tell what somebody looks for."""
    return feature_store_pb2.RecentActionsLookup(
        user_ids=[user_id],
        limit=8,
        types=(
            feature_store_pb2.ACTION_TYPE_CLICK,
            feature_store_pb2.ACTION_TYPE_ORDER,
            feature_store_pb2.ACTION_TYPE_SEARCH,
        ),
    )
