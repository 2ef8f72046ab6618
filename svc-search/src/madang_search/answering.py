"""How a query is answered: as it is, as what may have been meant, or by what is merely near."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from madang.search.v1 import search_pb2 as pb
from madang_runtime.errors import Code, MadangError, invalid, reason
from madang_runtime.freshness import position
from madang_runtime.models.context import Clock
from madang_runtime.stages import Stages
from madang_search.analysis import Analyzer, Term, normal
from madang_search.bundle import SearchBundle
from madang_search.correction import correct
from madang_search.documents import Wanted
from madang_search.editing import DOCUMENTS_TOKEN
from madang_search.highlight import Highlighter
from madang_search.index import Followed, Found, Query, Ranked, rank
from madang_search.lexicon import LexiconKeeper

DEEPEST = 1000
_OLD_SECONDS = 5.0  # without a look at a log, after which answers say so


@dataclass(frozen=True)
class Answer:
    """What a query was answered with: `found` in the order of `ranked`.

    Attributes:
        bundle: that answered.
        query: that was answered, which may be a corrected one.
        terms: of it.
        wanted: what the documents must be.
        fallback: why it is not what was asked for.
        corrected: what may have been meant, or "".
    """

    bundle: SearchBundle
    query: str
    terms: Sequence[Term]
    wanted: Wanted
    found: Found
    ranked: Ranked
    fallback: "pb.Fallback.ValueType" = pb.FALLBACK_UNSPECIFIED
    corrected: str = ""

    @property
    def any(self) -> bool:
        """Whether anything answers."""
        return len(self.ranked.order) > 0

    @property
    def by_words(self) -> bool:
        """Whether a document has a word of the query."""
        return bool(self.found.lexical.any())


class Answerer:
    """Answers queries by documents.

    Args:
        bundle: gives the version that serves now.
        analyzer: reads queries.
        lexicon: what can be corrected to.
        clock: tells the local hour.
    """

    def __init__(
        self,
        bundle: Callable[[], SearchBundle],
        analyzer: Analyzer,
        lexicon: LexiconKeeper,
        clock: Clock,
    ) -> None:
        self._bundle = bundle
        self._analyzer = analyzer
        self._lexicon = lexicon
        self._clock = clock
        self._highlighter = Highlighter(analyzer)

    def answer(self, request: pb.SearchRequest, time_ms: int, stages: Stages) -> Answer:
        """The best answer that there is.

        Raises:
            MadangError: NOT_READY, NOT_FRESH_YET, FRESHNESS_TOKEN_INVALID, FIELD_INVALID.
        """
        bundle, text = self._bundle(), text_of_query(request.query)
        reach(bundle.documents.log, request.freshness_token, DOCUMENTS_TOKEN, stages)
        wanted = self._wanted(request, time_ms)
        method = request.method
        answer = self._asked(bundle, method, text, wanted, stages)
        if not request.exact_query:
            with stages.stage("correct"):
                dictionary = self._lexicon.lexicon.dictionary
                corrected = correct(text, dictionary, lambda word: self._knows(bundle, word))
            answer = replace(answer, corrected=corrected)
        if answer.by_words or (method == pb.SEARCH_METHOD_DENSE and answer.any):
            return answer
        if corrected := answer.corrected:
            meant = self._asked(bundle, method, corrected, wanted, stages)
            if meant.by_words or (meant.any and not answer.any):
                return replace(meant, fallback=pb.FALLBACK_CORRECTED, corrected=corrected)
        return answer if answer.any else _fallback(answer)

    def mark(self, answer: Answer, document: pb.Document) -> Sequence[pb.Highlight]:
        """What of a document matches."""
        return self._highlighter.mark(document, answer.terms, answer.query)

    def _wanted(self, request: pb.SearchRequest, time_ms: int) -> Wanted:
        place = request.place if request.HasField("place") else None
        hour = None
        if request.open_only:
            if place is None and self._clock.utc_offset_hours is None:
                raise invalid("place", "is required with open_only: local time follows from it")
            hour = self._clock.local_hour(time_ms, place.longitude if place else 0.0) % 24
        return Wanted(request.categories, place, hour)

    def _knows(self, bundle: SearchBundle, word: str) -> bool:
        """Whether documents are found by a word."""
        terms = [term.text for term in self._analyzer.terms(word)]
        return bundle.documents.knows(Query(word, terms))

    def _asked(
        self,
        bundle: SearchBundle,
        method: "pb.SearchMethod.ValueType",
        text: str,
        wanted: Wanted,
        stages: Stages,
    ) -> Answer:
        with stages.stage("analyse"):
            terms = self._analyzer.terms(text)
        query = Query(text, [term.text for term in terms])
        found = bundle.documents.search(query, wanted, method, DEEPEST, stages)
        ranked = rank(found, method, bundle.tuning.dense_weight, bundle.tuning.near)
        return Answer(bundle, text, terms, wanted, found, ranked)


def text_of_query(query: str) -> str:
    """A query in normal form. Raises: MadangError FIELD_INVALID."""
    if text := normal(query):
        return text
    raise invalid("query", "has no text")


def reach(log: Followed, asked: str, name: str, stages: Stages) -> None:
    """Be at the state that a token asks for, and tell when the log is long unseen.

    Raises:
        MadangError: NOT_FRESH_YET, FRESHNESS_TOKEN_INVALID.
    """
    log.reach(position(asked, name))
    if log.age > _OLD_SECONDS:
        why = MadangError(
            Code.UNAVAILABLE,
            reason.ERROR_REASON_STORE_UNAVAILABLE,
            f"the log was last seen {log.age:.0f} s ago",
        )
        stages.degrade("log", why, f"as of {log.age:.0f} s ago")


def _fallback(answer: Answer) -> Answer:
    """What to show when nothing answers."""
    bundle = answer.bundle
    ranked = rank(answer.found, pb.SEARCH_METHOD_DENSE, 1.0, bundle.tuning.nearest)
    if len(ranked.order):
        return replace(answer, ranked=ranked, fallback=pb.FALLBACK_NEAREST)
    found = bundle.documents.popular(answer.wanted, DEEPEST)
    ranked = Ranked(np.arange(len(found.lexical)), found.lexical)
    return replace(answer, found=found, ranked=ranked, fallback=pb.FALLBACK_POPULAR)
