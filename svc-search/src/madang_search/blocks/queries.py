"""What people took who searched for something, as a trained version tells it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from madang.common.v1 import serving_info_pb2
from madang_runtime.models.registry import ModelFiles
from madang_search.bundle import SearchBundle
from madang_search.keywords.model import keyword_text
from madang_search.known import nearest_known

QUERIES = "queries.json"


@dataclass(frozen=True)
class KnownQuery:
    """What became of a query.

    Attributes:
        entropy: of the documents that were taken, in bits.
        categories: of the documents, by their share.
        documents: how often each of the most taken ones was; none is known of a query that is only
            like this one.
    """

    entropy: float
    categories: Mapping[str, float]
    documents: Mapping[str, int] = field(default_factory=dict)

    @property
    def personalisation(self) -> float:
        """The weight of who asks: 1 - 1 / perplexity, the chance to err on what is taken."""
        return float(1 - 2**-self.entropy)


class QueryBook:
    """The queries of a version: `queries.json`, by text the fields of KnownQuery.

    Attributes:
        version: as answers name it.
        texts: of the queries, as `keyword_text` writes them.
    """

    def __init__(self, files: ModelFiles) -> None:
        manifest = files.manifest
        self.version = serving_info_pb2.ModelVersion(name=manifest.name, version=manifest.version)
        found = json.loads(files.files[QUERIES])
        self._queries = {text: KnownQuery(**fields) for text, fields in found.items()}
        self.texts = [*self._queries]

    def get(self, query: str) -> KnownQuery | None:
        """A query that is known."""
        return self._queries.get(keyword_text(query))

    def find(self, query: str, bundle: SearchBundle) -> KnownQuery | None:
        """A query, else the nearest one, if it is as near as an intent must be."""
        if known := self.get(query):
            return known
        row = nearest_known(keyword_text(query), self, bundle, bundle.tuning.intent)
        return None if row is None else replace(self._queries[self.texts[row]], documents={})
