"""Candidates into blocks."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from madang.search.v1 import search_pb2 as pb
from madang_search.blocks.retrieving import Candidate
from madang_search.blocks.scores import Floats
from madang_search.keywords.model import keyword_text


class Block(NamedTuple):
    """One thing that may be meant.

    Attributes:
        kind, title: as answers say them.
        rows: the candidates, best first.
        score, general: the probability that it holds what is wanted, and the same for anybody.
    """

    kind: "pb.BlockKind.ValueType"
    title: str
    rows: Sequence[int]
    score: float
    general: float


def group(
    query: str,
    candidates: Sequence[Candidate],
    scores: Floats,
    general: Floats,
    recent: Collection[str],
) -> list[Block]:
    """Every candidate in one block, the best block first.

    Args:
        scores, general: probabilities that a candidate is what the user, or anybody, wants, [n].
        recent: ids of what the user just looked at.
    """
    named = keyword_text(query)
    groups: dict[tuple[pb.BlockKind.ValueType, str], list[int]] = {}
    for row in np.argsort(-scores, kind="stable").tolist():
        document = candidates[row].document
        if keyword_text(document.title) == named:
            key = pb.BLOCK_KIND_ANSWER, document.title
        elif document.document_id in recent:
            key = pb.BLOCK_KIND_REACTION, ""
        else:
            key = pb.BLOCK_KIND_EXPLORATION, document.category
        groups.setdefault(key, []).append(row)
    blocks = [
        Block(*key, rows, float(scores[rows].sum()), float(general[rows].sum()))
        for key, rows in groups.items()
    ]
    return sorted(blocks, key=lambda block: -block.score)
