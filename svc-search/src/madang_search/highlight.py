"""Which characters of a document match a query."""

from collections.abc import Iterable, Sequence

from madang.search.v1 import search_pb2 as pb
from madang_search.analysis import Analyzer, Term, grams
from madang_search.hangul import has_hangul

_LONGEST = 160
_LEAD = 40
_MOST_LINES = 8


class Highlighter:
    """Marks a query's words in a title and in the line of a body that has most of them.

    Args:
        analyzer: the one that the documents were indexed with.
    """

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer

    def mark(self, document: pb.Document, terms: Sequence[Term], query: str) -> list[pb.Highlight]:
        """The highlights of a document.

        Args:
            terms: of the query.
            query: its text.
        """
        wanted = {term.text for term in terms}
        surfaces = [query[term.start : term.start + term.length].lower() for term in terms]
        pairs = [gram for gram in grams(query) if len(gram) > 1]
        found = []
        title = self._spans(document.title, wanted, surfaces, pairs)
        if title:
            found.append(_highlight("title", document.title, title))
        pieces = {text[:2] for text in (*wanted, *surfaces, *pairs) if text}
        lines = [line for line in document.body.split("\n") if _shared(pieces, line)]
        lines.sort(key=lambda line: -_shared(pieces, line))
        marked = [
            (line, self._spans(line, wanted, surfaces, pairs)) for line in lines[:_MOST_LINES]
        ]
        line, spans = max(marked, key=lambda one: sum(n for _, n in one[1]), default=("", []))
        if spans:
            found.append(_highlight("body", line, spans))
        return found

    def _spans(
        self, text: str, wanted: set[str], surfaces: Sequence[str], pairs: Sequence[str]
    ) -> list[tuple[int, int]]:
        """Start and length of what matches: words by their terms, and parts of Hangul words."""
        spans = [(t.start, t.length) for t in self._analyzer.terms(text) if t.text in wanted]
        for piece in (*surfaces, *(() if spans else pairs)):
            at = text.find(piece) if len(piece) > 1 and has_hangul(piece) else -1
            if at >= 0:
                spans.append((at, len(piece)))
        return _merged(spans)


def _shared(pieces: set[str], line: str) -> int:
    """How many of some beginnings of words a line has."""
    lower = line.lower()
    return sum(piece in lower for piece in pieces)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that touch as one."""
    out: list[tuple[int, int]] = []
    for start, length in sorted(spans):
        if out and start <= sum(out[-1]):
            out[-1] = (out[-1][0], max(sum(out[-1]), start + length) - out[-1][0])
        else:
            out.append((start, length))
    return out


def _highlight(field: str, text: str, spans: Sequence[tuple[int, int]]) -> pb.Highlight:
    """The text, cut around its first match where it is long."""
    begin = max(0, spans[0][0] - _LEAD) if len(text) > _LONGEST else 0
    text = text[begin : begin + _LONGEST]
    inside = [(start - begin, min(n, len(text) - start + begin)) for start, n in spans]
    return pb.Highlight(
        field=field,
        text=text,
        spans=[pb.Span(start=start, length=n) for start, n in inside if n > 0],
    )
