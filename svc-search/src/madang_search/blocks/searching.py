"""SearchBlocks, free of transport."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from madang.feature.v1 import feature_store_pb2
from madang.search.v1 import search_pb2 as pb
from madang_runtime.errors import MadangError
from madang_runtime.freshness import token
from madang_runtime.stages import Stages
from madang_runtime.times import given_ms, now_ms
from madang_search.answering import Answer, Answerer
from madang_search.blocks.grouping import Block, group
from madang_search.blocks.queries import KnownQuery, QueryBook
from madang_search.blocks.retrieving import Candidate, retrieve
from madang_search.blocks.scores import (
    Floats,
    Pool,
    general,
    personal,
    probabilities,
    recent_categories,
)
from madang_search.blocks.users import User, Users
from madang_search.editing import DOCUMENTS_TOKEN
from madang_search.finder import SearchFinder
from madang_search.query_log import Searched

_BLOCKS, _HITS = 6, 5


@dataclass(frozen=True)
class _Wanted:
    """What of n candidates is wanted.

    Attributes:
        chances, general: the probability that it is what the user, or anybody, wants, [n].
        personalisation: the weight of who asks, in [0, 1].
        user: who asks, if it counts.
    """

    chances: Floats
    general: Floats
    personalisation: float
    user: User | None


class BlockSearcher:
    """The domain of SearchBlocks.

    Args:
        answerer, finder: answer queries, and match intents.
        book: gives the queries' version that serves; may raise MadangError that there is none.
        users: tells of who asks.
        note: takes what was answered, for the log; must not block.
    """

    def __init__(
        self,
        answerer: Answerer,
        finder: SearchFinder,
        book: Callable[[], QueryBook],
        users: Users,
        note: Callable[[Searched], object],
    ) -> None:
        self._answerer = answerer
        self._finder = finder
        self._book = book
        self._users = users
        self._note = note

    def search(self, request: pb.SearchBlocksRequest, stages: Stages) -> pb.SearchBlocksResponse:
        """Answer SearchBlocks.

        Raises:
            MadangError: NOT_READY, NOT_FRESH_YET, FRESHNESS_TOKEN_INVALID, FIELD_INVALID.
        """
        started, asked_ms = time.perf_counter(), now_ms()
        time_ms = given_ms(request, "request_time", asked_ms)
        asked = pb.SearchRequest(
            query=request.query,
            user_id=request.user_id,
            place=request.place,
            open_only=request.open_only,
            exact_query=request.exact_query,
            freshness_token=request.freshness_token,
        )
        answer = self._answerer.answer(asked, time_ms, stages)
        book = self._queries(stages)
        known = book.find(answer.query, answer.bundle) if book else None
        candidates, fallback = retrieve(answer, known, stages)
        wanted = self._wanted(request, time_ms, candidates, known, book, stages)
        user, chances = wanted.user, wanted.chances
        recent = {action.item_id for action in user.recent} if user else ()
        blocks = group(answer.query, candidates, chances, wanted.general, recent)
        intents = self._intents(request, answer, stages)
        room = max(0, (request.max_blocks or _BLOCKS) - len(intents))
        with stages.stage("highlight"):
            shown = [
                self._shown(block, candidates, chances, answer, request.hits_per_block or _HITS)
                for block in blocks[:room]
            ]
        models = [answer.bundle.version, *([book.version] if book else [])]
        response = pb.SearchBlocksResponse(
            blocks=[*intents, *shown],
            click_entropy=known.entropy if known else None,
            personalisation=wanted.personalisation,
            corrected_query=answer.corrected,
            fallback=fallback,
            search_id=uuid.uuid4().hex,
            serving_info=stages.serving_info(
                [*models, *(user.models if user else [])],
                freshness_token=token(DOCUMENTS_TOKEN, answer.bundle.documents.log.position),
            ),
        )
        page = pb.SearchResponse(
            hits=[hit for block in response.blocks for hit in block.hits],
            corrected_query=answer.corrected,
            fallback=fallback,
            search_id=response.search_id,
            serving_info=response.serving_info,
        )
        self._note(Searched(asked, page, asked_ms, 1, time.perf_counter() - started))
        return response

    def _wanted(
        self,
        request: pb.SearchBlocksRequest,
        time_ms: int,
        candidates: Sequence[Candidate],
        known: KnownQuery | None,
        book: QueryBook | None,
        stages: Stages,
    ) -> _Wanted:
        pool = Pool(
            [one.document.document_id for one in candidates],
            [one.document.category for one in candidates],
            np.array([one.relevance for one in candidates], np.float64),
        )
        anybody = general(pool, known)
        weight = known.personalisation if known else 1.0
        user = None
        if weight and candidates:
            user = self._users.know(request, time_ms, pool.ids, stages)
        if not user:
            chances = probabilities(anybody)
            return _Wanted(chances, chances, 0.0, None)
        steps = [_looked_for(action, pool, book) for action in user.recent]
        own = anybody + weight * personal(pool, user.clicks, recent_categories(steps))
        return _Wanted(probabilities(own), probabilities(anybody), weight, user)

    def _queries(self, stages: Stages) -> QueryBook | None:
        try:
            return self._book()
        except MadangError as error:
            stages.degrade("queries", error, "without what others took")
            return None

    def _intents(
        self, request: pb.SearchBlocksRequest, answer: Answer, stages: Stages
    ) -> list[pb.SearchBlock]:
        """Entries of the catalogue that the query means."""
        asked = pb.MatchIntentsRequest(
            query=answer.query,
            area=request.area,
            limit=request.max_blocks or _BLOCKS,
            freshness_token=request.freshness_token,
        )
        return [
            pb.SearchBlock(kind=pb.BLOCK_KIND_ANSWER, title=match.intent_id, intent=match)
            for match in self._finder.match_intents(asked, stages).matches
        ]

    def _shown(
        self,
        block: Block,
        candidates: Sequence[Candidate],
        chances: Floats,
        answer: Answer,
        most: int,
    ) -> pb.SearchBlock:
        hits = []
        for row in block.rows[:most]:
            one = candidates[row]
            hits.append(
                pb.SearchHit(
                    document_id=one.document.document_id,
                    title=one.document.title,
                    category=one.document.category,
                    score=chances[row],
                    lexical_score=one.lexical,
                    similarity=one.similarity,
                    highlights=self._answerer.mark(answer, one.document) if one.lexical else (),
                )
            )
        return pb.SearchBlock(
            kind=block.kind,
            title=block.title,
            score=min(1.0, block.score),
            general_score=min(1.0, block.general),
            hits=hits,
            documents=len(block.rows),
        )


def _looked_for(
    action: feature_store_pb2.Action, pool: Pool, book: QueryBook | None
) -> Mapping[str, float]:
    """Shares of the categories that an action was about, as far as it is known."""
    if action.type == feature_store_pb2.ACTION_TYPE_SEARCH:
        known = book.get(action.query) if book else None
        return known.categories if known else {}
    if action.item_id in pool.ids:
        return {pool.categories[pool.ids.index(action.item_id)]: 1.0}
    return {}
