"""The demo's search: what a person sees while typing, what is found, and what is meant."""

import uuid
from collections.abc import Sequence

import grpc
import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from madang.common.v1 import place_pb2
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang.search.v1 import search_pb2 as pb
from madang.search.v1 import search_pb2_grpc
from madang_cli.blocks import show_blocks
from madang_cli.mesh.mesh import wait_for
from madang_pipelines.tables import Tables
from madang_search.hangul import compose, keys, neighbours, to_english

_TIMEOUT = 5.0
QUERIES = ("매운 떡볶이", "시원한 음료", "burger", "clzls")
_WHY = {
    pb.SUGGESTION_KIND_KEYBOARD: "the other keyboard",
    pb.SUGGESTION_KIND_TYPO: "a slip",
}
_FALLBACKS = {
    pb.FALLBACK_NEAREST: "nothing matches; the nearest in meaning",
    pb.FALLBACK_POPULAR: "nothing matches; what is popular",
}
_INTENTS = {
    "order/where": ["주문 어디까지 왔어요", "배달 언제 와요"],
    "order/cancel": ["주문을 취소할래요", "잘못 시켰어요"],
    "pay/refund": ["환불해 주세요", "돈을 돌려받고 싶어요"],
    "account/address": ["배달 주소를 바꾸고 싶어요", "이사했어요"],
    "coupon/use": ["쿠폰은 어떻게 써요", "할인 코드가 있어요"],
}
_ASKED = ("주문한 음식은 언제 와요?", "집 주소가 바뀌었어요", "오늘 축구 몇 시에 해?")


class SearchBox:
    """Somebody at a search field.

    Args:
        channel: of the gateway.
        feed: their place and time; none: anywhere, any time.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        feed: ranker_pb2.RecommendRequest | None = None,
    ) -> None:
        self._search = search_pb2_grpc.SearchServiceStub(channel)
        self._ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        self._feed = feed or ranker_pb2.RecommendRequest()

    def type(self, console: Console) -> None:
        """Type the most popular shop's name key by key, then on the wrong keyboard, and with a slip
        of the finger."""
        name = self.popular(1)[0]
        typed = keys(name)
        prefixes = [compose(typed[:end]) for end in range(1, len(typed) + 1, 2)]
        beside = neighbours()
        slips = [typed[:3] + near + typed[4:] for near in beside.get(typed[3], "")]
        table = Table("typed", "suggested", box=None, pad_edge=False, padding=(0, 2))
        for prefix in [*prefixes, to_english(name[:3]), *map(compose, slips[:1])]:
            found = self._suggested(prefix, 3)
            why = _WHY.get(found[0].kind, "") if found else ""
            texts = "  ".join(_bold_start(one.text, prefix) for one in found)
            table.add_row(escape(prefix), texts + (f"  [dim]{why}[/]" if why else ""))
        console.print(table)

    def popular(self, n: int) -> list[str]:
        """What is suggested before anything is typed."""
        return [one.text for one in self._suggested("", n)]

    def _suggested(self, prefix: str, limit: int) -> Sequence[pb.Suggestion]:
        request = pb.SuggestRequest(prefix=prefix, limit=limit)
        return self._search.Suggest(request, timeout=_TIMEOUT).suggestions

    def find(self, console: Console, queries: Sequence[str] = QUERIES) -> None:
        """Search, by default by a dish, by what is meant, in English, and with a slip."""
        for query in queries:
            request = pb.SearchRequest(query=query, page_size=3)
            if self._feed.HasField("place"):
                request.MergeFrom(
                    pb.SearchRequest(
                        place=self._feed.place,
                        request_time=self._feed.request_time,
                        open_only=True,
                    )
                )
            answer = self._search.Search(request, timeout=_TIMEOUT)
            note = _FALLBACKS.get(answer.fallback, "")
            if answer.fallback == pb.FALLBACK_CORRECTED:
                note = f"did you mean {answer.corrected_query}?"
            console.print(f"[bold]{escape(query)}[/]" + (f"  [dim]{note}[/]" if note else ""))
            table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
            for hit in answer.hits:
                shown = {one.field: marked(one) for one in hit.highlights}
                by = f"words {hit.lexical_score:4.1f}, meaning {hit.similarity:.2f}"
                title = shown.get("title", escape(hit.title))
                table.add_row("  " + title, shown.get("body", ""), f"[dim]{by}[/]")
            console.print(table)

    def mean(self, console: Console, tables: Tables) -> None:
        """Search for the same as different people."""
        show_blocks(self._search, self._feed, tables, console)

    def ask(self, console: Console) -> None:
        """Ask for what no shop sells: the entry of a small catalogue that is meant."""
        entries = [
            pb.Intent(intent_id=name, path=name.split("/"), phrases=phrases)
            for name, phrases in _INTENTS.items()
        ]
        put = pb.UpsertIntentsRequest(intents=entries)
        token = self._search.UpsertIntents(put, timeout=_TIMEOUT).freshness_token
        table = Table("asked", "means", "like", box=None, pad_edge=False, padding=(0, 2))
        for query in _ASKED:
            request = pb.MatchIntentsRequest(
                query=query, limit=1, include_below_threshold=True, freshness_token=token
            )
            (match,) = self._search.MatchIntents(request, timeout=_TIMEOUT).matches
            reaches = "≥" if match.matched else "<"
            score = f"{match.similarity:.2f} {reaches} {match.threshold:.2f}"
            means = " › ".join(match.path) if match.matched else "[dim]none of the catalogue[/]"
            table.add_row(query, means, f"{match.phrase} [dim]{score}[/]")
        console.print(table)

    def open(self, console: Console, tables: Tables) -> None:
        """Look at the keywords below the empty field, open a shop of another kind, look again."""
        user_id, searched, shop_id, shop = _someone_and_a_shop(tables)
        console.print(f"{user_id} searched for {', '.join(searched)} before. Keywords for them:")
        table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
        before = self._keywords(user_id)
        table.add_row("at first", "  ".join(k.text for k in before.keywords))
        event = ranker_pb2.FeedbackEvent(
            event_id=uuid.uuid4().hex,
            type=ranker_pb2.FEEDBACK_TYPE_CLICK,
            user_id=user_id,
            item_id=shop_id,
        )
        request = ranker_pb2.RecordFeedbackRequest(events=[event])
        self._ranker.RecordFeedback(request, timeout=_TIMEOUT)
        seen = wait_for(lambda: self._keywords(user_id).list == pb.KEYWORD_LIST_REAL_TIME, 10)
        after = self._keywords(user_id) if seen else before
        table.add_row(f"after opening {shop}", "  ".join(k.text for k in after.keywords))
        console.print(table)

    def _keywords(self, user_id: str) -> pb.RecommendKeywordsResponse:
        request = pb.RecommendKeywordsRequest(user_id=user_id, limit=5)
        return self._search.RecommendKeywords(request, timeout=_TIMEOUT)


def _someone_and_a_shop(tables: Tables) -> tuple[str, list[str], str, str]:
    """Who searched most, for what, latest first, and the id and name of a shop of a kind that they
    never wanted."""
    known = tables.frames["searches"].filter(pl.col("period") < tables.test_period)
    counts = known["user_id"].value_counts().sort("count", "user_id", descending=[True, False])
    own = known.filter(pl.col("user_id") == counts["user_id"][0]).sort("time", descending=True)
    items = tables.frames["items"].filter(pl.col("kind") == place_pb2.ITEM_KIND_SHOP)
    wanted = own.select("item_id").join(items, "item_id")["category"].unique()
    other = items.filter(~pl.col("category").is_in(wanted.implode())).row(0, named=True)
    searched = own["query"].unique(maintain_order=True).head(3).to_list()
    return counts["user_id"][0], searched, other["item_id"], other["name"]


def marked(highlight: pb.Highlight) -> str:
    """A line with what matches in bold."""
    out, at = "", 0
    for span in highlight.spans:
        end = span.start + span.length
        out += escape(highlight.text[at : span.start])
        out += f"[bold yellow]{escape(highlight.text[span.start : end])}[/]"
        at = end
    return out + escape(highlight.text[at:])


def _bold_start(text: str, prefix: str) -> str:
    """A phrase, what was typed of it in bold, up to the syllable that is being typed."""
    typed, end = keys(prefix), 0
    while end < len(text) and typed.startswith(keys(text[: end + 1])):
        end += 1
    return f"[bold]{escape(text[:end])}[/]{escape(text[end:])}" if end else escape(text)
