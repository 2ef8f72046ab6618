"""A collection of Milvus that holds the documents with the vectors of one encoder."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray
from pymilvus import (
    AnnSearchRequest,
    DataType,
    Function,
    FunctionType,
    MilvusClient,
    MilvusException,
    WeightedRanker,
)

from madang.search.v1 import search_pb2 as pb
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.scope import outgoing_timeout
from madang_search.analysis import grams
from madang_search.documents import ALWAYS
from madang_search.lexical import BODY, GRAMS, TITLE
from madang_search.milvus.places import cover
from madang_search.records import Terms, text_of

Floats = NDArray[np.float32]
Result = TypeVar("Result")

_FORMAT = 1
"""Of the collection: another one makes other collections."""
_ID, _VECTOR, _EPOCH, _LEVEL = "document_id", "vector", "epoch", "level"
_TEXTS = {_ID: 128, "title": 512, "body": 8192, "category": 128}
"""Longest texts of a document, in characters of up to four bytes."""
_DISC = ["latitude", "longitude", "delivery_radius_km"]
_NUMBERS = ["open_hours", "popularity"]
_MOST_BYTES = 65_535
_MOST_ROWS = 16_384  # of one answer
_WORDS = {"metric_type": "BM25"}
_MEANING = {"metric_type": "IP"}


class Hits(NamedTuple):
    """n documents, best first.

    Attributes:
        ids: of them.
        scores: float32 [n].
        discs: latitude, longitude and radius of delivery, float64 [n, 3]; when asked for.
    """

    ids: list[str]
    scores: Floats
    discs: NDArray[np.float64]


def collection_name(encoder_version: str, analyzer_version: str) -> str:
    """The collection of an encoder's version."""
    whole = f"{_FORMAT} {encoder_version} {analyzer_version}"
    return f"madang_documents_{hashlib.sha256(whole.encode()).hexdigest()[:16]}"


class MilvusCollection:
    """The documents in Milvus. Any thread may use it.

    Every method raises MadangError STORE_UNAVAILABLE.

    Args:
        client: of the server.
        name: of the collection.
        timeout: longest wait for an answer, in seconds.
        consistency: level at which readers ask.
    """

    def __init__(
        self, client: MilvusClient, name: str, timeout: float, consistency: str = "Bounded"
    ) -> None:
        self._client, self.name = client, name
        self._timeout, self._consistency = timeout, consistency

    def open(self, dimension: int) -> bool:
        """Load it, creating it if it is not there. Returns: whether it was not."""
        if self._ask(self._client.has_collection):
            self._ask(self._client.load_collection)
            return False
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_ID, DataType.VARCHAR, max_length=4 * _TEXTS[_ID], is_primary=True)
        for field in ("title", "body", "category"):
            schema.add_field(field, DataType.VARCHAR, max_length=4 * _TEXTS[field])
        for field in (*_DISC, "popularity"):
            schema.add_field(field, DataType.DOUBLE)
        schema.add_field("open_hours", DataType.INT32)
        schema.add_field("hours", DataType.ARRAY, element_type=DataType.INT8, max_capacity=24)
        schema.add_field("cells", DataType.ARRAY, element_type=DataType.INT64, max_capacity=64)
        schema.add_field(_LEVEL, DataType.INT8)
        schema.add_field(_EPOCH, DataType.INT64)
        schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=dimension)
        indexes = self._client.prepare_index_params()
        indexes.add_index(_VECTOR, index_type="AUTOINDEX", metric_type="IP")
        for field in (TITLE, BODY, GRAMS):
            terms = f"{field}_terms"
            # The terms are ours: all that is left to do is to cut them at spaces.
            schema.add_field(
                terms,
                DataType.VARCHAR,
                max_length=_MOST_BYTES,
                enable_analyzer=True,
                analyzer_params={"tokenizer": "standard"},
            )
            schema.add_field(f"{field}_words", DataType.SPARSE_FLOAT_VECTOR)
            schema.add_function(
                Function(
                    name=f"{field}_bm25",
                    function_type=FunctionType.BM25,
                    input_field_names=[terms],
                    output_field_names=[f"{field}_words"],
                )
            )
            indexes.add_index(
                f"{field}_words",
                index_type="SPARSE_INVERTED_INDEX",
                metric_type="BM25",
                params={"bm25_k1": 1.2, "bm25_b": 0.75},
            )
        self._ask(self._client.create_collection, schema=schema, index_params=indexes)
        return True

    def put(
        self,
        documents: Sequence[pb.Document],
        terms: Sequence[Terms],
        vectors: Floats,
        epoch: int,
    ) -> None:
        """Put n documents in or replace them."""
        rows = [
            _row(document, own, vector, epoch)
            for document, own, vector in zip(documents, terms, vectors, strict=True)
        ]
        if rows:
            self._ask(self._client.upsert, data=rows)

    def delete(self, ids: Sequence[str]) -> None:
        """Take documents out."""
        if ids:
            self._ask(self._client.delete, filter=is_in(_ID, ids))

    def sweep(self, epoch: int) -> None:
        """Take out what was not put in during an epoch."""
        self._ask(self._client.delete, filter=f"{_EPOCH} != {epoch}")

    def settle(self) -> None:
        """Wait until every reader sees what was written."""
        nothing = is_in(_ID, [""])
        self._ask(
            self._client.query, filter=nothing, output_fields=[_ID], consistency_level="Strong"
        )

    def drop(self) -> None:
        """Take the collection away."""
        self._ask(self._client.drop_collection)

    def by_words(
        self, texts: Mapping[str, str], weights: Mapping[str, float], wanted: str, k: int
    ) -> Hits:
        """The k documents of largest BM25, summed over fields with their weights.

        Args:
            texts: terms of the query, by field.
            weights: of the fields.
            wanted: filter.
        """
        asked = [field for field, text in texts.items() if text and weights[field]]
        if not asked:
            return _hits([])
        most = max(weights[field] for field in asked)  # Milvus takes weights of at most 1
        found = self._read(
            self._client.hybrid_search,
            reqs=[
                AnnSearchRequest([texts[field]], f"{field}_words", _WORDS, k, expr=wanted or None)
                for field in asked
            ],
            ranker=WeightedRanker(*(weights[field] / most for field in asked), norm_score=False),
            limit=k,
            output_fields=_DISC,
        )
        hits = _hits(found[0])
        return hits._replace(scores=hits.scores * np.float32(most))

    def nearest(self, vector: Floats, wanted: str, k: int) -> Hits:
        """The k documents of largest cosine with a vector [d]."""
        found = self._read(
            self._client.search,
            data=[vector.tolist()],
            anns_field=_VECTOR,
            search_params=_MEANING,
            filter=wanted,
            limit=k,
            output_fields=_DISC,
        )
        return _hits(found[0])

    def cosines(self, vector: Floats, ids: Sequence[str]) -> Hits:
        """The cosine of each of some documents with a vector [d]."""
        return self.nearest(vector, is_in(_ID, ids), len(ids))

    def has(self, field: str, terms: Sequence[str]) -> list[bool]:
        """Whether any document has each of some terms in a field."""
        if not terms:
            return []
        found = self._read(
            self._client.search,
            data=[*terms],
            anns_field=f"{field}_words",
            search_params=_WORDS,
            limit=1,
        )
        return [len(hits) > 0 for hits in found]

    def popular(self, wanted: str, k: int) -> Hits:
        """The k most popular documents."""
        low, high = 0, 40  # popularity is at most 10^12
        while low < high:  # the highest level from which there are enough
            middle = (low + high + 1) // 2
            if self.count(_and(wanted, f"{_LEVEL} >= {middle}")) >= k:
                low = middle
            else:
                high = middle - 1
        rows = self._read(
            self._client.query,
            filter=_and(wanted, f"{_LEVEL} >= {low}"),
            output_fields=[_ID, "popularity", *_DISC],
            limit=_MOST_ROWS,
        )
        rows = sorted(rows, key=lambda row: (-row["popularity"], row[_ID]))[:k]
        return _hits(
            [{_ID: row[_ID], "distance": row["popularity"], "entity": row} for row in rows]
        )

    def read(self, ids: Sequence[str]) -> list[pb.Document | None]:
        """Documents as they were put in; None for those that are not there."""
        if not ids:
            return []
        rows = self._read(
            self._client.query, filter=is_in(_ID, ids), output_fields=[*_TEXTS, *_DISC, *_NUMBERS]
        )
        found = {row[_ID]: _document(row) for row in rows}
        return [found.get(one) for one in ids]

    def count(self, wanted: str = "") -> int:
        """How many documents are as wanted."""
        rows = self._read(self._client.query, filter=wanted, output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def _read(self, call: Callable[..., Result], **arguments: Any) -> Result:
        return self._ask(call, consistency_level=self._consistency, **arguments)

    def _ask(self, call: Callable[..., Result], **arguments: Any) -> Result:
        try:
            return call(self.name, timeout=outgoing_timeout(self._timeout), **arguments)
        except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
            raise milvus_away(error) from error


def milvus_away(error: Exception) -> MadangError:
    """What callers are told when Milvus does not answer as it should."""
    message = getattr(error, "message", "") or str(error)
    return MadangError(
        Code.UNAVAILABLE, reason.ERROR_REASON_STORE_UNAVAILABLE, f"Milvus: {message}"
    )


def is_in(field: str, values: Sequence[str]) -> str:
    """A filter: a field has one of some values. The client's own lists of ids quote nothing."""
    return f"{field} in {json.dumps([*values], ensure_ascii=False)}"


def lexical_texts(terms: Terms, text: str) -> dict[str, str]:
    """What each lexical field holds, or is asked for."""
    return {TITLE: terms.title, BODY: terms.body, GRAMS: " ".join(grams(text))}


def _row(document: pb.Document, terms: Terms, vector: Floats, epoch: int) -> dict[str, Any]:
    hours = document.open_hours or ALWAYS
    texts = lexical_texts(terms, text_of(document))
    return {
        _ID: document.document_id,
        "title": document.title,
        "body": document.body,
        "category": document.category,
        "latitude": document.place.latitude,
        "longitude": document.place.longitude,
        "delivery_radius_km": document.delivery_radius_km,
        "open_hours": document.open_hours,
        "popularity": document.popularity,
        "hours": [hour for hour in range(24) if hours >> hour & 1],
        "cells": cover(document),
        _LEVEL: int(np.log2(1 + document.popularity)),
        _EPOCH: epoch,
        _VECTOR: vector,
        **{f"{field}_terms": _cut(text) for field, text in texts.items()},
    }


def _cut(terms: str) -> str:
    """As many terms as fit."""
    encoded = terms.encode()
    if len(encoded) <= _MOST_BYTES:
        return terms
    return encoded[:_MOST_BYTES].rpartition(b" ")[0].decode()


def _document(row: Mapping[str, Any]) -> pb.Document:
    document = pb.Document(**{field: row[field] for field in (*_TEXTS, *_NUMBERS)})
    if row["delivery_radius_km"] or row["latitude"] or row["longitude"]:
        document.delivery_radius_km = row["delivery_radius_km"]
        document.place.latitude = row["latitude"]
        document.place.longitude = row["longitude"]
    return document


def _hits(found: Sequence[Mapping[str, Any]]) -> Hits:
    discs = [[hit["entity"][field] for field in _DISC] for hit in found]
    return Hits(
        [hit[_ID] for hit in found],
        np.array([hit["distance"] for hit in found], np.float32),
        np.array(discs, np.float64).reshape(-1, 3),
    )


def _and(*filters: str) -> str:
    return " and ".join(part for part in filters if part)
