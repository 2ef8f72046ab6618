"""An encoder that serves, with all that is searched by it."""

from dataclasses import dataclass

from madang.common.v1 import serving_info_pb2
from madang_runtime.text.encoder import Encoder
from madang_search.index import DocumentIndex
from madang_search.nearest import NearestSearcher


@dataclass(frozen=True)
class Tuning:
    """What decides about answers. Cosines of different encoders are not alike, so each brings its
    own.

    Attributes:
        dense_weight: share of the cosine in a score of both methods.
        near: cosine from which a document counts though none of its words matches.
        nearest: cosine from which it is shown when nothing counts.
        intent: cosine from which an intent matches that has no threshold.
    """

    dense_weight: float
    near: float
    nearest: float
    intent: float


@dataclass(frozen=True)
class SearchBundle:
    """A loaded version.

    Attributes:
        encoder: of it.
        nearest: encodes queries.
        documents: searched with its vectors.
        tuning: of the answers.
    """

    encoder: Encoder
    nearest: NearestSearcher
    documents: DocumentIndex
    tuning: Tuning

    @property
    def version(self) -> serving_info_pb2.ModelVersion:
        """As answers name it."""
        return serving_info_pb2.ModelVersion(name=self.encoder.name, version=self.encoder.version)
