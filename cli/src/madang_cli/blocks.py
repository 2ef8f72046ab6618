"""The demo's blocks: what the same words mean to one person and to another."""

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from madang.ranker.v1 import ranker_pb2
from madang.search.v1 import search_pb2 as pb
from madang.search.v1 import search_pb2_grpc
from madang_pipelines.city.names import WISHES
from madang_pipelines.tables import Tables

_TIMEOUT = 5.0


def show_blocks(
    search: search_pb2_grpc.SearchServiceStub,
    feed: ranker_pb2.RecommendRequest,
    tables: Tables,
    console: Console,
) -> None:
    """A wish, asked by nobody and by two people of other tastes; and a shop by its name.

    Args:
        feed: place and time.
    """
    wish, people = WISHES[0][0], _of_other_tastes(tables)
    (shop,) = search.Suggest(pb.SuggestRequest(limit=1), timeout=_TIMEOUT).suggestions
    table = Table("searched", "by", "personal", "blocks", box=None, pad_edge=False, padding=(0, 2))
    for query, user in [(wish, ""), *((wish, one) for one in people), (shop.text, people[0])]:
        request = pb.SearchBlocksRequest(
            query=query,
            user_id=user,
            place=feed.place,
            request_time=feed.request_time,
            max_blocks=4,
            hits_per_block=1,
        )
        answer = search.SearchBlocks(request, timeout=_TIMEOUT)
        blocks = "  ".join(
            f"{escape(block.title)} {block.score:.0%}" for block in answer.blocks if block.score
        )
        table.add_row(query, user or "anybody", f"{answer.personalisation:.0%}", blocks)
    console.print(table)


def _of_other_tastes(tables: Tables) -> list[str]:
    """The two who ordered most of one kind of shop each, of the two kinds ordered most."""
    counts = (
        tables.frames["actions"]
        .filter(pl.col("type") == "order", pl.col("period") < tables.test_period)
        .join(tables.frames["items"], "item_id")
        .group_by("user_id", "category")
        .len()
        .sort("len", "user_id", descending=[True, False])
    )
    return counts.unique("category", keep="first", maintain_order=True)["user_id"].head(2).to_list()
