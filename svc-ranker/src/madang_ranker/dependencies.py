"""The calls that ranking makes, as the domain sees them."""

from madang.candidate.v1 import candidate_pb2
from madang.eta.v1 import eta_pb2
from madang.feature.v1 import feature_store_pb2
from madang_runtime.dependency import Dependency

Candidates = Dependency[candidate_pb2.RetrieveRequest, candidate_pb2.RetrieveResponse]
Eta = Dependency[eta_pb2.PredictBatchRequest, eta_pb2.PredictBatchResponse]
Features = Dependency[
    feature_store_pb2.LookupFeaturesRequest, feature_store_pb2.LookupFeaturesResponse
]
