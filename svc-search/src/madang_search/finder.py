"""Search, MatchIntents, Suggest and the RPCs that tell of them, free of transport."""

import time
import uuid
from collections.abc import Callable

from google.protobuf import duration_pb2

from madang.search.v1 import search_pb2 as pb
from madang_runtime.changelog.follower import Follower
from madang_runtime.freshness import merge, token
from madang_runtime.paging import page_token, page_values
from madang_runtime.scope import SCOPE, deadline_exceeded
from madang_runtime.stages import Stages
from madang_runtime.times import given_ms, now_ms
from madang_search.answering import DEEPEST, Answer, Answerer, reach, text_of_query
from madang_search.bundle import SearchBundle
from madang_search.editing import DOCUMENTS_TOKEN, INTENTS_TOKEN
from madang_search.intents import Catalogue, IntentKeeper
from madang_search.lexicon import LexiconKeeper
from madang_search.query_log import Searched

_DEFAULT_PAGE, _DEFAULT_MATCHES, _DEFAULT_SUGGESTIONS, _DEFAULT_LISTED = 20, 5, 10, 100


class SearchFinder:
    """The domain of the RPCs that read.

    Args:
        bundle: gives the version that serves now.
        answerer: answers queries.
        lexicon: what can be suggested.
        intents: the catalogue.
        intent_log: keeps the catalogue at the state of its log.
        note: takes what was answered, for the log; must not block.
    """

    def __init__(
        self,
        bundle: Callable[[], SearchBundle],
        answerer: Answerer,
        lexicon: LexiconKeeper,
        intents: IntentKeeper,
        intent_log: Follower,
        note: Callable[[Searched], object],
    ) -> None:
        self._bundle = bundle
        self._answerer = answerer
        self._lexicon = lexicon
        self._intents = intents
        self._intent_log = intent_log
        self._note = note

    def search(self, request: pb.SearchRequest, stages: Stages) -> pb.SearchResponse:
        """Answer Search.

        Raises:
            MadangError: NOT_READY, NOT_FRESH_YET, FRESHNESS_TOKEN_INVALID, PAGE_TOKEN_INVALID,
                FIELD_INVALID.
        """
        started, asked_ms = time.perf_counter(), now_ms()
        offset, time_ms = 0, given_ms(request, "request_time", asked_ms)
        if request.page_token:
            offset, time_ms = page_values(request, request.page_token, 2)
        answer = self._answerer.answer(request, time_ms, stages)
        bundle, size = answer.bundle, request.page_size or _DEFAULT_PAGE
        end = min(offset + size, DEEPEST)
        more = end < min(len(answer.ranked.order), DEEPEST)
        with stages.stage("highlight"):
            hits = self._hits(answer, offset, end)
        response = pb.SearchResponse(
            search_id=uuid.uuid4().hex,
            hits=hits,
            next_page_token=page_token(request, end, time_ms) if more else "",
            corrected_query=answer.corrected,
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
        bundle, text = self._bundle(), text_of_query(request.query)
        reach(self._intent_log, request.freshness_token, INTENTS_TOKEN, stages)
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
        reach(self._intent_log, request.freshness_token, INTENTS_TOKEN, stages)
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

    def _hits(self, answer: Answer, start: int, end: int) -> list[pb.SearchHit]:
        """The hits of a page."""
        found, ranked = answer.found, answer.ranked
        hits = []
        page = ranked.order[start:end]
        for at, score, document in zip(
            page, ranked.scores[start:end], found.documents(page), strict=True
        ):
            if document is None:  # deleted since it was found
                continue
            hits.append(
                pb.SearchHit(
                    document_id=document.document_id,
                    title=document.title,
                    category=document.category,
                    score=score,
                    lexical_score=found.lexical[at],
                    similarity=found.similarities[at],
                    highlights=self._answerer.mark(answer, document) if found.lexical[at] else (),
                )
            )
        return hits
