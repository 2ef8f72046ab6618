"""Which rows hold a query's words: BM25 in Tantivy, over terms that `analysis` finds."""

from collections.abc import Sequence

import numpy as np
import tantivy
from numpy.typing import NDArray

from madang_search.analysis import grams

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

TITLE, BODY, GRAMS = "title", "body", "grams"
_ROW = "row"
_HEAP_BYTES = 50_000_000
_WHOLE, _FREQUENCIES = "whitespace", "freq"


class LexicalView:
    """The rows as they were at a moment. Any thread may search.

    Args:
        searcher: of that moment.
        schema: of the index.
        weights: of the fields.
    """

    def __init__(
        self, searcher: tantivy.Searcher, schema: tantivy.Schema, weights: dict[str, float]
    ) -> None:
        self._searcher, self._schema, self._weights = searcher, schema, weights

    def search(
        self, terms: Sequence[str], text: str, allowed: NDArray[np.bool_], k: int
    ) -> tuple[Rows, Floats]:
        """The k allowed rows of largest BM25 (k1 = 1.2, b = 0.75), best first.

        Args:
            terms: of the query.
            text: of the query, for its pairs of syllables.
            allowed: of each row, whether it may be found.
        """
        query = self._query(terms, text)
        limit = 2 * k
        while True:
            hits = self._searcher.search(query, limit, count=False).hits
            addresses = [address for _, address in hits]
            rows = np.array(self._searcher.fast_field_values(_ROW, addresses), np.int64)
            keep = np.flatnonzero(allowed[rows])
            if len(keep) >= k or len(hits) < limit:
                scores = np.array([hits[at][0] for at in keep[:k]], np.float32)
                return rows[keep[:k]], scores
            limit *= 8

    def knows(self, terms: Sequence[str], text: str) -> bool:
        """Whether rows have each of some terms, or each pair of syllables of a text."""
        pairs = grams(text)
        by_terms = all(self._has(TITLE, term) or self._has(BODY, term) for term in terms)
        return bool(terms and by_terms) or bool(
            pairs and all(self._has(GRAMS, pair) for pair in pairs)
        )

    def _has(self, field: str, term: str) -> bool:
        """Whether a row that was not removed has a term: counts of terms include removed ones."""
        query = tantivy.Query.term_query(self._schema, field, term, _FREQUENCIES)
        return len(self._searcher.search(query, 1, count=False).hits) > 0

    def _query(self, terms: Sequence[str], text: str) -> tantivy.Query:
        asked = [(field, term) for term in dict.fromkeys(terms) for field in (TITLE, BODY)]
        asked += [(GRAMS, gram) for gram in dict.fromkeys(grams(text))]
        return tantivy.Query.boolean_query(
            [
                (
                    tantivy.Occur.Should,
                    tantivy.Query.boost_query(
                        tantivy.Query.term_query(self._schema, field, term, _FREQUENCIES),
                        self._weights[field],
                    ),
                )
                for field, term in asked
                if self._weights[field]
            ]
        )


class LexicalIndex:
    """Rows with their terms, in memory. One thread writes.

    Args:
        weights: of the fields; 0 leaves one out.
    """

    def __init__(self, weights: dict[str, float]) -> None:
        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field(_ROW, indexed=True, fast=True)
        for field in (TITLE, BODY, GRAMS):
            builder.add_text_field(field, tokenizer_name=_WHOLE, index_option=_FREQUENCIES)
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema)
        self._writer = self._index.writer(_HEAP_BYTES, 1)
        self._weights = weights

    def put(self, row: int, title: str, body: str, text: str) -> None:
        """Set the terms of a row that has none, seen from the next view on.

        Args:
            title, body: terms with spaces between them.
            text: title and body, for their pairs of syllables.
        """
        document = tantivy.Document()
        document.add_unsigned(_ROW, row)
        for field, terms in ((TITLE, title), (BODY, body), (GRAMS, " ".join(grams(text)))):
            document.add_text(field, terms)
        self._writer.add_document(document)

    def remove(self, row: int) -> None:
        """Take a row out, seen from the next view on."""
        self._writer.delete_documents_by_term(_ROW, row)

    def view(self) -> LexicalView:
        """Make what was put and removed seen: some ten milliseconds."""
        self._writer.commit()
        self._index.reload()
        return LexicalView(self._index.searcher(), self._schema, self._weights)
