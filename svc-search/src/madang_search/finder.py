"""Search, MatchIntents, Suggest and the RPCs that tell of them, free of transport."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from google.protobuf import duration_pb2

from madang.search.v1 import search_pb2 as pb
from madang_runtime.changelog.follower import Follower
from madang_runtime.errors import Code, MadangError, invalid, reason
from madang_runtime.freshness import merge, position, token
from madang_runtime.models.context import Clock
from madang_runtime.paging import page_token, page_values
from madang_runtime.scope import SCOPE, deadline_exceeded
from madang_runtime.stages import Stages
from madang_runtime.times import given_ms, now_ms
from madang_search.analysis import Analyzer, Term, normal
from madang_search.bundle import SearchBundle
from madang_search.correction import correct
from madang_search.documents import Wanted
from madang_search.editing import DOCUMENTS_TOKEN, INTENTS_TOKEN
from madang_search.highlight import Highlighter
from madang_search.index import Followed, Found, Query, Ranked, rank
from madang_search.intents import Catalogue, IntentKeeper
from madang_search.lexicon import LexiconKeeper
from madang_search.query_log import Searched

_DEFAULT_PAGE, _DEEPEST = 20, 1000
_DEFAULT_MATCHES, _DEFAULT_SUGGESTIONS, _DEFAULT_LISTED = 5, 10, 100
_OLD_SECONDS = 5.0  # without a look at a log, after which answers say so


@dataclass(frozen=True)
class _Answer:
    """What a query was answered with: `found` in the order of `ranked`."""

    query: str
    terms: Sequence[Term]
    found: Found
    ranked: Ranked
    fallback: "pb.Fallback.ValueType" = pb.FALLBACK_UNSPECIFIED

    @property
    def any(self) -> bool:
        """Whether anything answers."""
        return len(self.ranked.order) > 0

    @property
    def by_words(self) -> bool:
        """Whether a document has a word of the query."""
        return bool(self.found.lexical.any())


class SearchFinder:
    """The domain of the RPCs that read.

    Args:
        bundle: gives the version that serves now.
        analyzer: reads queries.
        lexicon: what can be suggested, and corrected to.
        intents: the catalogue.
        intent_log: keeps the catalogue at the state of its log.
        clock: tells the local hour.
        note: takes what was answered, for the log; must not block.
    """

    def __init__(
        self,
        bundle: Callable[[], SearchBundle],
        analyzer: Analyzer,
        lexicon: LexiconKeeper,
        intents: IntentKeeper,
        intent_log: Follower,
        clock: Clock,
        note: Callable[[Searched], object],
    ) -> None:
        self._bundle = bundle
        self._analyzer = analyzer
        self._lexicon = lexicon
        self._highlighter = Highlighter(analyzer)
        self._intents = intents
        self._intent_log = intent_log
        self._clock = clock
        self._note = note

    def search(self, request: pb.SearchRequest, stages: Stages) -> pb.SearchResponse:
        """Answer Search.

        Raises:
            MadangError: NOT_READY, NOT_FRESH_YET, FRESHNESS_TOKEN_INVALID, PAGE_TOKEN_INVALID,
                FIELD_INVALID.
        """
        started, asked_ms = time.perf_counter(), now_ms()
        bundle = self._bundle()
        text = normal(request.query)
        if not text:
            raise invalid("query", "has no text")
        offset, time_ms = 0, given_ms(request, "request_time", asked_ms)
        if request.page_token:
            offset, time_ms = page_values(request, request.page_token, 2)
        self._reach(bundle.documents.log, request.freshness_token, DOCUMENTS_TOKEN, stages)
        wanted = self._wanted(request, time_ms)
        answer, corrected = self._answer(bundle, request, text, wanted, stages)
        size = request.page_size or _DEFAULT_PAGE
        end = min(offset + size, _DEEPEST)
        more = end < min(len(answer.ranked.order), _DEEPEST)
        with stages.stage("highlight"):
            hits = self._hits(answer, offset, end)
        response = pb.SearchResponse(
            search_id=uuid.uuid4().hex,
            hits=hits,
            next_page_token=page_token(request, end, time_ms) if more else "",
            corrected_query=corrected,
            fallback=answer.fallback,
            serving_info=stages.serving_info(
                [bundle.version],
                freshness_token=token(DOCUMENTS_TOKEN, bundle.documents.log.position),
            ),
        )
        seconds = time.perf_counter() - started
        self._note(Searched(request, response, asked_ms, offset + 1, seconds))
        return response

    def match_intents(
        self, request: pb.MatchIntentsRequest, stages: Stages
    ) -> pb.MatchIntentsResponse:
        """Answer MatchIntents.

        Raises:
            MadangError: NOT_READY, NOT_FRESH_YET, FRESHNESS_TOKEN_INVALID, FIELD_INVALID.
        """
        bundle = self._bundle()
        text = normal(request.query)
        if not text:
            raise invalid("query", "has no text")
        self._reach(self._intent_log, request.freshness_token, INTENTS_TOKEN, stages)
        with stages.stage("dense"):
            matches = self._intents.catalogue(bundle.encoder).match(
                bundle.nearest, text, request.area, bundle.tuning.intent
            )
        if not request.include_below_threshold:
            matches = [match for match in matches if match.matched]
        return pb.MatchIntentsResponse(
            # An entry that reaches its own threshold comes before a nearer one that does not.
            matches=sorted(matches, key=lambda m: not m.matched)[
                : request.limit or _DEFAULT_MATCHES
            ],
            serving_info=stages.serving_info(
                [bundle.version], freshness_token=token(INTENTS_TOKEN, self._intent_log.position)
            ),
        )

    def list_intents(
        self, request: pb.ListIntentsRequest, stages: Stages
    ) -> pb.ListIntentsResponse:
        """Answer ListIntents.

        Raises:
            MadangError: NOT_READY, NOT_FRESH_YET, FRESHNESS_TOKEN_INVALID, PAGE_TOKEN_INVALID.
        """
        bundle = self._bundle()
        offset = page_values(request, request.page_token, 1)[0] if request.page_token else 0
        self._reach(self._intent_log, request.freshness_token, INTENTS_TOKEN, stages)
        catalogue: Catalogue = self._intents.catalogue(bundle.encoder)
        end = offset + (request.page_size or _DEFAULT_LISTED)
        listed = []
        for at in range(offset, min(end, len(catalogue.entries))):
            if SCOPE.get().abandoned:
                raise deadline_exceeded("the deadline passed; ask for fewer entries")
            listed.append(catalogue.study(at, bundle.tuning.intent))
        return pb.ListIntentsResponse(
            intents=listed,
            next_page_token=page_token(request, end) if end < len(catalogue.entries) else "",
        )

    def suggest(self, request: pb.SuggestRequest, stages: Stages) -> pb.SuggestResponse:
        """Answer Suggest."""
        with stages.stage("suggest"):
            found = self._lexicon.lexicon.book.suggest(
                request.prefix, request.limit or _DEFAULT_SUGGESTIONS
            )
        return pb.SuggestResponse(
            suggestions=[
                pb.Suggestion(text=one.text, kind=one.kind, popularity=one.popularity)
                for one in found
            ],
            serving_info=stages.serving_info(),
        )

    def info(self) -> pb.GetCorpusInfoResponse:
        """Answer GetCorpusInfo. Raises: MadangError NOT_READY."""
        bundle = self._bundle()
        behind = duration_pb2.Duration()
        behind.FromMilliseconds(int(bundle.documents.log.age * 1000))
        return pb.GetCorpusInfoResponse(
            model=bundle.version,
            documents=bundle.documents.size,
            dimension=bundle.encoder.dimension,
            index=bundle.documents.name,
            intents=len(self._intents.catalogue(bundle.encoder).entries),
            phrases=len(self._lexicon.lexicon.book),
            freshness_token=merge(
                token(DOCUMENTS_TOKEN, bundle.documents.log.position),
                token(INTENTS_TOKEN, self._intent_log.position),
            ),
            behind=behind,
        )

    def _reach(self, log: Followed, asked: str, name: str, stages: Stages) -> None:
        """Be at the state that a token asks for, and tell when the log is long unseen."""
        log.reach(position(asked, name))
        if log.age > _OLD_SECONDS:
            why = MadangError(
                Code.UNAVAILABLE,
                reason.ERROR_REASON_STORE_UNAVAILABLE,
                f"the log was last seen {log.age:.0f} s ago",
            )
            stages.degrade("log", why, f"as of {log.age:.0f} s ago")

    def _wanted(self, request: pb.SearchRequest, time_ms: int) -> Wanted:
        place = request.place if request.HasField("place") else None
        hour = None
        if request.open_only:
            if place is None and self._clock.utc_offset_hours is None:
                raise invalid("place", "is required with open_only: local time follows from it")
            hour = self._clock.local_hour(time_ms, place.longitude if place else 0.0) % 24
        return Wanted(request.categories, place, hour)

    def _answer(
        self,
        bundle: SearchBundle,
        request: pb.SearchRequest,
        text: str,
        wanted: Wanted,
        stages: Stages,
    ) -> tuple[_Answer, str]:
        """The best answer that there is, and what may have been meant."""
        method = request.method
        answer = self._asked(bundle, method, text, wanted, stages)
        corrected = ""
        if not request.exact_query:
            with stages.stage("correct"):
                dictionary = self._lexicon.lexicon.dictionary
                corrected = correct(text, dictionary, lambda word: self._knows(bundle, word))
        if answer.by_words or (method == pb.SEARCH_METHOD_DENSE and answer.any):
            return answer, corrected
        if corrected:
            meant = self._asked(bundle, method, corrected, wanted, stages)
            if meant.by_words or (meant.any and not answer.any):
                return replace(meant, fallback=pb.FALLBACK_CORRECTED), corrected
        if not answer.any:
            answer = self._fallback(bundle, answer, wanted)
        return answer, corrected

    def _fallback(self, bundle: SearchBundle, answer: _Answer, wanted: Wanted) -> _Answer:
        """What to show when nothing answers."""
        ranked = rank(answer.found, pb.SEARCH_METHOD_DENSE, 1.0, bundle.tuning.nearest)
        if len(ranked.order):
            return replace(answer, ranked=ranked, fallback=pb.FALLBACK_NEAREST)
        found = bundle.documents.popular(wanted, _DEEPEST)
        ranked = Ranked(np.arange(len(found.lexical)), found.lexical)
        return replace(answer, found=found, ranked=ranked, fallback=pb.FALLBACK_POPULAR)

    def _knows(self, bundle: SearchBundle, word: str) -> bool:
        """Whether documents are found by a word."""
        terms = [term.text for term in self._analyzer.terms(word)]
        return bundle.documents.knows(Query(word, terms))

    def _hits(self, answer: _Answer, start: int, end: int) -> list[pb.SearchHit]:
        """The hits of a page."""
        found, ranked = answer.found, answer.ranked
        hits = []
        page = ranked.order[start:end]
        for at, score, document in zip(
            page, ranked.scores[start:end], found.documents(page), strict=True
        ):
            if document is None:  # deleted since it was found
                continue
            marked = []
            if found.lexical[at]:
                marked = self._highlighter.mark(document, answer.terms, answer.query)
            hits.append(
                pb.SearchHit(
                    document_id=document.document_id,
                    title=document.title,
                    category=document.category,
                    score=score,
                    lexical_score=found.lexical[at],
                    similarity=found.similarities[at],
                    highlights=marked,
                )
            )
        return hits

    def _asked(
        self,
        bundle: SearchBundle,
        method: "pb.SearchMethod.ValueType",
        text: str,
        wanted: Wanted,
        stages: Stages,
    ) -> _Answer:
        with stages.stage("analyse"):
            terms = self._analyzer.terms(text)
        query = Query(text, [term.text for term in terms])
        found = bundle.documents.search(query, wanted, method, _DEEPEST, stages)
        ranked = rank(found, method, bundle.tuning.dense_weight, bundle.tuning.near)
        return _Answer(text, terms, found, ranked)
