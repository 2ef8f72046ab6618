"""The calls that the service makes, as the domain sees them."""

from madang.feature.v1 import feature_store_pb2
from madang_runtime.dependency import Dependency

Features = Dependency[
    feature_store_pb2.LookupFeaturesRequest, feature_store_pb2.LookupFeaturesResponse
]
