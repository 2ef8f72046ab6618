"""Someone's tables as what search learns from and is judged by."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_pipelines.imports.importing import Imported
from madang_pipelines.search.retrieval import RetrievalSet

_SPLITS = ("train", "valid", "test")
_FEW = 500
"""Judged queries that are too few to learn from any."""


@dataclass(frozen=True)
class SentencePairs:
    """n pairs of sentences, and how alike people find them: float32 [n] in [0, 1]."""

    first: list[str]
    second: list[str]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Phrases:
    """n phrases of intents, and those that were held out."""

    texts: list[str]
    intents: list[str]
    held: NDArray[np.bool_]


def retrieval_set(tables: Mapping[str, Imported], seed: int = 0) -> RetrievalSet | None:
    """Queries with what answers them, of `pairs`, or of `documents`, `queries` and `judgements`;
    None where there are none. Documents alone are a set without queries."""
    if pairs := tables.get("pairs"):
        return _of_pairs(pairs.frame, seed)
    if not (documents := tables.get("documents")):
        return None
    corpus = document_rows(documents)
    relevant: dict[str, dict[int, int]] = {}
    texts: dict[str, str] = {}
    if {"queries", "judgements"} <= tables.keys():
        at = {own: number for number, own in enumerate(corpus["document_id"].to_list())}
        texts = dict(tables["queries"].frame.select("query", "text").iter_rows())
        grade = "grade" if tables["judgements"].has("grade") else pl.lit(1.0).alias("grade")
        for query, document, value in (
            tables["judgements"].frame.select("query", "document", grade).iter_rows()
        ):
            if query in texts and document in at and (value or 0) >= 1:
                relevant.setdefault(query, {})[at[document]] = int(value)
    asked = [query for query in texts if query in relevant]
    return RetrievalSet(
        titles=corpus["title"].to_list(),
        bodies=corpus["body"].to_list(),
        queries=[texts[query] for query in asked],
        relevant=[relevant[query] for query in asked],
        split=_drawn(len(asked), seed),
    )


def document_rows(table: Imported) -> pl.DataFrame:
    """Documents as svc-search takes them, as `shop_documents` has them."""
    frame = table.frame

    def column(name: str, otherwise: pl.Expr) -> pl.Expr:
        return pl.col(name).fill_null(otherwise) if table.has(name) else otherwise

    none = pl.lit("", pl.String())
    unknown = pl.lit(None, pl.Float64())
    title = column("title", pl.col("document"))
    return frame.select(
        document_id="document",
        title=pl.when(title == "").then(pl.col("document")).otherwise(title).str.slice(0, 512),
        body=column("text", none).str.slice(0, 8192),
        category=column("category", none).str.slice(0, 128),
        latitude=column("latitude", unknown),
        longitude=column("longitude", unknown),
        delivery_radius_km=0.0,
        open_hours=0,
        popularity=column("popularity", pl.lit(0.0)).clip(0),
    )


def sentence_pairs(table: Imported) -> dict[str, SentencePairs]:
    """Pairs of sentences by split."""
    frame = table.frame.drop_nulls()
    if (frame["part"] == "").all():
        frame = frame.with_columns(part=pl.Series(_drawn(len(frame), 0, few=0)))
    found = {}
    for part in _SPLITS:
        own = frame.filter(pl.col("part") == part)
        scores = own["score"].cast(pl.Float32).clip(0, 1).to_numpy()
        found[part] = SentencePairs(own["first"].to_list(), own["second"].to_list(), scores)
    return found


def phrases(table: Imported, seed: int = 0) -> Phrases:
    """Phrases of intents; those of the given test part are held out, else a fifth of each intent's,
    or one where there are few, but never all."""
    frame = table.frame.drop_nulls("phrase")
    held = (frame["part"] == "test").to_numpy()
    if not held.any():
        drawn = pl.Series("drawn", np.random.default_rng(seed).random(len(frame)))
        rank = pl.col("drawn").rank("ordinal").over("intent")
        of = pl.len().over("intent")
        wanted = pl.when(of > 1).then((of * 0.2).clip(1)).otherwise(0)
        held = frame.with_columns(drawn).select(rank <= wanted).to_series().to_numpy()
    return Phrases(frame["phrase"].to_list(), frame["intent"].to_list(), held)


def _of_pairs(frame: pl.DataFrame, seed: int) -> RetrievalSet:
    """Each title with its text is a document, each query with an answer is asked."""
    clean = [
        pl.col(c).fill_null("").str.replace_all(r"\s+", " ").str.strip_chars()
        for c in ("query", "title", "text")
        if c in frame.columns
    ]
    frame = frame.with_columns(clean)
    if "text" not in frame.columns:
        frame = frame.with_columns(text=pl.lit(""))
    if "label" not in frame.columns:
        frame = frame.with_columns(label=True)
    rows = frame.select("title", "text").unique(maintain_order=True).with_row_index("at")
    frame = frame.join(rows, ["title", "text"], how="left", maintain_order="left")
    answers: dict[tuple[str, str], dict[int, int]] = {}
    for query, part, at in frame.filter("label").select("query", "part", "at").iter_rows():
        answers.setdefault((query, part), {})[at] = 1
    given = any(part for _, part in answers)
    return RetrievalSet(
        titles=rows["title"].to_list(),
        bodies=rows["text"].to_list(),
        queries=[query for query, _ in answers],
        relevant=list(answers.values()),
        split=[part or "train" for _, part in answers] if given else _drawn(len(answers), seed),
    )


def _drawn(n: int, seed: int, few: int = _FEW) -> list[str]:
    """A fifth chooses and a fifth judges; of a few, a fifth chooses and all others judge."""
    fold = np.random.default_rng(seed).permutation(n) % 5
    rest = "test" if n < few else "train"
    return [{0: "valid", 1: "test"}.get(int(at), rest) for at in fold]
