"""Judges encoders by what was held out of someone's searches, sentences and intents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer

from madang_pipelines.own.report import OURS, Score
from madang_pipelines.own.search_sets import Phrases, SentencePairs
from madang_pipelines.own.spread import correlation_spread
from madang_pipelines.search.retrieval import Judged, RetrievalSet, Searcher
from madang_pipelines.search.training import DENSE_WEIGHT, register_encoder
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder
from madang_search.backbone import load_backbone
from madang_search.model import SentenceEncoder
from madang_search.train import Objective

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
_CAME, _WORDS, _LETTERS, _VECTORS = "encoder as it came", "BM25", "letters", "vectors"
_ALIKE = 0.8
"""How alike sentences are that say the same."""
_AT_ONCE = 1024


@dataclass(frozen=True)
class SearchSets:
    """What a mapping has of each kind."""

    retrieval: RetrievalSet | None
    alike: dict[str, SentencePairs] | None
    intents: Phrases | None


class SearchLab:
    """Serves encoders and judges them.

    Args:
        registry: for what is only tried.
        sets: to judge by.
    """

    def __init__(self, registry: ModelRegistry, sets: SearchSets) -> None:
        self._registry = registry
        self._sets = sets
        self._searcher = Searcher()
        self._judged: dict[str, Judged] = {}

    def served(self, model: SentenceEncoder) -> Encoder:
        """A model as it serves."""
        anything = (["a"], ["b"])
        version = register_encoder(model, load_backbone()[1], self._registry, anything)
        return Encoder(self._registry.load(ENCODER, version), small=True, threads=2)

    def objectives(self, encoder: Encoder) -> list[Objective]:
        """What can be learned; nothing where nothing tells whether it helped."""
        sets, found = self._sets, list[Objective]()
        if sets.retrieval and sets.retrieval.queries:
            found += self._searcher.adapted(sets.retrieval, encoder)
        if sets.alike and (learn := sets.alike["train"]).first:
            found += sentence_objectives(learn)
        if sets.intents and (pairs := _paraphrases(sets.intents)):
            found.append(Objective(pairs, {"pairs": 1.0}))
        return found

    def chosen_by(self, encoder: Encoder) -> float:
        """The sum of what is judged, each from 0 to 1, on what chooses."""
        sets, found = self._sets, 0.0
        if sets.retrieval and sets.retrieval.queries:
            found += self._search(encoder).chosen_by
        if sets.alike:
            found += similar(sets.alike["valid"], encoder.encode)
        if sets.intents:
            learned = np.flatnonzero(~sets.intents.held)
            found += float(_right(sets.intents, learned, learned, encoder.encode).mean())
        return found

    def scores(self, came: Encoder, ours: Encoder) -> tuple[float, dict[str, dict[str, Score]]]:
        """The share of vectors, and every side's metrics on what was held out."""
        sets, weight = self._sets, DENSE_WEIGHT
        found: dict[str, dict[str, Score]] = {
            side: {} for side in (_WORDS, _LETTERS, _CAME, _VECTORS, OURS)
        }
        if sets.retrieval and sets.retrieval.queries:
            judged = self._search(ours)
            weight = judged.weight
            for side, scored in (
                (_WORDS, judged.scored["BM25"]),
                (_CAME, self._search(came).scored["vectors"]),
                (_VECTORS, judged.scored["vectors"]),
                (OURS, judged.scored["tuned"]),
            ):
                for metric, values in zip(("nDCG@10", "Recall@10"), scored, strict=True):
                    found[side][metric] = _mean(values)
        sides = ((_LETTERS, _letters), (_CAME, came.encode), (OURS, ours.encode))
        for side, coded in sides:
            if sets.alike:
                pairs = sets.alike["test"]
                value = similar(pairs, coded)
                found[side]["Spearman"] = Score(value, correlation_spread(value, len(pairs.first)))
            if sets.intents:
                held = sets.intents.held
                asked, told = np.flatnonzero(held), np.flatnonzero(~held)
                found[side]["right intent"] = _mean(_right(sets.intents, asked, told, coded))
        return weight, {side: own for side, own in found.items() if own}

    def _search(self, encoder: Encoder) -> Judged:
        assert self._sets.retrieval
        if encoder.version not in self._judged:
            judged = self._searcher.judged(self._sets.retrieval, encoder)
            self._judged[encoder.version] = judged
        return self._judged[encoder.version]


Coder = Callable[[Sequence[str]], Any]
"""Texts → rows of length 1, whose products say how alike they are."""


def _letters(texts: Sequence[str]) -> Any:
    """By the letters that texts have in common."""
    return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit_transform(texts)


def similar(pairs: SentencePairs, coded: Coder) -> float:
    """Spearman's rank correlation of cosines and what people said."""
    vectors, n = coded([*pairs.first, *pairs.second]), len(pairs.first)
    products = (
        vectors[:n] * vectors[n:]
        if isinstance(vectors, np.ndarray)
        else vectors[:n].multiply(vectors[n:])
    )
    return float(spearmanr(np.asarray(products.sum(1)).ravel(), pairs.scores)[0])


def sentence_objectives(pairs: SentencePairs) -> list[Objective]:
    """How alike pairs are; and of those that say the same, that they are nearest."""
    same = np.flatnonzero(pairs.scores >= _ALIKE).tolist()
    found = [Objective([pairs.first, pairs.second], {"scored": 10.0}, pairs.scores)]
    if same:
        texts = [[column[i] for i in same] for column in (pairs.first, pairs.second)]
        found.append(Objective(texts, {"pairs": 0.3}))
    return found


def _right(intents: Phrases, asked: Rows, told: Rows, coded: Coder) -> Floats:
    """Of phrases that are asked, whether the nearest other one that was told means the same: 0 or
    1."""
    vectors, found = coded(intents.texts), []
    names = np.array(intents.intents)
    for part in np.array_split(asked, len(asked) // _AT_ONCE + 1):
        likeness = vectors[part] @ vectors[told].T
        likeness = np.asarray(likeness if isinstance(likeness, np.ndarray) else likeness.todense())
        likeness[part[:, None] == told[None, :]] = -1
        found.append(names[told[likeness.argmax(1)]] == names[part])
    return np.concatenate(found).astype(np.float64)


def _paraphrases(intents: Phrases, seed: int = 0) -> list[list[str]]:
    """Each phrase that may be learned from, beside another one of its intent."""
    own: dict[str, list[str]] = {}
    for text, intent, held in zip(intents.texts, intents.intents, intents.held, strict=True):
        if not held:
            own.setdefault(intent, []).append(text)
    rng, pairs = np.random.default_rng(seed), list[tuple[str, str]]()
    for texts in own.values():
        if len(texts) > 1:
            turned = np.roll(rng.permutation(len(texts)), 1)
            pairs += zip(texts, (texts[at] for at in turned.tolist()), strict=True)
    pairs = [(first, second) for first, second in pairs if first != second]
    return [[first for first, _ in pairs], [second for _, second in pairs]] if pairs else []


def _mean(values: Floats) -> Score:
    return Score(float(values.mean()), float(1.96 * values.std() / np.sqrt(max(len(values), 1))))
