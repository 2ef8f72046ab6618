"""The calls that ranking makes, as the domain sees them."""

from typing import Protocol

from madang.candidate.v1 import candidate_pb2
from madang.feature.v1 import feature_store_pb2
from madang_runtime.pending import Pending


class Candidates(Protocol):
    """svc-candidate's Retrieve."""

    def start(
        self, request: candidate_pb2.RetrieveRequest
    ) -> Pending[candidate_pb2.RetrieveResponse]:
        """Begin a retrieval. Raises: MadangError."""


class Features(Protocol):
    """The feature store's LookupFeatures."""

    def start(
        self, request: feature_store_pb2.LookupFeaturesRequest
    ) -> Pending[feature_store_pb2.LookupFeaturesResponse]:
        """Begin a look-up. Raises: MadangError."""
