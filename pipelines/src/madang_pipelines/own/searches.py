"""svc-search's encoder from someone's documents, judged queries, sentences and intents."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import polars as pl

from madang_pipelines.imports.importing import Imported
from madang_pipelines.own.report import Report, card
from madang_pipelines.own.search_lab import SearchLab, SearchSets
from madang_pipelines.own.search_sets import (
    document_rows,
    phrases,
    retrieval_set,
    sentence_pairs,
)
from madang_pipelines.search.retrieval import RetrievalSet
from madang_pipelines.search.training import register_encoder, strangers
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_runtime.text import ENCODER
from madang_runtime.text.tokens import TextTokens
from madang_search.backbone import load_backbone
from madang_search.model import SentenceEncoder
from madang_search.train import Objective, Schedule, fine_tune, mean_weights

Progress = Callable[[str, float], None]
_STRANGERS = 512
_LEARNED = 96
"""Tokens of a text that are learned from."""


@dataclass(frozen=True)
class SearchPlan:
    """How long to train, and of how many seeds the weights' mean is taken."""

    schedule: Schedule = field(
        default_factory=lambda: Schedule(epochs=3, batch=32, learning_rate=2e-4, forget=0.1)
    )
    sentences: Schedule = field(default_factory=lambda: Schedule(epochs=4, batch=32, forget=0.2))
    seeds: tuple[int, ...] = (0, 1, 2)


def train_searches(
    name: str,
    tables: Mapping[str, Imported],
    registry: ModelRegistry,
    plan: SearchPlan = SearchPlan(),
    progress: Progress = lambda step, share: None,
) -> tuple[Report, pl.DataFrame | None]:
    """Fine-tune the encoder on what there is, keep it if it is better on what chooses, and make it
    champion.

    Returns:
        what it is worth, and the documents to be put in, as `shop_documents` has them.
    """
    sets = SearchSets(
        retrieval_set(tables),
        sentence_pairs(tables["alike"]) if "alike" in tables else None,
        phrases(tables["intents"]) if "intents" in tables else None,
    )
    with tempfile.TemporaryDirectory() as folder:
        lab = SearchLab(ModelRegistry(f"file://{folder}"), sets)
        came = ours = lab.served(load_backbone()[0])
        model = None
        if objectives := lab.objectives(came):
            model = _tuned(
                objectives, plan.sentences if sets.alike else plan.schedule, plan.seeds, progress
            )
            ours = lab.served(model)
        progress("judging", 0.0)
        before, after = lab.chosen_by(came), lab.chosen_by(ours)
        if after <= before:
            ours, model = came, None
        weight, scores = lab.scores(came, ours)
        progress("judging", 1.0)
    report = Report(
        "svc-search",
        name,
        {ENCODER: ""},
        _said(sets),
        scores,
        {
            "the encoder": "fine-tuned" if model else "as it came",
            "by what chooses": f"fine-tuned {after:.4f}, as it came {before:.4f}",
            "share of vectors in a score": f"{weight:g}",
        },
        quality=[rejected for table in tables.values() for rejected in table.quality],
    )
    backbone, tokenizer = load_backbone()
    version = register_encoder(
        model or backbone,
        tokenizer,
        registry,
        _unrelated(sets),
        {"card.md": card(report, datetime.now(UTC).date()).encode()},
        data=name,
        dense_weight=weight,
    )
    registry.set_alias(ENCODER, CHAMPION, version)
    return replace(report, versions={ENCODER: version}), _documents(tables, sets.retrieval)


def documents_of(name: str, tables: Mapping[str, Imported]) -> pl.DataFrame:
    """The documents of a mapping's tables, or its pairs', as more to be found beside others: their
    ids begin with the mapping's name."""
    found = _documents(tables, retrieval_set(tables))
    assert found is not None
    return found.with_columns(document_id=pl.concat_str(pl.lit(f"{name}/"), "document_id"))


def _tuned(
    objectives: Sequence[Objective], schedule: Schedule, seeds: Sequence[int], progress: Progress
) -> SentenceEncoder:
    """The mean of the weights that each seed gives."""
    models = []
    for at, seed in enumerate(seeds):
        model, tokenizer = load_backbone()

        def step(done: int, steps: int, at: int = at) -> None:
            progress("search", (at + done / steps) / len(seeds))

        tokens = TextTokens(tokenizer, _LEARNED)
        fine_tune(model, tokens, objectives, replace(schedule, seed=seed), step)
        models.append(model)
    return mean_weights(models)


def _said(sets: SearchSets) -> str:
    """What is held out, in a sentence."""
    found = []
    if sets.retrieval and sets.retrieval.queries:
        found.append(f"{len(sets.retrieval.of('test')):,} queries")
    if sets.alike:
        found.append(f"{len(sets.alike['test'].first):,} pairs of sentences")
    if sets.intents:
        found.append(f"{int(sets.intents.held.sum()):,} phrases of intents")
    return f"{', '.join(found)}." if found else "Nothing: there are documents alone."


def _unrelated(sets: SearchSets) -> tuple[list[str], list[str]]:
    """Texts beside such as do not mean the same, as many as there are up to a few hundred."""
    rng = np.random.default_rng(0)
    if sets.retrieval and len(sets.retrieval.titles) > 1:
        data = sets.retrieval
        first = data.queries or data.titles
        chosen = rng.integers(0, len(first), _STRANGERS).tolist()
        other = rng.integers(0, len(data.titles), _STRANGERS).tolist()
        known = data.relevant or [{at: 1} for at in range(len(first))]
        pairs = [
            (first[q], f"{data.titles[d]}\n{data.bodies[d]}")
            for q, d in zip(chosen, other, strict=True)
            if d not in known[q]
        ]
    elif sets.alike:
        texts = sets.alike["train"]
        turned = [*texts.second[1:], *texts.second[:1]]
        pairs = [*zip(texts.first, turned, strict=True)][:_STRANGERS]
    else:
        return strangers()
    return [first for first, _ in pairs], [second for _, second in pairs]


def _documents(tables: Mapping[str, Imported], data: RetrievalSet | None) -> pl.DataFrame | None:
    """Those to be put in: of the table, or what pairs have, by number."""
    if "documents" in tables:
        return document_rows(tables["documents"])
    if data is None:
        return None
    rows = pl.DataFrame(
        {"document": map(str, range(len(data.titles))), "title": data.titles, "text": data.bodies}
    )
    return document_rows(Imported(rows))
